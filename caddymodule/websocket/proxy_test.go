package websocket_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	gorilla "github.com/gorilla/websocket"

	"github.com/caddy-websocket/caddy-websocket/gateway/gatewaytest"
)

// backend is a WebSocket server as people have it: it first reports the header
// fields that it got, and then echoes.
type backend struct {
	*httptest.Server
	asked atomic.Int64 // handshakes
	close chan struct{}
}

func newBackend(t *testing.T, secure bool) *backend {
	b := &backend{close: make(chan struct{})}
	upgrader := gorilla.Upgrader{
		CheckOrigin: func(*http.Request) bool { return true }, EnableCompression: true, Subprotocols: []string{"chat"},
	}
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b.asked.Add(1)
		if r.URL.Query().Has("refuse") {
			w.Header().Set("X-Why", "closed")
			http.Error(w, "the backend says no", http.StatusTeapot)
			return
		}
		conn, err := upgrader.Upgrade(w, r, http.Header{"X-Backend": {"yes"}})
		if err != nil {
			return
		}
		defer conn.Close()
		fields := r.Header.Clone()
		fields.Set("Host", r.Host)
		_ = conn.WriteJSON(fields)
		for {
			kind, data, err := conn.ReadMessage()
			if err != nil {
				return
			}
			if string(data) == "die" {
				return
			}
			_ = conn.WriteMessage(kind, data)
		}
	})
	if secure {
		b.Server = httptest.NewTLSServer(handler)
	} else {
		b.Server = httptest.NewServer(handler)
	}
	t.Cleanup(b.Close)
	return b
}

func (b *backend) addr() string { return b.Listener.Addr().String() }

// fields reads the backend's report.
func fields(t *testing.T, c *client) http.Header {
	t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(gatewaytest.Wait))
	var h http.Header
	if err := c.ReadJSON(&h); err != nil {
		t.Fatal(err)
	}
	return h
}

// What nginx did with proxy_set_header, and what a client sent under the same
// names must not get through.
func TestProxiedHandshakeTellsTheBackendTheRealIP(t *testing.T) {
	b := newBackend(t, false)
	s := start(t, "HTTP {\n websocket /ws {\n reverse_proxy "+b.addr()+"\n}\n}\n")
	c := s.dial("ws:/ws", "X-Real-IP: 6.6.6.6", "X-Forwarded-For: 6.6.6.6", "X-Forwarded-Proto: gopher", "Sec-WebSocket-Protocol: chat")
	got := fields(t, c)
	for name, want := range map[string]string{"X-Real-Ip": "127.0.0.1", "X-Forwarded-For": "127.0.0.1", "X-Forwarded-Proto": "http"} {
		if values := strings.Join(got.Values(name), ", "); values != want {
			t.Errorf("the backend got %s %q, want %q", name, values, want)
		}
	}
	if c.Subprotocol() != "chat" {
		t.Errorf("subprotocol %q, want the backend's", c.Subprotocol())
	}
	c.ask("tom", "tom")
	s.log.wait(t, "client connected", "client_ip", "127.0.0.1", "endpoint", "/ws", "subprotocol", "chat")
	c.leave(4001, "bye")
	s.log.wait(t, "client gone", "code", 4001.0, "reason", "bye", "by_peer", true, "messages_in", 1.0, "messages_out", 2.0)
}

func TestProxiedClientBehindATrustedProxyHasItsOwnAddress(t *testing.T) {
	b := newBackend(t, false)
	s := startWith(t, "servers {\n trusted_proxies static private_ranges\n trusted_proxies_strict\n}", "HTTP {\n websocket /ws {\n reverse_proxy "+b.addr()+"\n}\n}\n")
	got := fields(t, s.dial("ws:/ws", "X-Forwarded-For: 6.6.6.6, 203.0.113.9", "X-Real-IP: 6.6.6.6"))
	if ip := got.Get("X-Real-Ip"); ip != "203.0.113.9" {
		t.Errorf("the backend got X-Real-IP %q, want 203.0.113.9", ip)
	}
}

// Every subdirective of reverse_proxy works up to the 101.
func TestProxyTakesSubdirectivesOfReverseProxy(t *testing.T) {
	b, second := newBackend(t, true), newBackend(t, true)
	s := start(t, `HTTPS {
		websocket /ws {
			reverse_proxy https://`+b.addr()+` https://`+second.addr()+` {
				lb_policy round_robin
				header_up X-Extra {query.extra}
				header_down X-Down yes
				transport http {
					tls_insecure_skip_verify
				}
			}
		}
	}`)
	for range 2 {
		c := s.dial("wss:/ws?extra=read")
		if got := fields(t, c).Get("X-Extra"); got != "read" {
			t.Errorf("header_up gave %q", got)
		}
		c.ask("tom", "tom")
	}
	if b.asked.Load() != 1 || second.asked.Load() != 1 {
		t.Errorf("the backends got %d and %d handshakes, want 1 each", b.asked.Load(), second.asked.Load())
	}
}

func TestRefusalOfTheBackendReachesTheClient(t *testing.T) {
	b := newBackend(t, false)
	s := start(t, "HTTP {\n websocket /ws {\n reverse_proxy "+b.addr()+"\n max_clients 1\n}\n}\n")
	for range 2 {
		resp, text := s.refused(http.StatusTeapot, "ws:/ws?refuse")
		if resp.Header.Get("X-Why") != "closed" || !strings.Contains(text, "the backend says no") {
			t.Errorf("refused with %v %q, want the backend's own words", resp.Header, text)
		}
	}
	c := s.dial("ws:/ws")
	fields(t, c)
	s.refused(http.StatusServiceUnavailable, "ws:/ws") // max_clients
	s.refused(http.StatusForbidden, "ws:/ws", "Origin: https://evil.example")
	c.ask("tom", "tom")
}

func TestUnreachableBackendIs502ThroughHandleErrors(t *testing.T) {
	s := start(t, "HTTP {\n websocket /ws {\n reverse_proxy 127.0.0.1:1\n}\n handle_errors {\n respond \"sorry: {err.status_code}\" 502\n}\n}\n")
	if _, text := s.refused(http.StatusBadGateway, "ws:/ws"); text != "sorry: 502" {
		t.Errorf("refused with %q", text)
	}
}

func TestDeathOfTheBackendClosesWith1001(t *testing.T) {
	b := newBackend(t, false)
	s := start(t, "HTTPS {\n websocket /ws {\n reverse_proxy "+b.addr()+"\n}\n}\n")
	c := s.dial("wss:/ws")
	fields(t, c)
	c.send("die")
	c.wantClose(1001)
	s.log.wait(t, "client gone", "code", 1001.0, "reason", "backend closed the connection")
}

// Plain reverse_proxy closes every socket at every reload (Caddy issues 5471,
// 6420, 7222).
func TestProxiedSocketsLiveThroughReloads(t *testing.T) {
	b := newBackend(t, false)
	site := func(extra string) string {
		return "HTTP {\n websocket /ws {\n reverse_proxy " + b.addr() + "\n}\n" + extra + "}\nHTTPS {\n websocket /wss {\n reverse_proxy " + b.addr() + "\n}\n}\n"
	}
	s := start(t, site(""))
	plain, secure := s.dial("ws:/ws"), s.dial("wss:/wss")
	fields(t, plain)
	fields(t, secure)
	for i := range 10 {
		s.mustLoad("", site(fmt.Sprintf("respond /x %q\n", fmt.Sprint(i))))
		plain.ask(fmt.Sprint(i), fmt.Sprint(i))
		secure.ask(fmt.Sprint(i), fmt.Sprint(i))
	}
	// An endpoint that is removed takes its sockets along.
	var closed sync.WaitGroup
	closed.Go(func() { plain.wantClose(1001) })
	closed.Go(func() { secure.wantClose(1001) })
	s.mustLoad("", "HTTP {\n websocket /other\n}\n")
	closed.Wait()
}

// A tunnel has two goroutines, not four, and ServeHTTP is over.
func TestProxiedSocketCostsTwoGoroutines(t *testing.T) {
	b := newBackend(t, false)
	s := start(t, "HTTP {\n log\n websocket /ws {\n reverse_proxy "+b.addr()+"\n}\n}\n")
	c := s.dial("ws:/ws")
	fields(t, c)
	s.log.wait(t, "handled request", "status", 101.0)
	var in int
	s.waitFor("the handshake's goroutines to end", func() bool {
		buf := make([]byte, 4<<20)
		in = 0
		for stack := range strings.SplitSeq(string(buf[:runtime.Stack(buf, true)]), "\n\n") {
			if strings.Contains(stack, "reverseproxy.(*Handler)") {
				return false
			}
			if strings.Contains(stack, "(*tunnel).pump") {
				in++
			}
		}
		return true
	})
	if in != 2 {
		t.Errorf("a tunnel has %d goroutines, want 2", in)
	}
	c.ask("tom", "tom")
}

func TestStreamOptionsSayThatTheyDoNothing(t *testing.T) {
	b := newBackend(t, false)
	s := start(t, "HTTP {\n websocket /ws {\n reverse_proxy "+b.addr()+" {\n stream_timeout 1h\n stream_close_delay 5m\n}\n}\n}\n")
	const message = "option of reverse_proxy has no effect here: connections live through reloads, and idle_timeout ends them"
	s.log.wait(t, message, "option", "stream_timeout")
	s.log.wait(t, message, "option", "stream_close_delay")
}

// In JSON nobody parsed the options.
func TestOptionsBesideReverseProxyAreRefusedInJSON(t *testing.T) {
	s := start(t, "HTTP {\n}\n")
	handler := map[string]any{
		"handler": "websocket", "ping": map[string]any{"interval": "5s"},
		"reverse_proxy": map[string]any{"handler": "reverse_proxy", "upstreams": []any{map[string]any{"dial": "127.0.0.1:1"}}},
	}
	config, err := json.Marshal(map[string]any{"apps": map[string]any{"http": map[string]any{"servers": map[string]any{
		"one": map[string]any{"listen": []string{s.http.String()}, "routes": []any{map[string]any{"handle": []any{handler}}}},
	}}}})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.loadJSON(config); err == nil || !strings.Contains(err.Error(), "option ping has no meaning with reverse_proxy") {
		t.Errorf("loaded with %v", err)
	}
}

// The two kinds have nothing to say to each other's clients: these come back.
func TestEndpointThatChangesItsKindClosesWith1012(t *testing.T) {
	b := newBackend(t, false)
	logic, forward := "HTTP {\n websocket /ws {\n logic echo\n}\n}\n", "HTTP {\n websocket /ws {\n reverse_proxy "+b.addr()+"\n}\n}\n"
	s := start(t, logic)
	c := s.dial("ws:/ws")
	c.ask("tom", "tom")
	s.mustLoad("", forward)
	c.wantClose(1012)
	c = s.dial("ws:/ws")
	fields(t, c)
	s.mustLoad("", logic)
	c.wantClose(1012)
	s.dial("ws:/ws").ask("tom", "tom")
}
