package websocket_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	gorilla "github.com/gorilla/websocket"

	"github.com/caddy-websocket/caddy-websocket/caddymodule/websocket"
)

func init() { caddy.RegisterModule(&lateLoader{}) }

// lateLoader is what Caddy asks for the next configuration when the one that names
// it has started: if that fails, the latter fails, although all its apps run.
type lateLoader struct{}

// lateHook is called then.
var lateHook atomic.Pointer[func()]

func (*lateLoader) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "caddy.config_loaders.late_test", New: func() caddy.Module { return new(lateLoader) }}
}

func (*lateLoader) LoadConfig(caddy.Context) ([]byte, error) {
	if hook := lateHook.Load(); hook != nil {
		(*hook)()
	}
	return nil, errors.New("too late")
}

// failLate loads a configuration that fails after Caddy has said that it started.
// Caddy then cleans it up without a Stop. hook, if not nil, is called while
// everything seems to be well.
func (s *server) failLate(sites string, hook func()) {
	s.t.Helper()
	text, err := adapt(s.t, s.caddyfile("", sites))
	if err != nil {
		s.t.Fatal(err)
	}
	var config map[string]any
	if err := json.Unmarshal(text, &config); err != nil {
		s.t.Fatal(err)
	}
	config["admin"].(map[string]any)["config"].(map[string]any)["load"] = map[string]any{"module": "late_test"}
	if text, err = json.Marshal(config); err != nil {
		s.t.Fatal(err)
	}
	if hook != nil {
		f := func() { // in a goroutine of its own: what gives up there must not end Caddy's
			done := make(chan struct{})
			go func() {
				defer close(done)
				hook()
			}()
			<-done
		}
		lateHook.Store(&f)
		defer lateHook.Store(nil)
	}
	s.reloaded = true
	if err := caddy.Load(text, true); err == nil || !strings.Contains(err.Error(), "too late") {
		s.t.Fatalf("loading: %v, want that the loader fails", err)
	}
}

// dialMany opens so many connections that some would reach a server that was left
// behind, and shares the port with the right one. One that is about to close may still
// refuse a few.
func (s *server) dialMany(url string, look func(c *client)) {
	s.t.Helper()
	const many, few = 20, 3
	refused := 0
	for range many {
		c, ok := s.dialInStorm(url)
		switch {
		case !ok:
			return
		case c == nil:
			refused++
			continue
		}
		look(c)
		_ = c.Close()
	}
	if refused > few {
		s.t.Errorf("%d of %d handshakes at %s were refused with 503: a server was left behind", refused, many, url)
	}
}

// Nobody looks at the last step of a reload, and it may fail like the others.
func TestReloadThatFailsAfterItsStartChangesNothing(t *testing.T) {
	site := func(text string) string {
		block := " {\n websocket /ws {\n logic probe " + text + "\n}\n}\n"
		return "HTTP" + block + "HTTPS" + block
	}
	s := start(t, site("old"))
	plain, secure := s.dial("ws:/ws"), s.dial("wss:/ws")
	for range 3 {
		s.failLate(site("new"), nil)
		plain.ask("text", "old")
		secure.ask("text", "old")
		for _, url := range []string{"ws:/ws", "wss:/ws"} {
			s.dialMany(url, func(c *client) {
				if by := c.resp.Header.Get("X-Logic"); by != "old" {
					t.Errorf("a handshake at %s is answered by %q, want old", url, by)
				}
				c.ask("text", "old")
			})
		}
	}
	if n := websocket.References(defaultGateway); n != 1 {
		t.Errorf("%d configurations hold the gateway, want 1", n)
	}
	s.mustLoad("", site("next"))
	plain.ask("text", "next")
	secure.ask("text", "next")
	s.dialMany("ws:/ws", func(c *client) { c.ask("text", "next") })
	s.dialMany("wss:/ws", func(c *client) { c.ask("text", "next") })
	if n := callsAfterClean.Load(); n != 0 {
		t.Errorf("logic was called %d times after its Cleanup", n)
	}
}

// A configuration that is not there to stay must not send anybody away.
func TestReloadThatFailsAfterItsStartClosesNobody(t *testing.T) {
	b := newBackend(t, false)
	const logic = "HTTP {\n websocket /ws {\n logic probe old\n}\n}\n"
	forward := "HTTP {\n websocket /ws {\n reverse_proxy " + b.addr() + "\n}\n}\n"
	for _, tt := range []struct{ name, old, next string }{
		{"that removes the endpoint", logic, "HTTP {\n websocket /other {\n logic probe new\n}\n}\n"},
		{"that removes the directive", logic, "HTTP {\n respond x\n}\n"},
		{"that replaces logic by a backend", logic, forward},
		{"that replaces a backend by logic", forward, logic},
		{"that removes a proxied endpoint", forward, "HTTP {\n websocket /other\n}\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := start(t, tt.old)
			c := s.dial("ws:/ws")
			if tt.old == forward {
				fields(t, c)
			}
			s.failLate(tt.next, func() { c.ask("while it seems well", "while it seems well") })
			c.ask("and after", "and after")
			c.leave(1000, "")
		})
	}
}

// Logic that hands its state over to a configuration which then fails would be left
// without it.
func TestReloadThatFailsAfterItsStartInheritsNothing(t *testing.T) {
	s := newServer(t)
	heirs.reset()
	site := func(text string) string { return "HTTP {\n websocket /ws {\n logic heir " + text + "\n}\n}\n" }
	s.mustLoad("", site("a"))
	c := s.dial("ws:/ws")
	c.ask("x", "a 1")
	s.failLate(site("b"), func() { c.ask("x", "a 2") })
	c.ask("x", "a 3")
	heirs.want(t)
	s.mustLoad("", site("c"))
	c.ask("x", "c 4")
	heirs.want(t, "a to c")
}

// Caddy gives such a configuration no time to end its callbacks: there must be none.
func TestReloadThatFailsAfterItsStartIsNeverCalledAfterCleanup(t *testing.T) {
	site := func(text string) string { return "HTTP {\n websocket /ws {\n logic probe " + text + "\n}\n}\n" }
	s := start(t, site("old"))
	quit := make(chan struct{})
	var talking sync.WaitGroup
	for range 4 {
		c := s.dial("ws:/ws")
		talking.Go(func() {
			for {
				select {
				case <-quit:
					return
				default:
				}
				_ = c.SetReadDeadline(time.Now().Add(wait))
				if err := c.WriteMessage(gorilla.TextMessage, []byte("text")); err != nil {
					t.Errorf("sending: %v", err)
					return
				}
				if _, data, err := c.ReadMessage(); err != nil || string(data) != "old" {
					t.Errorf("answered %q, %v, want old", data, err)
					return
				}
			}
		})
	}
	for range 10 {
		s.failLate(site("new"), nil)
	}
	close(quit)
	talking.Wait()
	if n := callsAfterClean.Load(); n != 0 {
		t.Errorf("logic was called %d times after its Cleanup", n)
	}
}

// The configuration that fails has servers and a reverse_proxy of its own: what they
// ask must not be a backend that nobody put into service.
func TestReloadThatFailsAfterItsStartDoesNotProxy(t *testing.T) {
	old, failed := newBackend(t, false), newBackend(t, false)
	site := func(b *backend) string {
		return "HTTP {\n websocket /ws {\n reverse_proxy " + b.addr() + "\n}\n}\nHTTPS {\n websocket /wss {\n reverse_proxy " + b.addr() + "\n}\n}\n"
	}
	s := start(t, site(old))
	plain, secure := s.dial("ws:/ws"), s.dial("wss:/wss")
	fields(t, plain)
	fields(t, secure)
	s.failLate(site(failed), nil)
	plain.ask("tom", "tom")
	secure.ask("tom", "tom")
	for _, url := range []string{"ws:/ws", "wss:/wss"} {
		s.dialMany(url, func(c *client) {
			fields(t, c)
			c.ask("tom", "tom")
		})
	}
	if n := failed.asked.Load(); n != 0 {
		t.Errorf("the backend of the configuration that failed was asked %d times", n)
	}
	next := newBackend(t, false)
	s.mustLoad("", site(next))
	plain.ask("tom", "tom")
	secure.ask("tom", "tom")
	old.asked.Store(0)
	s.dialMany("ws:/ws", func(c *client) { fields(t, c) })
	if n, other := next.asked.Load(), old.asked.Load()+failed.asked.Load(); n != 20 || other != 0 {
		t.Errorf("after the next reload its backend was asked %d times and others %d times, want 20 and 0", n, other)
	}
}

// The new servers take in handshakes while all seems to be well. They wait, as in any
// other reload, and get an answer.
func TestHandshakeBeforeALateFailureIsAnswered(t *testing.T) {
	s := start(t, "HTTP {\n websocket /ws {\n logic probe old\n}\n}\n")
	second := reserve(t, loopback4).String()
	var conn net.Conn
	s.failLate("http://"+second+", HTTP {\n websocket /ws {\n logic probe new\n}\n}\n", func() {
		var err error
		if conn, err = net.Dial("tcp", second); err != nil {
			t.Error(err)
			return
		}
		if _, err := io.WriteString(conn, "GET /ws HTTP/1.1\r\nHost: "+second+"\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
			"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"); err != nil {
			t.Error(err)
		}
		// That nothing comes cannot be waited for; this long is enough to see it
		// if it does.
		_ = conn.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
		if n, err := conn.Read(make([]byte, 1)); n > 0 || err == nil {
			t.Error("the handshake is answered before its configuration is in force")
		}
	})
	if conn == nil {
		return
	}
	defer conn.Close()
	_ = conn.SetReadDeadline(time.Now().Add(wait))
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatalf("the handshake is not answered: %v", err)
	}
	if resp.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("the handshake is answered with %s, want 503", resp.Status)
	}
}

// The first configuration has none to go back to.
func TestFirstConfigurationThatFailsAfterItsStartIsGone(t *testing.T) {
	s := newServer(t)
	var c *client
	s.failLate("HTTP {\n websocket /ws {\n logic probe first\n}\n}\n", func() {
		c = s.dial("ws:/ws")
		c.ask("text", "first")
	})
	c.wantClose(1001)
	if n := websocket.References(defaultGateway); n != 0 {
		t.Errorf("%d configurations hold the gateway, want none", n)
	}
	s.waitFor("the gateway to end", func() bool { return ours() == "" })
	s.mustLoad("", "HTTP {\n websocket /ws {\n logic probe second\n}\n}\n")
	s.dial("ws:/ws").ask("text", "second")
}
