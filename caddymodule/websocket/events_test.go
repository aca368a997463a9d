package websocket_test

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyevents"

	"github.com/caddy-websocket/caddy-websocket/gateway"
)

func init() { caddy.RegisterModule(&listener{}) }

// listener is a handler of events that notes them: `on <event> listener <text>`,
// with placeholders in the text.
type listener struct {
	Text string `json:"text,omitempty"`
}

// heardEvent is one that a listener was told.
type heardEvent struct {
	name, origin, text string
	data               map[string]any
}

// What the listeners heard since the test began, and what they do then.
var (
	heardMu   sync.Mutex
	heard     []heardEvent // guarded by heardMu
	heardHook atomic.Pointer[func(caddy.Event)]
)

func (*listener) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "events.handlers.listener", New: func() caddy.Module { return new(listener) }}
}

func (l *listener) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next()
	d.AllArgs(&l.Text)
	return nil
}

func (l *listener) Handle(ctx context.Context, e caddy.Event) error {
	h := heardEvent{name: e.Name(), data: maps.Clone(e.Data)}
	if e.Origin() != nil {
		h.origin = string(e.Origin().CaddyModule().ID)
	}
	h.text = ctx.Value(caddy.ReplacerCtxKey).(*caddy.Replacer).ReplaceAll(l.Text, "?")
	heardMu.Lock()
	heard = append(heard, h)
	heardMu.Unlock()
	if hook := heardHook.Load(); hook != nil {
		(*hook)(e)
	}
	return nil
}

// allHeard returns what was heard under a name.
func allHeard(name string) (found []heardEvent) {
	heardMu.Lock()
	defer heardMu.Unlock()
	for _, h := range heard {
		if h.name == name {
			found = append(found, h)
		}
	}
	return found
}

// startListening is start with listeners for both events.
func startListening(t *testing.T, sites string) *server {
	t.Helper()
	heardMu.Lock()
	heard = nil
	heardMu.Unlock()
	t.Cleanup(func() { heardHook.Store(nil) })
	return startWith(t, listening("old"), sites)
}

// listening is the global option that subscribes.
func listening(text string) string {
	return fmt.Sprintf("events {\n on websocket_connected listener \"%[1]s {event.data.client}\"\n on websocket_closed listener \"%[1]s {event.data.code}\"\n}", text)
}

func (s *server) waitForHeard(name string, n int) []heardEvent {
	s.t.Helper()
	s.waitFor(fmt.Sprintf("%d events %s", n, name), func() bool { return len(allHeard(name)) >= n })
	found := allHeard(name)
	if len(found) > n {
		s.t.Fatalf("%d events %s, want %d: %v", len(found), name, n, found)
	}
	return found
}

const echoSite = "HTTP {\n websocket /ws {\n user {query.user}\n logic echo\n}\n}\n"

// Whoever keeps a list of who is there, or pages somebody, is told by Caddy's own
// means, with everything that the log says.
func TestSubscribersAreToldWhoComesAndGoes(t *testing.T) {
	b := newBackend(t, false)
	s := startListening(t, "HTTP {\n websocket /ws {\n user {query.user}\n logic echo\n}\n websocket /proxied {\n gateway other\n reverse_proxy "+b.addr()+"\n}\n}\n")
	c := s.dial("ws:/ws?user=tom")
	id := s.log.wait(t, "client connected", "endpoint", "/ws")["client"].(string)
	connected := s.waitForHeard("websocket_connected", 1)[0]
	want := map[string]any{"gateway": "default", "endpoint": "/ws", "client": id, "client_ip": "127.0.0.1", "user": "tom"}
	if !maps.Equal(connected.data, want) || connected.text != "old "+id {
		t.Errorf("connected with %v and %q, want %v and the id in the text", connected.data, connected.text, want)
	}
	c.leave(4001, "bye")
	closed := s.waitForHeard("websocket_closed", 1)[0]
	want["code"], want["reason"], want["by_peer"] = 4001, "bye", true
	if !maps.Equal(closed.data, want) || closed.text != "old 4001" {
		t.Errorf("closed with %v and %q, want %v", closed.data, closed.text, want)
	}
	fields(t, s.dial("ws:/proxied"))
	if data := s.waitForHeard("websocket_connected", 2)[1].data; data["gateway"] != "other" || data["endpoint"] != "/proxied" || data["user"] != "" {
		t.Errorf("the proxied client connected with %v", data)
	}
}

// Subscriptions can be narrowed to what a module emits, so ours must come from where
// we say that they come from, whatever else is configured.
func TestEventsComeFromModuleWebsocket(t *testing.T) {
	heardMu.Lock()
	heard = nil
	heardMu.Unlock()
	b := newBackend(t, false)
	s := newServer(t)
	text, err := adapt(t, s.caddyfile(listening("x"), "HTTP {\n tracing\n encode\n header X-A b\n websocket /ws {\n logic echo\n}\n websocket /proxied {\n reverse_proxy "+b.addr()+"\n}\n}\n"))
	if err != nil {
		t.Fatal(err)
	}
	var config map[string]any
	if err := json.Unmarshal(text, &config); err != nil {
		t.Fatal(err)
	}
	for _, subscription := range config["apps"].(map[string]any)["events"].(map[string]any)["subscriptions"].([]any) {
		subscription.(map[string]any)["modules"] = []string{"websocket"}
	}
	if text, err = json.Marshal(config); err != nil {
		t.Fatal(err)
	}
	if err := s.loadJSON(text); err != nil {
		t.Fatal(err)
	}
	s.dial("ws:/ws")
	if got := s.waitForHeard("websocket_connected", 1)[0].origin; got != "websocket.events" {
		t.Errorf("the event comes from %q, want websocket.events", got)
	}
}

// Handlers are called one after the other and may take their time: a page must not
// notice, and what was to be told is told later.
func TestSlowSubscriberHoldsUpNobody(t *testing.T) {
	release := make(chan struct{})
	hook := func(caddy.Event) { <-release }
	s := startListening(t, echoSite)
	heardHook.Store(&hook)
	for range 20 {
		c := s.dial("ws:/ws")
		c.ask("tom", "tom")
		c.leave(1000, "")
	}
	s.waitFor("20 clients to be gone", func() bool { return len(s.log.find("client gone")) == 20 })
	if n := len(allHeard("websocket_connected")); n != 1 {
		t.Errorf("%d handlers were called at once, want 1", n)
	}
	close(release)
	s.waitForHeard("websocket_connected", 20)
	s.waitForHeard("websocket_closed", 20)
}

// There is a bound on what is kept for a subscriber that does not keep up, and going
// past it must show.
func TestMissedEventsAreCountedAndLogged(t *testing.T) {
	const clients, buffer = 540, 1024
	release := make(chan struct{})
	hook := func(caddy.Event) { <-release }
	s := startListening(t, echoSite)
	heardHook.Store(&hook)
	for range clients {
		s.dial("ws:/ws").leave(1000, "")
	}
	s.waitFor("all to be gone", func() bool { return s.scrape(t).sum("closes_total") == clients })
	const missed = 2*clients - buffer - 1 // one is in the handler's hands
	s.waitFor("the metric", func() bool { return s.scrape(t).sum("events_missed_total") == missed })
	close(release)
	s.log.wait(t, "events were missed: their handlers take too long", "gateway", "default", "missed", float64(missed))
	s.waitFor("the others", func() bool {
		return len(allHeard("websocket_connected"))+len(allHeard("websocket_closed")) == 2*clients-missed
	})
	s.mustLoad(listening("new"), echoSite)
	if got := s.scrape(t).sum("events_missed_total"); got != missed {
		t.Errorf("%v missed after a reload, want %d as before", got, missed)
	}
}

// A server without subscribers must not pay for them, and one whose subscribers went
// away with a reload must stop to.
func TestNothingIsWatchedUnlessSomebodySubscribed(t *testing.T) {
	s := newServer(t)
	running := func() int { return strings.Count(ours(), "websocket.(*emitter).run") }
	for i, tt := range []struct {
		globals string
		want    int
	}{{"", 0}, {listening("x"), 1}, {listening("y"), 1}, {"", 0}, {"events {\n on * listener all\n}", 1}, {"events {\n on cert_obtained listener x\n}", 0}} {
		s.mustLoad(tt.globals, echoSite)
		if got := running(); got != tt.want {
			t.Errorf("configuration %d: %d goroutines for events, want %d\n%s", i, got, tt.want, ours())
		}
		s.dial("ws:/ws").ask("tom", "tom")
	}
}

// A handler of somebody else's that panics would end the whole process.
func TestPanicInASubscriberIsLogged(t *testing.T) {
	var once sync.Once
	hook := func(caddy.Event) { once.Do(func() { panic("as it should") }) }
	s := startListening(t, echoSite)
	heardHook.Store(&hook)
	c := s.dial("ws:/ws")
	s.log.wait(t, "panic in a handler of an event", "event_type", "connect", "panic", "as it should")
	c.leave(1000, "")
	s.waitForHeard("websocket_closed", 1)
}

// Who counts connections by these events is wrong for ever if a reload loses one or
// tells it twice.
func TestReloadsLoseAndRepeatNoEvent(t *testing.T) {
	const dialers, reloads = 4, 12
	s := startListening(t, echoSite)
	s.mustLoad(listening("0"), echoSite) // from now on the harness expects connections to be lost
	quit := make(chan struct{})
	var running sync.WaitGroup
	for range dialers {
		running.Go(func() {
			for {
				select {
				case <-quit:
					return
				default:
				}
				c, ok := s.dialInStorm("ws:/ws")
				if !ok {
					return
				}
				if c == nil {
					continue
				}
				c.ask("tom", "tom")
				c.leave(4000, "")
				_ = c.Close()
			}
		})
	}
	for i := range reloads {
		config, err := adapt(t, s.caddyfile(listening(fmt.Sprint(i+1)), echoSite))
		if err != nil {
			t.Error(err)
			break
		}
		if err := caddy.Load(config, true); err != nil {
			t.Errorf("reload %d: %v", i, err)
		}
		if i%4 == 3 {
			f := func() error { return fmt.Errorf("neighbour cannot start") }
			neighbourStart.Store(&f)
			config, _ := adapt(t, s.caddyfile("neighbour\n"+listening("broken"), echoSite))
			if err := caddy.Load(config, true); err == nil {
				t.Error("a configuration that cannot start was loaded")
			}
			neighbourStart.Store(nil)
		}
	}
	close(quit)
	running.Wait()
	s.waitForClients("/ws", 0)
	n := len(s.log.find("client connected"))
	if n < reloads {
		t.Errorf("%d clients in %d reloads: that is no test", n, reloads)
	}
	for _, name := range []string{"websocket_connected", "websocket_closed"} {
		ids := make(map[any]int)
		for _, h := range s.waitForHeard(name, n) {
			ids[h.data["client"]]++
			if strings.HasPrefix(h.text, "broken") {
				t.Error("a configuration that failed was told")
			}
		}
		for _, entry := range s.log.find("client connected") {
			if ids[entry["client"]] != 1 {
				t.Errorf("%d events %s of client %v, want 1", ids[entry["client"]], name, entry["client"])
			}
		}
	}
}

// The old configuration may take seconds to end; what happens meanwhile is for the
// subscribers of the new one, which serves.
func TestNewConfigurationIsToldWhileTheOldOneEnds(t *testing.T) {
	const clients = 10
	entered, release := make(chan struct{}), make(chan struct{})
	hook := func(_ *gateway.Client, r *http.Request) {
		if r.URL.Query().Has("block") {
			close(entered)
			<-release
		}
	}
	probeConnect.Store(&hook)
	defer probeConnect.Store(nil)
	site := func(logic string) string { return "HTTP {\n websocket /ws {\n logic probe " + logic + "\n}\n}\n" }
	s := startListening(t, site("old"))
	var waiting sync.WaitGroup
	waiting.Go(func() { s.dial("ws:/ws?block") })
	<-entered
	config, err := adapt(t, s.caddyfile(listening("new"), site("new")))
	if err != nil {
		t.Fatal(err)
	}
	waiting.Go(func() {
		if err := caddy.Load(config, true); err != nil {
			t.Error(err)
		}
	})
	s.reloaded = true
	s.waitFor("the new configuration to serve", func() bool { return s.dial("ws:/ws").resp.Header.Get("X-Logic") == "new" })
	for range clients {
		s.dial("ws:/ws")
	}
	// The line is written when the answer has been sent.
	var connected []map[string]any
	s.waitFor("their lines in the log", func() bool {
		connected = s.log.find("client connected")
		return len(connected) > clients
	})
	s.waitFor("all to be told", func() bool { return len(allHeard("websocket_connected")) >= len(connected) })
	close(release)
	waiting.Wait()
	told := allHeard("websocket_connected")
	for _, entry := range connected[len(connected)-clients:] {
		if !slices.ContainsFunc(told, func(h heardEvent) bool { return h.text == fmt.Sprint("new ", entry["client"]) }) {
			t.Errorf("the new configuration was not told of client %v", entry["client"])
		}
	}
}

// A configuration that fails after it seemed to have started must not take the
// events with it.
func TestEventsStayWithTheConfigurationThatRuns(t *testing.T) {
	s := startListening(t, echoSite)
	c := s.dial("ws:/ws")
	s.waitForHeard("websocket_connected", 1)
	s.failLate(echoSite, nil)
	c.ask("still here", "still here")
	s.dial("ws:/ws").ask("tom", "tom")
	c.leave(1000, "")
	if h := s.waitForHeard("websocket_connected", 2)[1]; !strings.HasPrefix(h.text, "old ") {
		t.Errorf("%q was told, want the configuration that runs", h.text)
	}
	s.waitForHeard("websocket_closed", 1)
}

// The end of a server is the end of all connections, and the last chance to say so.
func TestEndsOfAllClientsAreToldBeforeCaddyStops(t *testing.T) {
	const clients = 30
	s := startListening(t, echoSite)
	var all []*client
	for range clients {
		all = append(all, s.dial("ws:/ws"))
	}
	var answering sync.WaitGroup
	for _, c := range all {
		answering.Go(func() { c.wantClose(gateway.CloseGoingAway) })
	}
	slow := func(caddy.Event) { time.Sleep(time.Millisecond) }
	heardHook.Store(&slow)
	if err := caddy.Stop(); err != nil {
		t.Fatal(err)
	}
	codes := make([]int, 0, clients)
	for _, h := range allHeard("websocket_closed") {
		codes = append(codes, h.data["code"].(int))
	}
	if want := slices.Repeat([]int{gateway.CloseGoingAway}, clients); !slices.Equal(codes, want) {
		t.Errorf("told of closes with %v, want %d with 1001", codes, clients)
	}
	answering.Wait()
}

// A handler that never returns must not keep an old configuration, or the process,
// from ending.
func TestStopDoesNotWaitForEverForASubscriber(t *testing.T) {
	s := startListening(t, echoSite)
	s.mustLoad("websocket {\n drain_timeout 100ms\n}\n"+listening("x"), echoSite)
	release := make(chan struct{})
	hook := func(caddy.Event) { <-release }
	heardHook.Store(&hook)
	c := s.dial("ws:/ws")
	s.waitForHeard("websocket_connected", 1)
	began := time.Now()
	s.mustLoad(listening("y"), echoSite)
	if took := time.Since(began); took > wait/2 {
		t.Errorf("the reload took %s", took)
	}
	heardHook.Store(nil)
	c.leave(1000, "") // the new configuration tells it
	if h := s.waitForHeard("websocket_closed", 1)[0]; h.text != "y 1000" {
		t.Errorf("%q was told, want the new configuration", h.text)
	}
	close(release)
}

// Interface guards
var (
	_ caddyevents.Handler   = (*listener)(nil)
	_ caddyfile.Unmarshaler = (*listener)(nil)
)
