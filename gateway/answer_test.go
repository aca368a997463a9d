package gateway_test

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-websocket/caddy-websocket/gateway"
	"github.com/caddy-websocket/caddy-websocket/gateway/gatewaytest"
)

// seeing is the kind of ResponseWriter that middleware puts around another: it
// notes the status, sets a header field as late as it can, and says what it is
// around.
type seeing struct {
	http.ResponseWriter
	statuses *[]int
	late     string
}

func (s seeing) WriteHeader(status int) {
	*s.statuses = append(*s.statuses, status)
	if s.late != "" {
		s.Header().Set(s.late, "late")
	}
	s.ResponseWriter.WriteHeader(status)
}

func (s seeing) Unwrap() http.ResponseWriter { return s.ResponseWriter }

// hijacks is a writer that can be taken over, in a way of its own.
type hijacks struct {
	http.ResponseWriter
	hijack func() (net.Conn, *bufio.ReadWriter, error)
}

func (h hijacks) Hijack() (net.Conn, *bufio.ReadWriter, error) { return h.hijack() }

// opaque hides everything but the ResponseWriter.
type opaque struct{ http.ResponseWriter }

// unwraps has both.
type unwraps struct {
	hijacks
}

func (u unwraps) Unwrap() http.ResponseWriter { return u.ResponseWriter }

// serveBehind serves an endpoint behind middleware.
func serveBehind(t *testing.T, o gateway.EndpointOptions, middleware func(http.ResponseWriter) http.ResponseWriter) (*gatewaytest.Server, *gateway.Gateway) {
	t.Helper()
	g := newGateway(t, gateway.Options{})
	e := gatewaytest.Endpoint(t, "test", o)
	if err := g.Serve(e); err != nil {
		t.Fatal(err)
	}
	return gatewaytest.ServeHandler(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		e.ServeHTTP(middleware(w), r)
	})), g
}

// An access log has to say 101, and what middleware adds has to arrive.
func TestMiddlewareSeesTheUpgrade(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var outer, inner []int
		logic := &gatewaytest.Recorder{Message: echo, Connect: func(c *gateway.Client, _ *http.Request) error {
			c.Header().Set("X-Logic", "logic")
			c.Header().Add("Set-Cookie", "logic=1")
			c.Header().Add("Set-Cookie", "logic=2")
			c.Header().Set("X-Both", "logic")
			return nil
		}}
		s, _ := serveBehind(t, gateway.EndpointOptions{Logic: logic}, func(w http.ResponseWriter) http.ResponseWriter {
			w = seeing{seeing{w, &inner, "X-Inner"}, &outer, "X-Outer"}
			w.Header().Set("X-Early", "early")
			w.Header().Add("Set-Cookie", "middleware=1")
			w.Header().Set("X-Both", "middleware")
			return w
		})
		p := connectRaw(t, s)
		p.send(append([]byte(upgradeRequest), frame(fin|text, "early")...))
		h := p.wantUpgrade().Header
		p.want("text early")
		for name, want := range map[string]string{"X-Logic": "logic", "X-Early": "early", "X-Inner": "late", "X-Outer": "late", "X-Both": "logic", "Upgrade": "websocket"} {
			if got := h.Values(name); len(got) != 1 || got[0] != want {
				t.Errorf("the answer's %s is %q, want %q", name, got, want)
			}
		}
		cookies := h.Values("Set-Cookie")
		slices.Sort(cookies)
		if want := []string{"logic=1", "logic=2", "middleware=1"}; !slices.Equal(cookies, want) {
			t.Errorf("the answer's cookies are %q, want %q", cookies, want)
		}
		if want := []int{101}; !slices.Equal(outer, want) || !slices.Equal(inner, want) {
			t.Errorf("middleware saw the statuses %v and %v, want 101 each", outer, inner)
		}
	})
}

// The writers around the innermost hold on to what an access log needs, for as
// long as somebody holds them: a connection may last for weeks.
func TestInnermostWriterIsTakenOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := serveBehind(t, gateway.EndpointOptions{Logic: &gatewaytest.Recorder{Message: echo}}, func(w http.ResponseWriter) http.ResponseWriter {
			return unwraps{hijacks{w, func() (net.Conn, *bufio.ReadWriter, error) {
				t.Error("the outer writer was taken over")
				return http.NewResponseController(w).Hijack()
			}}}
		})
		p := dialRaw(t, s, frame(fin|text, "x"))
		p.want("text x")
	})
}

func TestWriterWithoutUnwrapIsTakenOverItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := serveBehind(t, gateway.EndpointOptions{Logic: &gatewaytest.Recorder{Message: echo}}, func(w http.ResponseWriter) http.ResponseWriter {
			return hijacks{opaque{w}, func() (net.Conn, *bufio.ReadWriter, error) { return http.NewResponseController(w).Hijack() }}
		})
		p := dialRaw(t, s, frame(fin|text, "x"))
		p.want("text x")
	})
}

// A chain may end in a writer that hides the rest.
func TestOuterWriterIsTakenOverIfTheInnerCannotBe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := serveBehind(t, gateway.EndpointOptions{Logic: &gatewaytest.Recorder{Message: echo}}, func(w http.ResponseWriter) http.ResponseWriter {
			return unwraps{hijacks{opaque{w}, func() (net.Conn, *bufio.ReadWriter, error) { return http.NewResponseController(w).Hijack() }}}
		})
		p := dialRaw(t, s, frame(fin|text, "x"))
		p.want("text x")
	})
}

func TestWriterThatCannotBeTakenOverIs500(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		logic := &gatewaytest.Recorder{}
		s, g := serveBehind(t, gateway.EndpointOptions{Logic: logic, MaxClients: 1}, func(w http.ResponseWriter) http.ResponseWriter { return opaque{w} })
		for range 3 { // and none of them counts
			if resp := answerTo(t, s, upgradeRequest); resp.StatusCode != http.StatusInternalServerError {
				t.Errorf("answered with %s, want 500", resp.Status)
			}
		}
		if events := logic.Events(); len(events) != 0 {
			t.Errorf("the logic was called: %q", events)
		}
		wantCount(t, g, gateway.All(), 0)
	})
}

// Many wrappers implement Hijack by asking what they are around, and fail if
// that cannot do it. The client must not be told 101 then: 500, or nothing.
func TestHijackThatFailsIsNo101AndOnCloseIsCalled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		logic := &gatewaytest.Recorder{
			Connect: func(c *gateway.Client, _ *http.Request) error {
				return errors.Join(c.Join("room"), c.Send(gateway.Text("lost")))
			},
			Closed: func(c *gateway.Client, _ gateway.CloseReason) {
				if c.Context().Err() == nil {
					t.Error("the context of a client that is gone is not done")
				}
			},
		}
		s, g := serveBehind(t, gateway.EndpointOptions{Logic: logic, MaxClients: 1}, func(w http.ResponseWriter) http.ResponseWriter {
			return hijacks{opaque{w}, func() (net.Conn, *bufio.ReadWriter, error) { return nil, nil, http.ErrNotSupported }}
		})
		for range 2 {
			p := connectRaw(t, s)
			p.send([]byte(upgradeRequest))
			_ = p.SetReadDeadline(time.Now().Add(gatewaytest.Wait))
			resp, err := http.ReadResponse(p.r, nil)
			if err == nil && (resp.StatusCode != http.StatusInternalServerError || resp.Header.Get("Sec-WebSocket-Accept") != "") {
				t.Errorf("answered with %s and %v", resp.Status, resp.Header)
			}
		}
		synctest.Wait()
		if events := logic.Events(); len(events) != 4 || !strings.HasPrefix(events[1], "close 1006 upgrade failed") || events[1] != events[3] {
			t.Errorf("events %q, want two of connect and close 1006", events)
		}
		wantCount(t, g, gateway.All(), 0)
	})
}

// The fields by which a browser tells whether the upgrade happened are not the
// logic's: a subprotocol or an extension that was not offered ends the
// connection, as does a wrong Sec-WebSocket-Accept.
func TestHeaderFromLogicCannotBreakTheHandshake(t *testing.T) {
	for _, tt := range []struct{ name, value string }{
		{"Sec-WebSocket-Accept", "wrong"},
		{"Sec-WebSocket-Protocol", "never-offered"},
		{"Sec-WebSocket-Extensions", "permessage-deflate"},
		{"Sec-WebSocket-Version", "8"},
		{"Upgrade", "h2c"},
		{"Connection", "close"},
		{"Connection", "keep-alive"},
		{"Content-Length", "5"},
		{"Transfer-Encoding", "chunked"},
		{"Trailer", "X"},
		{"X-Split", "a\r\nSec-WebSocket-Protocol: never-offered\r\n\r\nHTTP/1.1 200 OK"},
		{"X Bad Name", "x"},
		{"X-Bad\r\nName", "x"},
	} {
		for _, canonical := range []bool{true, false} {
			name := tt.name
			if canonical {
				name = http.CanonicalHeaderKey(name)
			} else {
				name = strings.ToLower(name)
			}
			t.Run(name+" "+tt.value[:min(10, len(tt.value))], func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					logic := &gatewaytest.Recorder{Message: echo, Connect: func(c *gateway.Client, _ *http.Request) error {
						c.Header()[name] = []string{tt.value}
						return nil
					}}
					p := dialRaw(t, gatewaytest.ServeLogic(t, logic)) // checks Sec-WebSocket-Accept
					p.send(frame(fin|text, "x"))
					p.want("text x")

					resp := answerTo(t, gatewaytest.ServeLogic(t, logic), upgradeRequest)
					wantUpgradeHeader(t, resp)
					if u := resp.Header.Values("Upgrade"); len(u) != 1 || u[0] != "websocket" {
						t.Errorf("the answer's Upgrade is %q", u)
					}
					for _, none := range []string{"Sec-Websocket-Protocol", "Sec-Websocket-Extensions", "Content-Length", "Transfer-Encoding"} {
						if v := resp.Header.Values(none); len(v) > 0 || none == "Transfer-Encoding" && len(resp.TransferEncoding) > 0 {
							t.Errorf("the answer's %s is %q", none, v)
						}
					}
				})
			})
		}
	}
}

// The agreed subprotocol is what the client is told, whatever logic sets.
func TestSubprotocolIsNotTheLogicsToSet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		logic := &gatewaytest.Recorder{Connect: func(c *gateway.Client, _ *http.Request) error {
			c.Header().Set("Sec-WebSocket-Protocol", "other")
			return nil
		}}
		s := serveWith(t, gateway.EndpointOptions{Logic: logic, Subprotocols: []string{"chat"}})
		resp := answerTo(t, s, request("+Sec-WebSocket-Protocol: other, chat"))
		if got := resp.Header.Values("Sec-WebSocket-Protocol"); !slices.Equal(got, []string{"chat"}) {
			t.Errorf("the answer's subprotocol is %q, want chat", got)
		}
	})
}

// c.Header is for the handshake: a client that lives must not hold it.
func TestHeaderIsNilAfterTheHandshake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		logic := &gatewaytest.Recorder{}
		dialRaw(t, gatewaytest.ServeLogic(t, logic))
		if h := logic.Client(t, 0).Header(); h != nil {
			t.Errorf("Header returns %v", h)
		}
	})
}

// dialReal connects by TCP to net/http's own server, at a port of the system's.
func dialReal(t *testing.T, secure bool, o gateway.EndpointOptions, early ...[]byte) *rawPeer {
	t.Helper()
	g := newGateway(t, gateway.Options{})
	e := gatewaytest.Endpoint(t, "test", o)
	if err := g.Serve(e); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(e)
	if secure {
		server.StartTLS()
	} else {
		server.Start()
	}
	t.Cleanup(server.Close)
	var dialer net.Dialer
	conn, err := dialer.DialContext(t.Context(), "tcp", server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if secure {
		config := server.Client().Transport.(*http.Transport).TLSClientConfig.Clone()
		config.ServerName = "example.com" // of httptest's certificate
		conn = tls.Client(conn, config)
	}
	t.Cleanup(func() { _ = conn.Close() })
	p := &rawPeer{conn, t, bufio.NewReader(conn)}
	if _, err := conn.Write(append([]byte(upgradeRequest), join(early...)...)); err != nil {
		t.Fatal(err)
	}
	p.wantUpgrade()
	return p
}

func TestHandshakeOverRealConnections(t *testing.T) {
	for _, secure := range []bool{false, true} {
		name := "TCP"
		if secure {
			name = "TLS"
		}
		t.Run(name, func(t *testing.T) {
			logic := &gatewaytest.Recorder{Message: echo}
			p := dialReal(t, secure, gateway.EndpointOptions{Logic: logic}, frame(fin|text, "early"))
			p.want("text early")
			big := strings.Repeat("x", 1<<20-100)
			go p.send(frame(fin|binry, big))
			p.want("binary " + short(big))
			p.send(frame(fin|closes, closing(4000, "bye")))
			p.want("close 4000", "end")
			if events := len(logic.Events()); events < 3 {
				t.Errorf("%d events", events)
			}
			if ip := logic.Client(t, 0).RealIP(); ip != "127.0.0.1" && ip != "::1" {
				t.Errorf("the client's real IP is %q", ip)
			}
		})
	}
}

// A peer on TLS that vanishes must end the client as quickly as one without.
func TestLostRealConnectionIs1006(t *testing.T) {
	for _, secure := range []bool{false, true} {
		logic := &gatewaytest.Recorder{}
		p := dialReal(t, secure, gateway.EndpointOptions{Logic: logic})
		conn := p.Conn
		if c, ok := conn.(*tls.Conn); ok {
			conn = c.NetConn() // and no alert
		}
		_ = conn.Close()
		logic.Client(t, 0)
		for start := time.Now(); len(logic.Events()) < 2; time.Sleep(time.Millisecond) {
			if time.Since(start) > 5*time.Second {
				t.Fatal("OnClose was not called")
			}
		}
		if got := logic.Events()[1]; got != "close 1006 connection lost" {
			t.Errorf("TLS %t: %q", secure, got)
		}
	}
}

// BenchmarkEcho is a message there and back, from memory and by TCP.
func BenchmarkEcho(b *testing.B) {
	for _, size := range []int{16, 1000, 65536} {
		message := frame(fin|text, strings.Repeat("x", size))
		answer := make([]byte, len(message)-4) // it has no masking key
		run := func(b *testing.B, conn net.Conn) {
			b.SetBytes(int64(size))
			for b.Loop() {
				if _, err := conn.Write(message); err != nil {
					b.Fatal(err)
				}
				if _, err := io.ReadFull(conn, answer); err != nil {
					b.Fatal(err)
				}
			}
		}
		b.Run("memory/"+fmt.Sprint(size), func(b *testing.B) {
			e := gatewaytest.Endpoint(b, "test", gateway.EndpointOptions{Logic: echoing{}, Logger: slog.New(slog.DiscardHandler)})
			run(b, dialRaw(b, gatewaytest.Serve(b, e)).Conn)
		})
		b.Run("TCP/"+fmt.Sprint(size), func(b *testing.B) {
			g := newGateway(b, gateway.Options{})
			e := gatewaytest.Endpoint(b, "test", gateway.EndpointOptions{Logic: echoing{}, Logger: slog.New(slog.DiscardHandler)})
			if err := g.Serve(e); err != nil {
				b.Fatal(err)
			}
			server := httptest.NewServer(e)
			defer server.Close()
			var dialer net.Dialer
			conn, err := dialer.DialContext(b.Context(), "tcp", server.Listener.Addr().String())
			if err != nil {
				b.Fatal(err)
			}
			defer conn.Close()
			p := &rawPeer{conn, b, bufio.NewReader(conn)}
			p.send([]byte(upgradeRequest))
			p.wantUpgrade()
			run(b, conn)
		})
	}
}

// echoing is echo without a record of it.
type echoing struct{ gateway.NopLogic }

func (echoing) OnMessage(c *gateway.Client, m gateway.Message) error { return c.Send(m) }
