package gateway_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gorilla/websocket"

	"github.com/caddy-websocket/caddy-websocket/gateway"
	"github.com/caddy-websocket/caddy-websocket/gateway/gatewaytest"
	"github.com/caddy-websocket/caddy-websocket/internal/streamtest"
)

// openHTTP2 opens an HTTP/2 connection.
func openHTTP2(t testing.TB, s *gatewaytest.Server) *streamtest.Conn {
	t.Helper()
	conn, err := s.Connect(gatewaytest.DefaultIP)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	streams, err := streamtest.HTTP2(conn)
	if err != nil {
		t.Fatal(err)
	}
	return streams
}

// openStream opens a WebSocket on an HTTP/2 connection.
func openStream(t testing.TB, streams *streamtest.Conn) *websocket.Conn {
	t.Helper()
	conn := streams.Open()
	t.Cleanup(func() { _ = conn.Close() })
	dialer := websocket.Dialer{NetDial: func(string, string) (net.Conn, error) { return conn, nil }}
	ws, _, err := dialer.Dial("ws://gateway.test/test", nil)
	if err != nil {
		t.Fatal(err)
	}
	return ws
}

// connectRequest is an extended CONNECT that is right, with header fields changed:
// "Name: value" sets one, "-Name" removes it, ":protocol" is a field here, too.
func connectRequest(t testing.TB, changes ...string) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodConnect, "http://gateway.test/test", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	body, write := io.Pipe()
	t.Cleanup(func() { _ = write.Close() })
	r.Body, r.ContentLength = body, -1
	r.Header = http.Header{":protocol": {"websocket"}, "Sec-Websocket-Version": {"13"}}
	for _, c := range changes {
		name, value, set := strings.Cut(c, ": ")
		if !set {
			delete(r.Header, name[1:])
			continue
		}
		r.Header[name] = []string{value}
	}
	return r
}

// RFC 8441: over HTTP/2 there is nothing to upgrade, no key and no Accept. What
// HTTP/1.1 says by Upgrade fields in its answers, which are forbidden here, is said
// by other statuses.
func TestExtendedConnectIsAnsweredAsHTTP2Demands(t *testing.T) {
	for name, tt := range map[string]struct {
		request func(t testing.TB) *http.Request
		status  int
		header  string // that the answer must have
	}{
		"handshake":                {func(t testing.TB) *http.Request { return connectRequest(t) }, 200, ""},
		"with a key, as some send": {func(t testing.TB) *http.Request { return connectRequest(t, "Sec-Websocket-Key: x") }, 200, ""},
		"with a subprotocol":       {func(t testing.TB) *http.Request { return connectRequest(t, "Sec-Websocket-Protocol: a, b") }, 200, "Sec-Websocket-Protocol: b"},
		"with compression": {func(t testing.TB) *http.Request {
			return connectRequest(t, "Sec-Websocket-Extensions: permessage-deflate")
		}, 200, "Sec-Websocket-Extensions: permessage-deflate; server_no_context_takeover; client_no_context_takeover"},
		"no version": {func(t testing.TB) *http.Request { return connectRequest(t, "-Sec-Websocket-Version") }, 400, "Sec-Websocket-Version: 13"},
		"version 8":  {func(t testing.TB) *http.Request { return connectRequest(t, "Sec-Websocket-Version: 8") }, 400, "Sec-Websocket-Version: 13"},
		"Origin elsewhere": {func(t testing.TB) *http.Request {
			return connectRequest(t, "Origin: https://evil.example")
		}, 403, ""},
		"a body of a known length": {func(t testing.TB) *http.Request {
			r := connectRequest(t)
			r.Body, r.ContentLength = io.NopCloser(strings.NewReader("x")), 1
			return r
		}, 400, ""},
		"another protocol": {func(t testing.TB) *http.Request { return connectRequest(t, ":protocol: connect-udp") }, 501, ""},
		"GET with the fields of HTTP/1.1": {func(t testing.TB) *http.Request {
			r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://gateway.test/test", http.NoBody)
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("Sec-Websocket-Version", "13")
			return r
		}, 426, ""},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				logic := &gatewaytest.Recorder{Connect: func(c *gateway.Client, _ *http.Request) error {
					c.Header().Set("X-Logic", "was here")
					c.Header().Set("Upgrade", "no")
					return nil
				}}
				s := serveWith(t, gateway.EndpointOptions{Logic: logic, Subprotocols: []string{"b"}, Compression: gateway.Compression{Level: 1}})
				resp, err := openHTTP2(t, s).RoundTrip(tt.request(t))
				if err != nil {
					t.Fatal(err)
				}
				defer resp.Body.Close()
				if resp.StatusCode != tt.status {
					t.Errorf("answered with %s, want %d", resp.Status, tt.status)
				}
				if name, value, _ := strings.Cut(tt.header, ": "); name != "" && resp.Header.Get(name) != value {
					t.Errorf("the answer's %s is %q, want %q", name, resp.Header.Get(name), value)
				}
				for _, none := range []string{"Upgrade", "Connection", "Sec-Websocket-Accept", "Transfer-Encoding"} {
					if v, ok := resp.Header[none]; ok {
						t.Errorf("the answer has %s: %q", none, v)
					}
				}
				if want := map[bool]string{true: "was here"}[tt.status == http.StatusOK]; resp.Header.Get("X-Logic") != want {
					t.Errorf("the answer has X-Logic: %q, want %q", resp.Header.Get("X-Logic"), want)
				}
			})
		})
	}
}

// A replayed handshake would bring the messages along that follow it (RFC 8470).
func TestHandshakeInEarlyDataIs425(t *testing.T) {
	e := gatewaytest.Endpoint(t, "test", gateway.EndpointOptions{})
	g := newGateway(t, gateway.Options{})
	if err := g.Serve(e); err != nil {
		t.Fatal(err)
	}
	r := connectRequest(t)
	r.ProtoMajor, r.ProtoMinor, r.Proto = 3, 0, "websocket"
	r.TLS = &tls.ConnectionState{HandshakeComplete: false}
	_, err := e.Upgrade(httptest.NewRecorder(), r, gateway.Identity{})
	if refused, ok := errors.AsType[*gateway.HandshakeError](err); !ok || refused.Status != http.StatusTooEarly {
		t.Errorf("refused with %v, want 425", err)
	}
}

// Operators have to see what their visitors use.
func TestClientSaysWhichHTTPItCameOver(t *testing.T) {
	for _, proto := range protocols {
		synctest.Test(t, func(t *testing.T) {
			log := new(gatewaytest.Log)
			var opened, atLogic string
			logic := &gatewaytest.Recorder{Connect: func(c *gateway.Client, _ *http.Request) error {
				atLogic = c.Proto()
				return nil
			}}
			e := gatewaytest.Endpoint(t, "test", gateway.EndpointOptions{Logic: logic, Logger: log.Logger()})
			g := newGateway(t, gateway.Options{})
			if err := g.Serve(e); err != nil {
				t.Fatal(err)
			}
			s := gatewaytest.ServeHandler(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				_, _ = e.Upgrade(w, r, gateway.Identity{Opened: func(c *gateway.Client) { opened = c.Proto() }})
			}))
			connectOver(t, s, proto).shakeHands()
			synctest.Wait()
			list, err := g.Clients(t.Context(), gateway.Query{})
			if err != nil || len(list.Clients) != 1 || list.Clients[0].Proto != proto {
				t.Errorf("listed %+v, %v, want proto %s", list.Clients, err, proto)
			}
			wantAttrs(t, log.Wait(t, "client connected"), map[string]any{"proto": proto})
			if opened != proto || atLogic != proto {
				t.Errorf("Opened saw %q, OnConnect %q, want %q", opened, atLogic, proto)
			}
		})
	}
}

// net/http takes the stream from a handler that returns; and one that does not
// return holds up the server's Shutdown.
func TestUpgradeOverHTTP2ReturnsWhenTheClientIsGone(t *testing.T) {
	for name, end := range map[string]func(p *rawPeer, g *gateway.Gateway){
		"the client says goodbye":  func(p *rawPeer, _ *gateway.Gateway) { p.send(frame(fin|closes, closing(1000, ""))) },
		"the client goes silently": func(p *rawPeer, _ *gateway.Gateway) { _ = p.Close() },
		"the server closes":        func(_ *rawPeer, g *gateway.Gateway) { _, _ = g.Close(gateway.All(), 4000, "") },
		"the protocol is broken":   func(p *rawPeer, _ *gateway.Gateway) { p.send([]byte{0xFF, 0xFF}) },
		"pings are not answered":   func(*rawPeer, *gateway.Gateway) {},
		"shutdown":                 func(_ *rawPeer, g *gateway.Gateway) { shutdown(t, g) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newStreamHandler(t, gateway.EndpointOptions{})
				p := connectOver(t, h.server, "HTTP/2.0").shakeHands()
				synctest.Wait()
				if h.returned() {
					t.Fatal("Upgrade has returned while the client is there")
				}
				end(p, h.gateway)
				time.Sleep(time.Minute)
				if !h.returned() {
					t.Error("Upgrade has not returned")
				}
				wantCount(t, h.gateway, gateway.All(), 0)
			})
		})
	}
}

// streamHandler serves an endpoint and knows whether Upgrade has returned.
type streamHandler struct {
	server  *gatewaytest.Server
	gateway *gateway.Gateway
	over    atomic.Int32
}

func (h *streamHandler) returned() bool { return h.over.Load() > 0 }

func newStreamHandler(t *testing.T, o gateway.EndpointOptions) *streamHandler {
	t.Helper()
	e := gatewaytest.Endpoint(t, "test", o)
	g, err := gateway.New(gateway.Options{Logger: gatewaytest.Logger(t)})
	if err != nil {
		t.Fatal(err)
	}
	h := &streamHandler{gateway: g}
	t.Cleanup(func() { _ = g.Shutdown(context.Background()) }) // what it returns is for a test to look at
	if err := h.gateway.Serve(e); err != nil {
		t.Fatal(err)
	}
	h.server = gatewaytest.ServeHandler(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer h.over.Add(1)
		if _, err := e.Upgrade(w, r, gateway.Identity{}); err != nil {
			t.Errorf("upgrading: %v", err)
		}
	}))
	return h
}

// Logic that hangs is not waited for when the process ends: neither may the handler
// be in which its client came, or SIGTERM would be waiting for that.
func TestCallbackThatNeverReturnsDoesNotHoldItsHandler(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		defer synctest.Wait()
		defer close(release)
		h := newStreamHandler(t, gateway.EndpointOptions{Logic: &gatewaytest.Recorder{
			Message: func(*gateway.Client, gateway.Message) error {
				<-release
				return nil
			},
		}})
		p := connectOver(t, h.server, "HTTP/2.0").shakeHands()
		p.send(frame(fin|text, "hang"))
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second)
		defer cancel()
		if err := h.gateway.Shutdown(ctx); err == nil {
			t.Error("the shutdown names no callback that still runs")
		}
		synctest.Wait()
		if !h.returned() {
			t.Error("the handler waits for the callback")
		}
	})
}

// A server in front that allows a request a minute must not end sockets on which
// nothing happens; and one whose peer has vanished must end.
func TestIdleStreamLivesAsLongAsItAnswersPings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		logic := &gatewaytest.Recorder{}
		s := serveWith(t, gateway.EndpointOptions{Logic: logic})
		ws := openStream(t, openHTTP2(t, s))
		var pings atomic.Int32
		var silent atomic.Bool
		ws.SetPingHandler(func(payload string) error {
			pings.Add(1)
			if silent.Load() {
				return nil
			}
			return ws.WriteControl(websocket.PongMessage, []byte(payload), time.Now().Add(time.Minute))
		})
		ended := make(chan error, 1)
		go func() {
			_, _, err := ws.ReadMessage()
			ended <- err
		}()
		time.Sleep(time.Hour)
		logic.Want(t, "connect")
		if n := pings.Load(); n < 100 {
			t.Errorf("%d pings in an hour", n)
		}
		silent.Store(true)
		time.Sleep(time.Minute)
		logic.Want(t, "connect", "close 1006 no answer to a ping for 10s")
		if err := <-ended; err == nil {
			t.Error("the client reads on")
		}
	})
}

// One tab that is stuck must not freeze the others of its browser, which share its
// connection.
func TestSlowReaderHoldsUpNoOtherStreamOfItsConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		logic := &gatewaytest.Recorder{}
		s := serveWith(t, gateway.EndpointOptions{Logic: logic, SendBuffer: 8 << 20, WriteTimeout: 10 * time.Second})
		streams := openHTTP2(t, s)
		slow, fast := openStream(t, streams), openStream(t, streams)
		synctest.Wait()
		const messages, size = 50, 40 << 10
		start := time.Now()
		for i := range messages {
			if n, err := s.Gateway.Send(gateway.All(), numbered(i, size)); n != 2 || err != nil {
				t.Fatalf("message %d queued for %d clients, %v", i, n, err)
			}
		}
		for i := range messages {
			_, data, err := fast.ReadMessage()
			if err != nil || !bytes.Equal(data, numbered(i, size).Data) {
				t.Fatalf("message %d: %d bytes, %v", i, len(data), err)
			}
		}
		if took := time.Since(start); took > time.Second {
			t.Errorf("the fast one has waited %s", took)
		}
		go func() { // from now on it answers pings
			for {
				if _, _, err := fast.ReadMessage(); err != nil {
					return
				}
			}
		}()
		time.Sleep(time.Minute)
		wantCount(t, s.Gateway, gateway.All(), 1)
		if err := streams.Err(); err != nil {
			t.Errorf("the slow one's stream has ended early: %v", err)
		}
		for { // what was sent before can be read, and then comes the end of a message that never came whole
			if _, _, err := slow.ReadMessage(); err != nil {
				break
			}
		}
		synctest.Wait()
		if err := streams.Err(); err == nil || !strings.Contains(err.Error(), "INTERNAL_ERROR") {
			t.Errorf("the slow one's stream ended with %v, want a reset", err)
		}
		events := logic.Events()
		if !slices.Contains(events, "close 1006 took in nothing for 10s") {
			t.Errorf("events %q", events)
		}
	})
}

// A write that comes when the handler has just returned would end the process.
func TestStreamsMayEndWhileEverybodyIsSentTo(t *testing.T) {
	const clients, rounds = 20, 10
	s := serveWith(t, gateway.EndpointOptions{WhenFull: gateway.DropNewest, Logger: slog.New(slog.DiscardHandler)})
	var sending sync.WaitGroup
	stop := make(chan struct{})
	sending.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				_, _ = s.Gateway.Send(gateway.All(), gateway.Text(strings.Repeat("x", 5000)))
			}
		}
	})
	for range rounds {
		streams := openHTTP2(t, s)
		var visits sync.WaitGroup
		for i := range clients {
			visits.Go(func() {
				conn := streams.Open()
				defer conn.Close()
				dialer := websocket.Dialer{NetDial: func(string, string) (net.Conn, error) { return conn, nil }}
				ws, _, err := dialer.Dial("ws://gateway.test/test", nil)
				if err != nil {
					t.Error(err)
					return
				}
				if _, _, err := ws.ReadMessage(); err != nil {
					t.Error(err)
				}
				if i%2 == 0 {
					_ = ws.WriteControl(websocket.CloseMessage, nil, time.Now().Add(time.Second))
				}
			})
		}
		visits.Wait()
		_ = streams.Close()
	}
	close(stop)
	sending.Wait()
}
