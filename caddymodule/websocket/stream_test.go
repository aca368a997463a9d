package websocket_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-websocket/caddy-websocket/gateway"
	"github.com/caddy-websocket/caddy-websocket/internal/streamtest"
)

// protocols are what a handshake may come over. Sites of HTTPS have them all.
var protocols = []string{"HTTP/1.1", "HTTP/2.0", "HTTP/3.0"}

// over returns how to connect to HTTPS over a protocol: a connection of its own, on
// which any number of streams can be opened.
func (s *server) over(proto string) connection {
	s.t.Helper()
	var streams *streamtest.Conn
	switch proto {
	case "HTTP/1.1":
		return connection{}
	case "HTTP/2.0":
		config := s.tls()
		config.NextProtos = []string{"h2"}
		conn, err := tls.Dial("tcp", s.https.String(), config)
		if err != nil {
			s.t.Fatal(err)
		}
		if streams, err = streamtest.HTTP2(conn); err != nil {
			s.t.Fatal(err)
		}
	case "HTTP/3.0":
		ctx, cancel := context.WithTimeout(s.t.Context(), wait)
		defer cancel()
		var err error
		if streams, err = streamtest.HTTP3(ctx, s.https.String(), s.tls()); err != nil {
			s.t.Fatal(err)
		}
	}
	s.t.Cleanup(func() { _ = streams.Close() })
	return connection{streams: streams}
}

// eachProtocol runs a test with connections over each protocol, on a server that has
// started already.
func eachProtocol(t *testing.T, s *server, test func(t *testing.T, proto string, by connection)) {
	t.Helper()
	for _, proto := range protocols {
		t.Run(strings.ReplaceAll(proto, "/", ""), func(t *testing.T) { test(t, proto, s.over(proto)) })
	}
}

// Browsers choose the protocol, and nobody should notice which.
func TestEveryProtocolReachesTheSameLogic(t *testing.T) {
	s := start(t, `HTTPS {
	websocket /ws {
		logic echo
	}
}`)
	eachProtocol(t, s, func(t *testing.T, proto string, by connection) {
		c := s.dialBy(by, "wss:/ws")
		c.ask("hello", "hello")
		large := strings.Repeat("0123456789", 20_000)
		c.ask(large, large)
		entry := s.log.wait(t, "client connected", "proto", proto)
		if entry["client_ip"] != "127.0.0.1" {
			t.Errorf("logged %v", entry)
		}
		c.leave(1000, "bye")
		s.log.wait(t, "client gone", "client", entry["client"], "code", float64(1000), "by_peer", true)
	})
}

// What an operator is shown of a client, whatever it came over: the access log and
// the metrics would otherwise speak of CONNECT and of a protocol called websocket.
func TestPlaceholdersAndLogsNameTheProtocol(t *testing.T) {
	s := start(t, `HTTPS {
	log
	log_append over {http.websocket.proto}
	websocket /ws {
		logic reply "{ws.proto} {ws.json.proto}"
	}
}`)
	eachProtocol(t, s, func(t *testing.T, proto string, by connection) {
		c := s.dialBy(by, "wss:/ws")
		c.ask("?", fmt.Sprintf("%s %q", proto, proto))
		id := s.log.wait(t, "client connected", "proto", proto)["client"]
		c.leave(1000, "")
		status := 200.0
		if proto == "HTTP/1.1" {
			status = 101
		}
		s.log.wait(t, "handled request", "over", proto, "websocket_client", id, "status", status)
	})
}

// One page's directives apply to its socket over each protocol alike: those that
// compress, count and limit bodies must not touch it.
func TestMiddlewareForPagesLeavesStreamsAlone(t *testing.T) {
	s := startWith(t, "metrics", `HTTPS {
	log
	encode
	header >X-Late yes
	header X-Early yes
	request_body {
		max_size 100
	}
	intercept {
		@errors status 5xx
		handle_response @errors {
			respond "intercepted"
		}
	}
	templates
	websocket /ws {
		compression 5
		logic echo
	}
}`)
	eachProtocol(t, s, func(t *testing.T, _ string, by connection) {
		c := s.dialBy(by, "wss:/ws", "Accept-Encoding: gzip")
		long := strings.Repeat("long ", 2000)
		c.ask(long, long)
		c.ask("short", "short")
		for _, name := range []string{"X-Late", "X-Early"} {
			if c.resp.Header.Get(name) != "yes" {
				t.Errorf("the answer has no %s: %v", name, c.resp.Header)
			}
		}
		for _, name := range []string{"Content-Encoding", "Content-Type", "Content-Length"} {
			if v, ok := c.resp.Header[name]; ok {
				t.Errorf("the answer has %s: %q", name, v)
			}
		}
		c.leave(1000, "")
	})
}

// Caddy ends requests that pause for a minute, and those that last longer than
// read_body and write say. A socket over HTTP/1.1 outlives that all, and so must one
// that still is a request.
func TestTimeoutsOfRequestsDoNotEndStreams(t *testing.T) {
	b := newBackend(t, false)
	s := startWith(t, `servers {
		timeouts {
			read_body 1s
			read_body_idle 500ms
			write 1s
			write_idle 500ms
		}
	}`, `HTTPS {
	websocket /ws {
		logic echo
	}
	websocket /proxied {
		reverse_proxy `+b.addr()+`
	}
}`)
	var clients []*client
	for _, proto := range protocols {
		by := s.over(proto)
		for _, path := range []string{"/ws", "/proxied"} {
			c := s.dialBy(by, "wss:"+path)
			if path == "/proxied" {
				fields(t, c)
			}
			c.ask("first", "first")
			clients = append(clients, c)
		}
	}
	time.Sleep(2 * time.Second) // longer than each of them
	for _, c := range clients {
		c.ask("second", "second")
	}
}

func TestProxiedStreamIsAnUpgradeForTheBackend(t *testing.T) {
	b, secure := newBackend(t, false), newBackend(t, true)
	s := start(t, `HTTPS {
	websocket /ws {
		reverse_proxy `+b.addr()+`
	}
	websocket /secure {
		reverse_proxy https://`+secure.addr()+` {
			header_up X-Extra {query.extra}
			transport http {
				tls_insecure_skip_verify
			}
		}
	}
}`)
	eachProtocol(t, s, func(t *testing.T, proto string, by connection) {
		c := s.dialBy(by, "wss:/ws", "X-Real-IP: 6.6.6.6", "X-Forwarded-For: 6.6.6.6", "Sec-WebSocket-Protocol: chat")
		got := fields(t, c)
		for name, want := range map[string]string{
			"X-Real-Ip": "127.0.0.1", "X-Forwarded-For": "127.0.0.1", "X-Forwarded-Proto": "https",
			"Connection": "Upgrade", "Upgrade": "websocket", "Sec-Websocket-Version": "13", ":protocol": "",
		} {
			if values := strings.Join(got[name], ", "); values != want {
				t.Errorf("the backend got %s %q, want %q", name, values, want)
			}
		}
		if c.Subprotocol() != "chat" || c.resp.Header.Get("X-Backend") != "yes" {
			t.Errorf("subprotocol %q, header %v, want the backend's", c.Subprotocol(), c.resp.Header)
		}
		large := strings.Repeat("0123456789", 20_000)
		c.ask(large, large)
		id := s.log.wait(t, "client connected", "proto", proto, "endpoint", "/ws")["client"]
		c.leave(4001, "bye")
		s.log.wait(t, "client gone", "client", id, "code", 4001.0, "reason", "bye", "by_peer", true, "messages_in", 1.0, "messages_out", 2.0)

		c = s.dialBy(by, "wss:/secure?extra=read")
		if got := fields(t, c).Get("X-Extra"); got != "read" {
			t.Errorf("header_up gave %q", got)
		}
		id = s.log.wait(t, "client connected", "proto", proto, "endpoint", "/secure")["client"]
		c.send("die")
		c.wantClose(gateway.CloseGoingAway)
		s.log.wait(t, "client gone", "client", id, "code", 1001.0, "reason", "backend closed the connection")

		if _, text := s.refusedBy(by, http.StatusTeapot, "wss:/ws?refuse"); text != "the backend says no\n" {
			t.Errorf("refused with %q", text)
		}
	})
}

// refusedBy is refused over a connection.
func (s *server) refusedBy(by connection, status int, url string, header ...string) (*http.Response, string) {
	s.t.Helper()
	conn, resp, err := s.tryDial(by, url, header)
	if err == nil {
		_ = conn.Close()
	}
	if err == nil || resp == nil || resp.StatusCode != status {
		s.t.Fatalf("connecting to %s: %v, %v, want %d", url, resp, err, status)
	}
	return resp, body(resp)
}

// request sends a request that is no WebSocket's over HTTP/2 or HTTP/3.
func (by connection) request(t *testing.T, s *server, proto, method, path, protocol string) (status int, text string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, fmt.Sprintf("https://localhost:%d%s", s.https.Port(), path), http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	switch {
	case protocol == "":
	case proto == "HTTP/2.0":
		r.Header[":protocol"] = []string{protocol}
	default:
		r.Proto = protocol
	}
	if method == http.MethodConnect {
		var end io.Closer
		r.Body, end = io.Pipe()
		r.ContentLength = -1
		defer end.Close()
	}
	resp, err := by.streams.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

// Refusals say what they are in the words of their protocol, by way of handle_errors;
// what is no WebSocket at all is somebody else's.
func TestRefusalsOverEveryProtocol(t *testing.T) {
	s := start(t, `HTTPS {
	websocket /ws {
		max_clients_per_ip 1
		logic echo
	}
	websocket /alone
	respond /ws "next" 203
	handle_errors {
		respond "error {err.status_code}"
	}
}`)
	eachProtocol(t, s, func(t *testing.T, proto string, by connection) {
		c := s.dialBy(by, "wss:/ws")
		c.ask("x", "x")
		for status, header := range map[int]string{
			http.StatusForbidden:       "Origin: https://evil.example",
			http.StatusTooManyRequests: "X: y",
		} {
			if _, text := s.refusedBy(by, status, "wss:/ws", header); text != fmt.Sprint("error ", status) {
				t.Errorf("%d came with %q", status, text)
			}
		}
		c.leave(1000, "")
		if proto == "HTTP/1.1" {
			return
		}
		for _, tt := range []struct {
			method, path, protocol string
			status                 int
			text                   string
		}{
			{"GET", "/ws", "", 203, "next"},
			{"GET", "/alone", "", 426, "error 426"},
			{"CONNECT", "/ws", "connect-udp", 203, "next"},
			{"CONNECT", "/alone", "connect-udp", 501, "error 501"},
			{"CONNECT", "/alone", "websocket", 400, "error 400"}, // no version
		} {
			if status, text := by.request(t, s, proto, tt.method, tt.path, tt.protocol); status != tt.status || text != tt.text {
				t.Errorf("%s %s %s is answered with %d %q, want %d %q", tt.method, tt.path, tt.protocol, status, text, tt.status, tt.text)
			}
		}
	})
}

// The old configuration's server waits for its streams: they go on, and find what
// changed.
func TestReloadKeepsStreams(t *testing.T) {
	b := newBackend(t, false)
	site := func(size string) string {
		return "HTTPS {\n websocket /ws {\n max_message_size " + size + "\n logic echo\n}\n websocket /proxied {\n reverse_proxy " + b.addr() + "\n}\n}\n"
	}
	s := start(t, site("1KiB"))
	var own, proxied []*client
	for _, proto := range protocols {
		by := s.over(proto)
		own, proxied = append(own, s.dialBy(by, "wss:/ws")), append(proxied, s.dialBy(by, "wss:/proxied"))
	}
	long := strings.Repeat("x", 500)
	for i := range protocols {
		fields(t, proxied[i])
		own[i].ask(long, long)
		proxied[i].ask(long, long)
	}
	s.mustLoad("", site("100"))
	for i := range protocols {
		own[i].ask("still here", "still here")
		own[i].send(long)
		own[i].wantClose(gateway.CloseMessageTooBig)
		proxied[i].ask(long, long)
	}
	for i, proto := range protocols { // and who comes now, on a connection of its own
		own[i] = s.dialBy(s.over(proto), "wss:/ws")
		own[i].ask("new", "new")
	}
	if err := caddy.Stop(); err != nil {
		t.Fatal(err)
	}
	for i := range protocols {
		own[i].wantClose(gateway.CloseGoingAway)
		proxied[i].wantClose(gateway.CloseGoingAway)
	}
}

// With a grace period the old server cuts its streams when that is over. Clients are
// told before, with the code that means: come back at once. HTTP/1.1 has no such end.
func TestStreamsAreToldBeforeTheGracePeriodEnds(t *testing.T) {
	const site = "HTTPS {\n websocket /ws {\n logic echo\n}\n}\n"
	s := startWith(t, "grace_period 2s", site)
	var clients []*client
	for _, proto := range protocols {
		c := s.dialBy(s.over(proto), "wss:/ws")
		c.ask("x", "x")
		clients = append(clients, c)
	}
	reloaded := time.Now()
	s.mustLoad("grace_period 2s", site+"\n# changed\n"+"HTTP {\n respond x\n}\n")
	for _, c := range clients {
		c.ask("in the grace period", "in the grace period")
	}
	for i, c := range clients[1:] {
		c.wantClose(gateway.CloseServiceRestart)
		if took := time.Since(reloaded); took < time.Second {
			t.Errorf("%s was closed after %s", protocols[i+1], took)
		}
	}
	clients[0].ask("still here", "still here")
}
