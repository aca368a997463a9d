package websocket_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-websocket/caddy-websocket/caddymodule/websocket"
	"github.com/caddy-websocket/caddy-websocket/gateway"
)

const defaultGateway = gateway.DefaultName

// nginx starts a new worker for a new configuration and keeps the old one as
// long as it has sockets. Here the same socket goes on, and finds what changed.
func TestReloadKeepsSocketsAndAppliesLimits(t *testing.T) {
	site := func(size string) string {
		block := "{\n websocket /ws {\n max_message_size " + size + "\n logic echo\n}\n}\n"
		return "HTTP " + block + "HTTPS " + block
	}
	s := start(t, site("1KiB"))
	plain, secure := s.dial("ws:/ws"), s.dial("wss:/ws")
	long := strings.Repeat("x", 500)
	for _, c := range []*client{plain, secure} {
		c.ask(long, long)
	}
	s.mustLoad("", site("100"))
	for _, c := range []*client{plain, secure} {
		c.ask("still here", "still here")
		c.send(long)
		c.wantClose(gateway.CloseMessageTooBig)
	}
	s.mustLoad("", site("1KiB"))
	s.dial("wss:/ws").ask(long, long)
}

// Logic is part of the configuration: a fix takes effect for those who are
// connected, too.
func TestReloadChangesLogicUnderALiveSocket(t *testing.T) {
	site := func(logic string) string { return "HTTP {\n websocket /ws {\n logic " + logic + "\n}\n}\n" }
	s := start(t, site("echo"))
	c := s.dial("ws:/ws")
	c.ask("tom", "tom")
	s.mustLoad("", site(`reply "{ws.message} of old, now {ws.client_ip}"`))
	c.ask("tom", "tom of old, now 127.0.0.1")
	s.mustLoad("", site("probe new"))
	c.ask("text", "new")
	s.mustLoad("", "HTTP {\n websocket /ws\n}\n") // push only
	c.send("nobody hears this")
	s.waitFor("the message to be dropped", func() bool { return messagesIn(t) == 3+1 })
	s.mustLoad("", site("echo"))
	c.ask("again", "again")
}

// messagesIn returns how many messages the one client has sent.
func messagesIn(t *testing.T) int64 {
	t.Helper()
	g, err := gatewayOf(caddy.ActiveContext())
	if err != nil {
		t.Fatal(err)
	}
	list, err := g.Clients(t.Context(), gateway.Query{})
	if err != nil || len(list.Clients) != 1 {
		t.Fatalf("listed %v (%v), want one client", list, err)
	}
	return list.Clients[0].MessagesIn
}

// A typo in a configuration must not cost a single connection, whatever it is
// that finds it.
func TestFailedReloadChangesNothing(t *testing.T) {
	site := func(logic string) string {
		return "HTTP {\n websocket /ws {\n logic probe " + logic + "\n}\n}\n"
	}
	fail := func(f func() error) func() {
		neighbourStart.Store(&f)
		return func() { neighbourStart.Store(nil) }
	}
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for _, tt := range []struct {
		name, globals, sites, err string
		prepare                   func() (undo func())
	}{
		{name: "in the adapter", sites: site("new\nmax_client 1"), err: `unknown option "max_client"`},
		{name: "in the logic's options", sites: "HTTP {\n websocket /ws {\n logic reply {client_ip}\n}\n}\n", err: "has no value here"},
		{
			name: "in Provision of another module", err: "broken as it should be",
			sites: "HTTP {\n route {\n websocket /ws {\n logic probe new\n}\n broken\n}\n}\n",
		},
		{
			name: "at a port that is taken", err: "address already in use",
			sites: "HTTP, http://" + taken.Addr().String() + " {\n websocket /ws {\n logic probe new\n}\n}\n",
		},
		{
			name: "in Start of another app", globals: "neighbour", sites: site("new"), err: "neighbour cannot start",
			prepare: func() func() { return fail(func() error { return errors.New("neighbour cannot start") }) },
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := start(t, site("old"))
			c := s.dial("ws:/ws")
			if tt.prepare != nil {
				defer tt.prepare()()
			}
			for range 4 { // apps start in any order
				err := s.load(tt.globals, tt.sites)
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Fatalf("loading: %v, want an error with %q", err, tt.err)
				}
				c.ask("text", "old")
				other := s.dial("ws:/ws")
				other.ask("text", "old")
				other.leave(1000, "")
				if n := websocket.References(defaultGateway); n != 1 {
					t.Errorf("%d configurations hold the gateway, want 1", n)
				}
			}
			if callsAfterClean.Load() != 0 {
				t.Error("logic was called that had been cleaned up")
			}
			s.mustLoad("", site("next"))
			c.ask("text", "next")
		})
	}
}

// startNeighbour loads a configuration with a neighbour whose Start comes after
// http's: apps start in any order, so it may take several attempts. The new
// configuration also serves addr, where the old one does not.
func (s *server) startNeighbour(t *testing.T, addr, sites string, after func() error) <-chan error {
	t.Helper()
	errOrder := errors.New("http has not started")
	begun := make(chan struct{})
	f := func() error {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			return errOrder
		}
		_ = conn.Close()
		close(begun)
		return after()
	}
	neighbourStart.Store(&f)
	t.Cleanup(func() { neighbourStart.Store(nil) })
	result := make(chan error, 1)
	config, err := adapt(t, s.caddyfile("neighbour", sites))
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			err := caddy.Load(config, true)
			if err == nil || !strings.Contains(err.Error(), errOrder.Error()) {
				result <- err
				return
			}
		}
	}()
	select {
	case <-begun:
	case err := <-result:
		t.Fatalf("loading: %v", err)
	case <-time.After(wait):
		t.Fatal("http did not start before the neighbour")
	}
	return result
}

// New servers answer before Caddy knows that the whole configuration can start.
// What they took in must not be served by logic that may never be, nor by the
// old one's rules.
func TestHandshakeDuringAReloadWaitsForItsConfiguration(t *testing.T) {
	for _, fails := range []bool{false, true} {
		t.Run(fmt.Sprintf("fails=%t", fails), func(t *testing.T) {
			old := "HTTP {\n websocket /ws {\n logic probe old\n}\n}\n"
			s := start(t, old)
			c := s.dial("ws:/ws")
			addr := reserve(t, loopback4).String()
			release := make(chan struct{})
			result := s.startNeighbour(t, addr, "HTTP, http://"+addr+" {\n websocket /ws {\n logic probe new\n}\n}\n", func() error {
				<-release
				if fails {
					return errors.New("neighbour cannot start")
				}
				return nil
			})

			conn, err := net.Dial("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if _, err := io.WriteString(conn, "GET /ws HTTP/1.1\r\nHost: "+addr+"\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
				"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"); err != nil {
				t.Fatal(err)
			}
			// That nothing comes cannot be waited for; this long is enough to see it
			// if it does.
			_ = conn.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
			if n, err := conn.Read(make([]byte, 1)); n > 0 || err == nil {
				t.Error("the handshake is answered before its configuration is in force")
			}
			c.ask("text", "old")
			close(release)
			loadErr := <-result
			if (loadErr != nil) != fails {
				t.Fatalf("loading: %v", loadErr)
			}
			_ = conn.SetReadDeadline(time.Now().Add(wait))
			b := make([]byte, 4096)
			n, err := conn.Read(b)
			if err != nil {
				t.Fatal(err)
			}
			head := string(b[:n])
			if fails {
				if !strings.HasPrefix(head, "HTTP/1.1 503 ") || !strings.Contains(head, "\r\nRetry-After: 5\r\n") {
					t.Errorf("the handshake is answered with %q, want 503 and Retry-After", head)
				}
				c.ask("text", "old")
				return
			}
			if !strings.HasPrefix(head, "HTTP/1.1 101 ") || !strings.Contains(head, "\r\nX-Logic: new\r\n") {
				t.Errorf("the handshake is answered with %q, want 101 by the new logic", head)
			}
			c.ask("text", "new")
		})
	}
}

// A removed endpoint's clients are told to go, and to nobody else happens
// anything.
func TestRemovedEndpointClosesItsClients(t *testing.T) {
	s := start(t, "HTTP {\n websocket /a {\n logic echo\n}\n websocket /b {\n logic probe old\n}\n}\n")
	a, b := s.dial("ws:/a"), s.dial("ws:/b")
	a.ask("x", "x")
	gone := make(chan struct{})
	go func() { // the reload waits for its goodbye
		defer close(gone)
		a.wantClose(gateway.CloseGoingAway)
	}()
	s.mustLoad("", "HTTP {\n websocket /b {\n logic probe new\n}\n}\n")
	<-gone
	b.ask("text", "new")
	line := s.log.wait(t, "client gone", "endpoint", "/a", "code", 1001.0)
	if line["reason"] != "endpoint was removed" {
		t.Errorf("the reason is %v", line["reason"])
	}
}

// The same when the directive is gone altogether: then a gateway ends in a
// process that goes on. Logic that has been cleaned up must not be called for it.
func TestDirectiveThatIsGoneClosesItsClients(t *testing.T) {
	s := start(t, "HTTP {\n websocket /ws {\n logic probe old\n}\n}\n")
	c := s.dial("ws:/ws")
	c.ask("text", "old")
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		c.wantClose(gateway.CloseGoingAway)
	}()
	s.mustLoad("", "HTTP {\n respond plain\n}\n")
	<-gone
	s.waitFor("the gateway to end", func() bool { return ours() == "" })
	if n := websocket.References(defaultGateway); n != 0 {
		t.Errorf("%d configurations hold the gateway, want none", n)
	}
	if n := callsAfterClean.Load(); n != 0 {
		t.Errorf("logic was called %d times after its Cleanup", n)
	}
	s.mustLoad("", "HTTP {\n websocket /ws {\n logic probe again\n}\n}\n")
	s.dial("ws:/ws").ask("text", "again")
}

// Unloading a configuration is no exit of the process, and still an end.
func TestStoppedCaddyClosesClients(t *testing.T) {
	s := start(t, "HTTP {\n websocket /ws {\n logic echo\n}\n}\n")
	c := s.dial("ws:/ws")
	c.ask("x", "x")
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		c.wantClose(gateway.CloseGoingAway)
	}()
	if err := caddy.Stop(); err != nil {
		t.Fatal(err)
	}
	<-gone
}

// One line becomes a handler for each server. Its limits would otherwise hold
// for each of them.
func TestOneLineForTwoServersIsOneEndpoint(t *testing.T) {
	s := newServer(t)
	second := reserve(t, loopback4)
	s.mustLoad("", "HTTP, http://"+second.String()+" {\n websocket /ws {\n max_clients 1\n logic echo\n}\n}\n")
	c := s.dialBy(connection{network: "tcp", address: second.String()}, "ws:/ws")
	c.ask("x", "x")
	s.refused(http.StatusServiceUnavailable, "ws:/ws")
	c.leave(1000, "")
	s.waitFor("a free place", func() bool {
		conn, _, err := s.tryDial(connection{}, "ws:/ws", nil)
		if err == nil {
			_ = conn.Close()
		}
		return err == nil
	})
}

// JSON has no lines: the server says where to look.
func TestDifferentJSONUnderOneNameIsRefused(t *testing.T) {
	s := start(t, "HTTP {\n websocket /ws {\n logic probe old\n}\n}\n")
	c := s.dial("ws:/ws")
	config := func(second string) []byte {
		return fmt.Appendf(nil, `{
			"admin": {"listen": "unix/%s", "config": {"persist": false}},
			"apps": {"http": {"servers": {
				"first": {"listen": [%q], "automatic_https": {"disable": true}, "routes": [{"handle": [{"handler": "websocket", "name": "/ws", "max_clients": 1}]}]},
				"second": {"listen": [%q], "automatic_https": {"disable": true}, "routes": [{"handle": [{"handler": "websocket", %s}]}]}
			}}}}`, s.admin, s.http, s.https, second)
	}
	err := s.loadJSON(config(`"name": "/ws", "max_clients": 2`))
	if err == nil {
		t.Fatal("two endpoints under one name are accepted")
	}
	for _, want := range []string{`endpoint "/ws"`, `server "first"`, `server "second"`, s.http.String(), s.https.String(), "option name"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the error does not say %q: %v", want, err)
		}
	}
	c.ask("text", "old")
	// The same in another order, or with a default written out, is the same.
	for _, same := range []string{`"max_clients": 1, "name": "/ws"`, `"name": "/ws", "max_clients": 1, "gateway": "default"`} {
		if err := caddy.Load(config(same), true); err != nil {
			t.Errorf("with %s: %v", same, err)
		}
	}
}

// Whatever else an app does needs the gateway, too: a neighbour gets it, and what
// it starts there ends with its configuration.
func TestAnotherModuleUsesTheGateway(t *testing.T) {
	var first, second atomic.Int64
	var g atomic.Pointer[gateway.Gateway]
	provision := func(count *atomic.Int64) func() {
		f := func(ctx caddy.Context) error {
			got, err := gatewayOf(ctx)
			if err == nil {
				g.Store(got)
				every(got, count)
			}
			return err
		}
		neighbourProvision.Store(&f)
		return func() { neighbourProvision.Store(nil) }
	}
	defer provision(&first)()
	site := "HTTP {\n websocket /ws {\n user tom\n}\n}\n"
	s := startWith(t, "neighbour", site)
	c := s.dial("ws:/ws")
	if n, err := g.Load().Send(gateway.Users("tom"), gateway.Text("hello")); n != 1 || err != nil {
		t.Errorf("sent to %d clients, %v", n, err)
	}
	c.want("hello")
	s.waitFor("the task to run", func() bool { return first.Load() > 0 })

	provision(&second)
	s.mustLoad("neighbour", site)
	ran := first.Load()
	s.waitFor("the next task to run", func() bool { return second.Load() > 3 })
	if n := first.Load(); n != ran {
		t.Errorf("the task of the old configuration ran %d times after the reload", n-ran)
	}
	if n, err := g.Load().Send(gateway.Users("tom"), gateway.Text("again")); n != 1 || err != nil {
		t.Errorf("sent to %d clients, %v", n, err)
	}
	c.want("again")

	// It may be the only one who wants a gateway.
	third := new(atomic.Int64)
	provision(third)
	_ = c.Close()
	s.mustLoad("neighbour", "HTTP {\n respond x\n}\n")
	s.waitFor("the task without a directive to run", func() bool { return third.Load() > 0 })
}

// What asks for a gateway at any other time must not hold up a reload, nor keep a
// gateway for ever.
func TestGatewayIsNotGivenAfterTheConfigurationsEnd(t *testing.T) {
	var app atomic.Pointer[websocket.App]
	late := make(chan error, 1)
	f := func(ctx caddy.Context) error {
		a, err := ctx.App("websocket")
		if err != nil {
			return err
		}
		old := a.(*websocket.App)
		g, err := old.Gateway("")
		if err != nil {
			return err
		}
		if app.CompareAndSwap(nil, old) {
			g.Go("asks at the end", func(ctx context.Context) {
				<-ctx.Done()
				_, err := old.Gateway("")
				late <- err
			})
		}
		return nil
	}
	neighbourProvision.Store(&f)
	defer neighbourProvision.Store(nil)
	s := startWith(t, "neighbour", "HTTP {\n websocket /ws\n}\n")
	s.mustLoad("neighbour", "HTTP {\n websocket /ws\n}\n")
	if err := <-late; err != nil {
		t.Log(err) // whatever the answer is
	}
	if found := s.log.find("tasks of the logic still run and are not waited for"); len(found) > 0 {
		t.Error("asking for a gateway blocked the end of the configuration")
	}
	if _, err := app.Load().Gateway("late"); err == nil || websocket.References("late") != 0 {
		t.Errorf("a configuration that has ended gave a gateway (%v), held by %d", err, websocket.References("late"))
	}
	if n := websocket.References(defaultGateway); n != 1 {
		t.Errorf("%d configurations hold the gateway, want 1", n)
	}
}

// Logic may look for another gateway when it starts: nothing may be locked then that
// this needs, or a reload would hang.
func TestLogicMayAskForAGatewayWhenItStarts(t *testing.T) {
	var app atomic.Pointer[websocket.App]
	provision := func(ctx caddy.Context) error {
		a, err := ctx.App("websocket")
		if err != nil {
			return err
		}
		app.Store(a.(*websocket.App))
		return nil
	}
	start := func() {
		answered := make(chan error, 1)
		go func() {
			_, err := app.Load().Gateway("")
			answered <- err
		}()
		select {
		case err := <-answered:
			if err != nil {
				t.Errorf("asking for a gateway in OnStart: %v", err)
			}
		case <-time.After(wait):
			t.Error("asking for a gateway in OnStart blocks")
		}
	}
	neighbourProvision.Store(&provision)
	defer neighbourProvision.Store(nil)
	probeStart.Store(&start)
	defer probeStart.Store(nil)
	startWith(t, "neighbour", "HTTP {\n websocket /ws {\n logic probe x\n}\n}\n").dial("ws:/ws").ask("text", "x")
}

// Servers are reloaded for years.
func TestManyReloadsLeaveNothingBehind(t *testing.T) {
	site := func(i int) string {
		return fmt.Sprintf("HTTP {\n websocket /ws {\n logic probe %d\n}\n}\nHTTPS {\n websocket /ws {\n logic probe %[1]d\n}\n}\n", i)
	}
	s := start(t, site(0))
	plain, secure := s.dial("ws:/ws"), s.dial("wss:/ws")
	plain.ask("text", "0")
	secure.ask("text", "0")
	before := countOurs()
	for i := range 20 {
		s.mustLoad("", site(i))
		plain.ask("text", fmt.Sprint(i))
		secure.ask("text", fmt.Sprint(i))
	}
	if n := websocket.References(defaultGateway); n != 1 {
		t.Errorf("%d configurations hold the gateway, want 1", n)
	}
	s.waitFor("as many goroutines of ours as before", func() bool { return countOurs() <= before })
	if n := callsAfterClean.Load(); n != 0 {
		t.Errorf("logic was called %d times after its Cleanup", n)
	}
}

// A client whose endpoint has moved to another gateway should come back at once,
// whether its old gateway lives on or ends.
func TestEndpointThatMovesToAnotherGatewayRestartsItsClients(t *testing.T) {
	site := func(of string) string {
		return "HTTP {\n websocket /moves {\n gateway " + of + "\n logic echo\n}\n websocket /stays {\n gateway one\n logic echo\n}\n websocket /other {\n gateway three\n logic echo\n}\n}\n"
	}
	s := start(t, site("one"))
	stays := s.dial("ws:/stays")
	move := func(from, to string) {
		t.Helper()
		c := s.dial("ws:/moves")
		c.ask("in "+from, "in "+from)
		gone := make(chan struct{})
		go func() {
			defer close(gone)
			c.wantClose(gateway.CloseServiceRestart)
		}()
		s.mustLoad("", site(to))
		<-gone
		stays.ask("x", "x")
	}
	move("one", "two")   // one lives on
	move("two", "three") // two ends
	s.waitFor("the gateway to end", func() bool { return websocket.References("two") == 0 })
	s.dial("ws:/moves").ask("here", "here")
}
