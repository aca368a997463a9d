package websocket_test

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	gorilla "github.com/gorilla/websocket"

	"github.com/caddy-websocket/caddy-websocket/caddymodule/websocket"
	"github.com/caddy-websocket/caddy-websocket/gateway"
)

func init() {
	caddy.RegisterModule(&numbered{})
	caddy.RegisterModule(&heir{})
}

// numbered is logic of configuration number N, which takes its time: `logic
// numbered <N>`. It answers with the message and N.
type numbered struct {
	N int `json:"n"`

	cleaned atomic.Bool
}

// What numbered has seen since the test began.
var numberedOpens, numberedCloses atomic.Int64

func (*numbered) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "websocket.logic.numbered", New: func() caddy.Module { return new(numbered) }}
}

func (n *numbered) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next()
	var text string
	d.AllArgs(&text)
	_, err := fmt.Sscan(text, &n.N)
	return err
}

func (n *numbered) Cleanup() error {
	n.cleaned.Store(true)
	return nil
}

// work is every callback: its end must not come after Cleanup either.
func (n *numbered) work() {
	const long = 3 * time.Millisecond
	for range 2 {
		if n.cleaned.Load() {
			callsAfterClean.Add(1)
		}
		time.Sleep(long / 2)
	}
	if n.cleaned.Load() {
		callsAfterClean.Add(1)
	}
}

func (n *numbered) OnConnect(c *gateway.Client, _ *http.Request) error {
	n.work()
	c.Header().Set("X-Logic", fmt.Sprint(n.N))
	numberedOpens.Add(1)
	return nil
}

func (n *numbered) OnMessage(c *gateway.Client, m gateway.Message) error {
	n.work()
	return c.Send(gateway.Text(fmt.Sprint(m, " ", n.N)))
}

func (n *numbered) OnClose(*gateway.Client, gateway.CloseReason) {
	n.work()
	numberedCloses.Add(1)
}

// storm is a series of reloads, numbered, some of which fail.
type storm struct {
	*server
	backend string
	taken   string

	begun, done atomic.Int64 // the number of the last reload that began; that succeeded
	quit        chan struct{}
	running     sync.WaitGroup
	staying     []*client
}

func newStorm(t *testing.T) *storm {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = taken.Close() })
	w := &storm{server: newServer(t), backend: newBackend(t, false).addr(), taken: taken.Addr().String(), quit: make(chan struct{})}
	numberedOpens.Store(0)
	numberedCloses.Store(0)
	for range 2 { // from the second on the harness expects connections to be lost
		w.mustLoad("", w.site(0, ""))
	}
	return w
}

func (*storm) broken(n int) bool { return n%7 == 6 }

// site is configuration n on ws, wss and through a proxy.
func (w *storm) site(n int, more string) string {
	block := fmt.Sprintf(" {\n websocket /ws {\n logic numbered %d\n}\n websocket /proxied {\n name %%s\n reverse_proxy %s\n}\n%s}\n", n, w.backend, more)
	return "HTTP" + fmt.Sprintf(block, "plain") + "HTTPS" + fmt.Sprintf(block, "secure")
}

// reload loads configuration n. It does not touch the server's own fields, which
// dialling goroutines read.
func (w *storm) reload(n int) {
	w.t.Helper()
	globals, sites := "", w.site(n, "")
	if w.broken(n) {
		switch n / 7 % 4 {
		case 0: // in the adapter
			sites = w.site(n, "websocket /more {\n max_client 1\n}\n")
		case 1: // in Provision
			sites = w.site(n, "route /more {\n broken\n}\n")
		case 2: // in Start of http
			sites += "http://" + w.taken + " {\n websocket /more\n}\n"
		case 3: // in Start of another app
			globals = "neighbour"
			f := func() error { return errors.New("neighbour cannot start") }
			neighbourStart.Store(&f)
			defer neighbourStart.Store(nil)
		}
	}
	config, err := adapt(w.t, w.caddyfile(globals, sites))
	w.begun.Store(int64(n))
	if err == nil {
		err = caddy.Load(config, true)
	}
	if (err != nil) != w.broken(n) {
		w.t.Fatalf("reload %d: %v", n, err)
	}
	if err == nil {
		w.done.Store(int64(n))
	}
}

// during calls f in a goroutine of its own, until the storm is over or f gives up.
func (w *storm) during(f func() bool) {
	w.running.Go(func() {
		for f() {
			select {
			case <-w.quit:
				return
			default:
			}
		}
	})
}

// since returns a judge of answers that come from now on: did a configuration give
// them that was in force in between?
func (w *storm) since() (judge func(what, text string)) {
	first := w.done.Load()
	return func(what, text string) {
		var n int
		_, err := fmt.Sscan(text, &n)
		if last := w.begun.Load(); err != nil || w.broken(n) || int64(n) < first || int64(n) > last {
			w.t.Errorf("%s was answered by configuration %q: in force were %d to %d, without the broken ones", what, text, first, last)
		}
	}
}

// stays connects and sends numbered messages, whose answers must come, in order,
// over the same connection.
func (w *storm) stays(url string) (sent *atomic.Int64) {
	proxied := strings.HasSuffix(url, "proxied")
	c := w.dial(url)
	if proxied {
		fields(w.t.(*testing.T), c)
	}
	w.staying = append(w.staying, c)
	sent = new(atomic.Int64)
	w.during(func() bool {
		question, judge := fmt.Sprintf("message %d", sent.Add(1)), w.since()
		err := c.WriteMessage(gorilla.TextMessage, []byte(question))
		var data []byte
		if err == nil {
			_ = c.SetReadDeadline(time.Now().Add(wait))
			_, data, err = c.ReadMessage()
		}
		by, found := strings.CutPrefix(string(data), question)
		if err != nil || !found {
			w.t.Errorf("%s, %s: %v, answer %q", url, question, err, data)
			return false
		}
		if !proxied {
			judge(url+", "+question, by)
		}
		return true
	})
	return sent
}

// dialInStorm dials while configurations fail, too: a handshake that came to such a
// one is refused with 503, and there is no client then. Whatever else is wrong fails
// the test.
func (s *server) dialInStorm(url string) (c *client, ok bool) {
	conn, resp, err := s.tryDial(connection{}, url, nil)
	switch {
	case err == nil:
		return &client{conn, s.t, resp}, true
	case resp != nil && resp.StatusCode == http.StatusServiceUnavailable:
		return nil, true
	}
	s.t.Errorf("connecting to %s: %v %s, want 101 or 503", url, err, body(resp))
	return nil, false
}

// comesAndGoes connects, asks and disconnects, politely or not.
func (w *storm) comesAndGoes(url string) (connected *atomic.Int64) {
	proxied := strings.HasSuffix(url, "proxied")
	connected = new(atomic.Int64)
	w.during(func() bool {
		judge := w.since()
		conn, ok := w.dialInStorm(url)
		if conn == nil {
			return ok
		}
		defer conn.Close()
		if !proxied {
			judge("a handshake at "+url, conn.resp.Header.Get("X-Logic"))
		}
		if n := connected.Add(1); n%3 == 0 {
			return true
		}
		_ = conn.SetReadDeadline(time.Now().Add(wait))
		if err := conn.WriteMessage(gorilla.TextMessage, []byte("hello")); err != nil {
			w.t.Errorf("sending at %s: %v", url, err)
			return false
		}
		if _, _, err := conn.ReadMessage(); err != nil {
			w.t.Errorf("receiving at %s: %v", url, err)
			return false
		}
		_ = conn.WriteControl(gorilla.CloseMessage, gorilla.FormatCloseMessage(1000, ""), time.Now().Add(wait))
		return true
	})
	return connected
}

// end ends the storm and looks at what is left of it.
func (w *storm) end(goroutines int) {
	w.t.Helper()
	close(w.quit)
	w.running.Wait()
	if n := websocket.References(defaultGateway); n != 1 {
		w.t.Errorf("%d configurations hold the gateway, want 1", n)
	}
	if n := callsAfterClean.Load(); n != 0 {
		w.t.Errorf("callbacks ran %d times after Cleanup", n)
	}
	w.waitFor("as many goroutines of ours as before", func() bool { return countOurs() <= goroutines })
	for _, c := range w.staying {
		c.leave(1000, "")
	}
}

// A deployment that reloads too often, and from time to time wrongly, must not be
// noticed by anybody who is connected, nor by those who come and go.
func TestNobodyIsLostInAStormOfReloads(t *testing.T) {
	const (
		reloads = 100
		least   = 28 // each kind of failure once
		bound   = 6 * time.Second
	)
	w := newStorm(t)
	urls := []string{"ws:/ws", "wss:/ws", "ws:/proxied", "wss:/proxied"}
	var counts []*atomic.Int64
	for _, url := range urls {
		counts = append(counts, w.stays(url))
	}
	goroutines := countOurs()
	for _, url := range urls {
		counts = append(counts, w.comesAndGoes(url))
	}
	for n, begun := 1, time.Now(); n <= least || n <= reloads && time.Since(begun) < bound && !testing.Short(); n++ {
		w.reload(n)
	}
	t.Logf("%d reloads", w.begun.Load())
	w.end(goroutines)
	for i, url := range urls {
		asked, came := counts[i].Load(), counts[len(urls)+i].Load()
		t.Logf("%s: %d messages of who stayed, %d came and went", url, asked, came)
		if asked < 3 || came < 3 {
			t.Errorf("%s was hardly used: nothing was tested", url)
		}
	}
	if err := caddy.Stop(); err != nil {
		t.Error(err)
	}
	w.waitFor("an OnClose for each OnConnect", func() bool { return numberedCloses.Load() == numberedOpens.Load() })
	if n := callsAfterClean.Load(); n != 0 {
		t.Errorf("callbacks ran %d times after Cleanup, when Caddy stopped", n)
	}
}

// Two people deploy at the same time.
func TestConcurrentReloadsEndInOneConfiguration(t *testing.T) {
	w := newStorm(t)
	sent := []*atomic.Int64{w.stays("ws:/ws"), w.stays("wss:/ws"), w.stays("wss:/proxied")}
	goroutines := countOurs()
	const people, each = 4, 5
	w.begun.Store(people * each * 7)
	var loading sync.WaitGroup
	for p := range people {
		var configs [][]byte
		for i := range each {
			config, err := adapt(w.t, w.caddyfile("", w.site((p*each+i)*7, "")))
			if err != nil {
				t.Fatal(err)
			}
			configs = append(configs, config)
		}
		loading.Go(func() {
			for _, config := range configs {
				if err := caddy.Load(config, true); err != nil {
					t.Errorf("loading: %v", err)
				}
			}
		})
	}
	loading.Wait()
	plain, secure := w.dial("ws:/ws"), w.dial("wss:/ws")
	last := plain.resp.Header.Get("X-Logic")
	plain.ask("x", "x "+last)
	secure.ask("x", "x "+last)
	for _, c := range []*client{plain, secure} {
		c.leave(1000, "")
	}
	for _, n := range sent {
		if n.Load() == 0 {
			t.Error("a client sent nothing")
		}
	}
	w.end(goroutines)
}

// `caddy reload --force` is what people try first.
func TestReloadOfTheSameConfigurationIsNewLogicForOldClients(t *testing.T) {
	s := newServer(t)
	heirs.reset()
	const site = "HTTP {\n websocket /ws {\n logic heir same\n}\n}\nHTTPS {\n websocket /wss {\n logic probe same\n}\n}\n"
	s.mustLoad("", site)
	plain, secure := s.dial("ws:/ws"), s.dial("wss:/wss")
	for i := range 5 {
		plain.ask("count", fmt.Sprint("same ", i+1))
		secure.ask("text", "same")
		s.mustLoad("", site)
	}
	if got := heirs.events(); len(got) != 5 {
		t.Errorf("inherited %q, want 5 times", got)
	}
	if n := websocket.References(defaultGateway); n != 1 {
		t.Errorf("%d configurations hold the gateway, want 1", n)
	}
	if n := callsAfterClean.Load(); n != 0 {
		t.Errorf("logic was called %d times after its Cleanup", n)
	}
}
