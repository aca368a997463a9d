package gateway_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
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

// request returns the handshake with lines changed: "-Name" leaves a field out,
// "+Name: value" adds a line, "Name: value" replaces the field, and what is no
// field replaces the request line.
func request(changes ...string) string {
	lines := strings.Split(strings.TrimSuffix(upgradeRequest, "\r\n\r\n"), "\r\n")
	field := func(name string) int {
		return slices.IndexFunc(lines, func(l string) bool { return strings.HasPrefix(l, name+":") })
	}
	for _, c := range changes {
		name, _, isField := strings.Cut(c, ": ")
		switch {
		case strings.HasPrefix(c, "-"):
			lines = slices.Delete(lines, field(c[1:]), field(c[1:])+1)
		case strings.HasPrefix(c, "+"):
			lines = append(lines, c[1:])
		case !isField:
			lines[0] = c
		default:
			lines[field(name)] = c
		}
	}
	return strings.Join(lines, "\r\n") + "\r\n\r\n"
}

// serveWith serves an endpoint "test" with these options.
func serveWith(t testing.TB, o gateway.EndpointOptions) *gatewaytest.Server {
	t.Helper()
	return gatewaytest.Serve(t, gatewaytest.Endpoint(t, "test", o))
}

// answerTo sends a request on a connection of its own and returns the answer.
func answerTo(t testing.TB, s *gatewaytest.Server, raw string) *http.Response {
	t.Helper()
	p := connectRaw(t, s)
	p.send([]byte(raw))
	resp := p.response()
	if resp.StatusCode != http.StatusSwitchingProtocols {
		if _, err := io.ReadAll(resp.Body); err != nil {
			t.Errorf("reading the body of %s: %v", resp.Status, err)
		}
	}
	return resp
}

// RFC 6455 section 4.2.1, and DESIGN section 4 on which status says what.
func TestWhatIsNoHandshakeIsRefused(t *testing.T) {
	const key = "Sec-WebSocket-Key"
	for _, tt := range []struct {
		name   string
		raw    string
		status int
		header string // that the answer must have
	}{
		{"POST", request("POST /test HTTP/1.1"), 400, ""},
		{"HEAD", request("HEAD /test HTTP/1.1"), 400, ""},
		{"PUT", request("PUT /test HTTP/1.1"), 400, ""},
		// RFC 9110 section 7.8: Upgrade means nothing in HTTP/1.0.
		{"HTTP/1.0", request("GET /test HTTP/1.0"), 400, ""},

		{"no Upgrade", request("-Upgrade"), 426, "Upgrade: websocket"},
		{"Upgrade to something else", request("Upgrade: h2c"), 426, "Upgrade: websocket"},
		{"Upgrade to a version", request("Upgrade: websocket/13"), 426, "Upgrade: websocket"},
		{"Upgrade that only begins so", request("Upgrade: websockets"), 426, "Upgrade: websocket"},
		{"plain GET", "GET /test HTTP/1.1\r\nHost: gateway.test\r\n\r\n", 426, "Upgrade: websocket"},
		{"plain POST", "POST /test HTTP/1.1\r\nHost: gateway.test\r\nContent-Length: 3\r\n\r\nabc", 426, "Upgrade: websocket"},

		{"no Connection", request("-Connection"), 400, ""},
		{"Connection: keep-alive", request("Connection: keep-alive"), 400, ""},
		{"Connection: close", request("Connection: close"), 400, ""},
		{"Connection that only begins so", request("Connection: upgraded"), 400, ""},

		{"no version", request("-Sec-WebSocket-Version"), 426, "Sec-WebSocket-Version: 13"},
		{"empty version", request("Sec-WebSocket-Version: "), 426, "Sec-WebSocket-Version: 13"},
		{"version 8", request("Sec-WebSocket-Version: 8"), 426, "Sec-WebSocket-Version: 13"},
		{"version 14", request("Sec-WebSocket-Version: 14"), 426, "Sec-WebSocket-Version: 13"},
		{"version 013", request("Sec-WebSocket-Version: 013"), 426, "Sec-WebSocket-Version: 13"},
		// RFC 9110 section 15.5.22: every 426 says what to upgrade to.
		{"version 8, and the 426 is complete", request("Sec-WebSocket-Version: 8"), 426, "Upgrade: websocket"},

		{"no key", request("-" + key), 400, ""},
		{"empty key", request(key + ": "), 400, ""},
		{"15 bytes of key", request(key + ": MTIzNDU2Nzg5MDEyMzQ1"), 400, ""},
		{"17 bytes of key", request(key + ": MTIzNDU2Nzg5MDEyMzQ1Njc="), 400, ""},
		{"key without padding", request(key + ": dGhlIHNhbXBsZSBub25jZQ"), 400, ""},
		{"key that is not base64", request(key + ": dGhlIHNhbXBsZSBub25j**=="), 400, ""},
		{"key in base64 for URLs", request(key + ": ______________________=="), 400, ""},
		{"key twice", request("+" + key + ": dGhlIHNhbXBsZSBub25jZQ=="), 400, ""},
		{"key in a list", request(key + ": dGhlIHNhbXBsZSBub25jZQ==, dGhlIHNhbXBsZSBub25jZQ=="), 400, ""},

		{"body", request("+Content-Length: 3") + "abc", 400, ""},
		{"body in chunks", request("+Transfer-Encoding: chunked") + "3\r\nabc\r\n0\r\n\r\n", 400, ""},
		{"empty body in chunks", request("+Transfer-Encoding: chunked") + "0\r\n\r\n", 400, ""},
		// A body that is announced and never sent is net/http's to wait for: it reads
		// the rest of a request before it answers, until its ReadTimeout.

		{"Origin elsewhere", request("+Origin: https://evil.example"), 403, ""},
		{"Origin: null", request("+Origin: null"), 403, ""},
		{"two Origins", request("+Origin: http://gateway.test", "+Origin: http://gateway.test"), 403, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				logic := &gatewaytest.Recorder{}
				s := gatewaytest.ServeLogic(t, logic)
				p := connectRaw(t, s)
				p.send([]byte(tt.raw))
				resp := p.response()
				if resp.StatusCode != tt.status {
					t.Errorf("answered with %s, want %d", resp.Status, tt.status)
				}
				name, value, _ := strings.Cut(tt.header, ": ")
				if got := resp.Header.Get(name); name != "" && got != value {
					t.Errorf("the answer's %s is %q, want %q", name, got, value)
				}
				_ = p.Close()
				synctest.Wait()
				if events := logic.Events(); len(events) != 0 {
					t.Errorf("the logic was called: %q", events)
				}
				wantCount(t, s.Gateway, gateway.All(), 0)
			})
		})
	}
}

// Header lists come in any case, in several lines and beside other tokens (RFC
// 9110 sections 5.3 and 5.6.1); Firefox sends "keep-alive, Upgrade".
func TestHandshakesInOtherWordsAreAccepted(t *testing.T) {
	for _, tt := range []struct{ name, raw string }{
		{"the RFC's", request()},
		{"Firefox", request("Connection: keep-alive, Upgrade")},
		{"odd case", request("Upgrade: WebSocket", "Connection: uPgRaDe")},
		{"names in odd case", strings.NewReplacer("Sec-WebSocket", "sEc-wEbSoCkEt", "Upgrade: w", "UPGRADE: w").Replace(request())},
		{"empty list items", request("Connection: ,, upgrade ,")},
		{"tabs and no blanks", request("Connection: a,\tupgrade\t,b")},
		{"several Connection lines", request("Connection: keep-alive", "+Connection: Upgrade")},
		{"several Upgrade lines", request("Upgrade: h2c", "+Upgrade: websocket")},
		{"Upgrade in a list", request("Upgrade: h2c, websocket")},
		{"Content-Length: 0", request("+Content-Length: 0")},
		{"an extension that is not spoken", request("+Sec-WebSocket-Extensions: x-webkit-deflate-frame, foo; bar=1")},
		{"broken extensions", request("+Sec-WebSocket-Extensions: ;;=,\"")},
		{"absolute target", request("GET http://gateway.test/test HTTP/1.1")},
		{"query", request("GET /test?room=1 HTTP/1.1")},
		// Not strict: the field is one number, and this takes a list that has it.
		{"list of versions with 13", request("Sec-WebSocket-Version: 8, 13")},
		{"two lines of versions", request("Sec-WebSocket-Version: 8", "+Sec-WebSocket-Version: 13")},
		// Not strict: the last two bits of the last digit are not looked at.
		{"key with spare bits set", request("-Sec-WebSocket-Key", "+Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZR==")},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := gatewaytest.ServeLogic(t, &gatewaytest.Recorder{Message: echo})
				p := connectRaw(t, s)
				p.send([]byte(tt.raw))
				resp := p.response()
				if resp.StatusCode != http.StatusSwitchingProtocols {
					t.Fatalf("answered with %s", resp.Status)
				}
				for _, none := range []string{"Sec-WebSocket-Extensions", "Sec-WebSocket-Protocol", "Content-Length", "Transfer-Encoding"} {
					if v, ok := resp.Header[http.CanonicalHeaderKey(none)]; ok {
						t.Errorf("the answer has %s: %q", none, v)
					}
				}
				if u, c := resp.Header.Get("Upgrade"), resp.Header.Get("Connection"); u != "websocket" || !strings.EqualFold(c, "upgrade") {
					t.Errorf("the answer has Upgrade %q, Connection %q", u, c)
				}
				p.send(frame(fin|text, "x"))
				p.want("text x")
			})
		})
	}
}

// net/http answers with "Connection: close" if the request or the server says
// that the connection ends, as during a Shutdown for a reload. No client would
// take that for an upgrade.
func TestConnectionOfTheAnswerIsUpgrade(t *testing.T) {
	t.Run("the request says close, too", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := gatewaytest.ServeLogic(t, &gatewaytest.Recorder{Message: echo})
			wantUpgradeHeader(t, answerTo(t, s, request("Connection: close, Upgrade")))
		})
	})
	t.Run("the HTTP server is shutting down", func(t *testing.T) {
		inside, goOn := make(chan struct{}), make(chan struct{})
		logic := &gatewaytest.Recorder{Connect: func(*gateway.Client, *http.Request) error {
			close(inside)
			<-goOn
			return nil
		}}
		g := newGateway(t, gateway.Options{})
		e := gatewaytest.Endpoint(t, "test", gateway.EndpointOptions{Logic: logic})
		if err := g.Serve(e); err != nil {
			t.Fatal(err)
		}
		server := httptest.NewServer(e)
		defer server.Close()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		req.Header = http.Header{
			"Upgrade": {"websocket"}, "Connection": {"Upgrade"},
			"Sec-Websocket-Version": {"13"}, "Sec-Websocket-Key": {"dGhlIHNhbXBsZSBub25jZQ=="},
		}
		go func() {
			<-inside
			server.Config.SetKeepAlivesEnabled(false) // the first thing that Shutdown amounts to
			close(goOn)
		}()
		resp, err := http.DefaultTransport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		wantUpgradeHeader(t, resp)
	})
}

func wantUpgradeHeader(t *testing.T, resp *http.Response) {
	t.Helper()
	if c := resp.Header.Values("Connection"); resp.StatusCode != 101 || len(c) != 1 || !strings.EqualFold(c[0], "upgrade") {
		t.Errorf("answered with %s, Connection %q, want 101 and Upgrade", resp.Status, c)
	}
}

func TestSubprotocolIsTheServersFirstChoice(t *testing.T) {
	for _, tt := range []struct {
		name    string
		server  []string
		offered []string // a header line each
		want    string   // "" is no header
	}{
		{"none spoken, none offered", nil, nil, ""},
		{"none spoken", nil, []string{"chat.v1"}, ""},
		{"none offered", []string{"chat.v2", "chat.v1"}, nil, ""},
		{"the only one", []string{"chat.v1"}, []string{"chat.v1"}, "chat.v1"},
		{"server's order", []string{"chat.v2", "chat.v1"}, []string{"chat.v1, chat.v2"}, "chat.v2"},
		{"several lines", []string{"chat.v2", "chat.v1"}, []string{"chat.v1", "chat.v2"}, "chat.v2"},
		{"none shared", []string{"chat.v2"}, []string{"chat.v1, other"}, ""},
		{"case matters", []string{"chat"}, []string{"Chat"}, ""},
		{"no prefix match", []string{"chat"}, []string{"chat.v1"}, ""},
		{"blanks", []string{"b"}, []string{"a ,  b\t, c"}, "b"},
		{"empty field", []string{"b"}, []string{""}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				logic := &gatewaytest.Recorder{}
				s := serveWith(t, gateway.EndpointOptions{Logic: logic, Subprotocols: tt.server})
				var lines []string
				for _, o := range tt.offered {
					lines = append(lines, "+Sec-WebSocket-Protocol: "+o)
				}
				resp := answerTo(t, s, request(lines...))
				got, has := resp.Header["Sec-Websocket-Protocol"]
				if has != (tt.want != "") || has && !slices.Equal(got, []string{tt.want}) {
					t.Errorf("answered %s with %q, want %q", resp.Status, got, tt.want)
				}
				if p := logic.Client(t, 0).Subprotocol(); p != tt.want {
					t.Errorf("the client has the subprotocol %q, want %q", p, tt.want)
				}
			})
		})
	}
}

func TestSubprotocolThatIsNoTokenIsAConfigurationError(t *testing.T) {
	for _, p := range []string{"", " ", "a b", "a,b", "a/b", "chat\n", "\"x\"", "\u4f60", "a\x00", "(a)"} {
		if _, err := gateway.NewEndpoint("test", gateway.EndpointOptions{Subprotocols: []string{"good", p}}); err == nil {
			t.Errorf("the subprotocol %q was accepted", p)
		}
	}
}

func TestEndpointThatIsFullIs503(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		logic := &gatewaytest.Recorder{}
		s := serveWith(t, gateway.EndpointOptions{Logic: logic, MaxClients: 2})
		first, second := s.Dial("/test", "From-IP: 192.0.2.1"), s.Dial("/test", "From-IP: 192.0.2.2")
		if resp := s.Refused(http.StatusServiceUnavailable, "/test"); resp.Header.Get("Retry-After") == "" {
			t.Error("the refusal has no Retry-After")
		}
		if n := len(logic.Events()); n != 2 {
			t.Errorf("%d events, want 2: OnConnect must not see who is refused", n)
		}
		first.Close(1000, "")
		first.WantClose(1000)
		synctest.Wait()
		s.Dial("/test")
		s.Refused(http.StatusServiceUnavailable, "/test")
		second.Cut()
		synctest.Wait()
		s.Dial("/test")
		s.Refused(http.StatusServiceUnavailable, "/test")
	})
}

// upgradeAs serves e with the address that the field X-IP says, as a server in
// front would.
func upgradeAs(e *gateway.Endpoint) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, err := e.Upgrade(w, r, gateway.Identity{RealIP: r.Header.Get("X-IP")})
		if refused, ok := errors.AsType[*gateway.HandshakeError](err); ok {
			maps.Copy(w.Header(), refused.Header)
			w.WriteHeader(refused.Status)
		}
	})
}

// newGateway is a gateway that is shut down with the test.
func newGateway(t testing.TB, o gateway.Options) *gateway.Gateway {
	t.Helper()
	if o.Logger == nil {
		o.Logger = gatewaytest.Logger(t)
	}
	g, err := gateway.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		if err := g.Shutdown(ctx); err != nil {
			t.Errorf("shutting down the gateway: %v", err)
		}
	})
	return g
}

func TestTooManyFromOneAddressIs429(t *testing.T) {
	for _, tt := range []struct {
		name         string
		there, comes string
		refused      bool
	}{
		{"same IPv4", "192.0.2.7", "192.0.2.7", true},
		{"neighbour in IPv4", "192.0.2.7", "192.0.2.8", false},
		{"IPv4 and the same mapped into IPv6", "192.0.2.7", "::ffff:192.0.2.7", true},
		{"mapped, written in hexadecimal", "::ffff:192.0.2.7", "::ffff:c000:207", true},
		{"mapped neighbours", "::ffff:192.0.2.7", "::ffff:192.0.2.8", false},
		{"same IPv6", "2001:db8::1", "2001:db8::1", true},
		{"same IPv6, written otherwise", "2001:db8::1", "2001:0DB8:0:0:0:0:0:1", true},
		{"same /64", "2001:db8:0:1::1", "2001:db8:0:1:ffff:ffff:ffff:ffff", true},
		{"another /64", "2001:db8:0:1::1", "2001:db8:0:2::1", false},
		{"neighbouring /64 in one /63", "2001:db8:0:2::1", "2001:db8:0:3::1", false},
		{"link-local with other zones", "fe80::1%eth0", "fe80::2%eth1", true},
		{"compatible, not mapped", "192.0.2.7", "::192.0.2.7", false},
		{"address not known", "", "", false},
		{"no address", "unix", "unix", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := newGateway(t, gateway.Options{})
				e := gatewaytest.Endpoint(t, "test", gateway.EndpointOptions{MaxClientsPerIP: 2})
				if err := g.Serve(e); err != nil {
					t.Fatal(err)
				}
				s := gatewaytest.ServeHandler(t, upgradeAs(e))
				s.Dial("/test", "X-IP: "+tt.there)
				last := s.Dial("/test", "X-IP: "+tt.there)
				if !tt.refused {
					s.Dial("/test", "X-IP: "+tt.comes)
					return
				}
				resp := s.Refused(http.StatusTooManyRequests, "/test", "X-IP: "+tt.comes)
				if resp.Header.Get("Retry-After") == "" {
					t.Error("the refusal has no Retry-After")
				}
				last.Cut()
				synctest.Wait()
				s.Dial("/test", "X-IP: "+tt.comes)
				s.Refused(http.StatusTooManyRequests, "/test", "X-IP: "+tt.there)
			})
		})
	}
}

// A limit that forgets to count down closes an endpoint for good.
func TestLimitsAreFreeAgainAfterEveryEnd(t *testing.T) {
	const other = "From-IP: 198.51.100.1"
	for name, refuse := range map[string]func(*gateway.Client) error{
		"error":           func(*gateway.Client) error { return errors.New("no") },
		"handshake error": func(*gateway.Client) error { return &gateway.HandshakeError{Status: 401} },
		"panic":           func(*gateway.Client) error { panic("boom") },
		"send, then refuse": func(c *gateway.Client) error {
			_ = c.Send(gateway.Text("never seen"))
			return errors.New("no")
		},
		"close, then refuse": func(c *gateway.Client) error {
			_ = c.Close(4000, "never seen")
			return errors.New("no")
		},
		"join and bind, then refuse": func(c *gateway.Client) error {
			return errors.Join(c.Join("g"), c.Bind("u"), errors.New("no"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				logic := &gatewaytest.Recorder{Connect: func(c *gateway.Client, r *http.Request) error {
					if r.URL.Query().Has("refuse") {
						return refuse(c)
					}
					return nil
				}}
				s := serveWith(t, gateway.EndpointOptions{Logic: logic, MaxClients: 1, MaxClientsPerIP: 1})
				for range 3 {
					resp := answerTo(t, s, request("GET /test?refuse HTTP/1.1"))
					if resp.StatusCode < 400 || resp.StatusCode == 429 || resp.StatusCode == 503 {
						t.Fatalf("answered with %s", resp.Status)
					}
				}
				c := s.Dial("/test")
				s.Refused(http.StatusServiceUnavailable, "/test", other)
				c.Cut()
				synctest.Wait()
				wantCount(t, s.Gateway, gateway.All(), 0)
				groups, err := s.Gateway.Groups(t.Context(), gateway.NameQuery{})
				if err != nil || len(groups.Names) != 0 {
					t.Errorf("groups are left: %v (%v)", groups, err)
				}
				s.Dial("/test")
			})
		})
	}
}

// What OnConnect did to a client that it then refuses must not be seen.
func TestRefusedClientIsSentNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var client *gateway.Client
		logic := &gatewaytest.Recorder{Connect: func(c *gateway.Client, _ *http.Request) error {
			client = c
			c.Header().Set("Set-Cookie", "session=secret")
			return errors.Join(c.Send(gateway.Text("secret")), errors.New("no"))
		}}
		s := gatewaytest.ServeLogic(t, logic)
		p := connectRaw(t, s)
		p.send([]byte(request()))
		resp := p.response()
		body, _ := io.ReadAll(resp.Body)
		if resp.StatusCode != http.StatusForbidden || resp.Header.Get("Set-Cookie") != "" || strings.Contains(string(body), "secret") {
			t.Errorf("refused with %s, %v and %q", resp.Status, resp.Header, body)
		}
		p.wantNothing()
		if err := client.Send(gateway.Text("late")); !errors.Is(err, gateway.ErrClosed) {
			t.Errorf("sending to a refused client: %v, want ErrClosed", err)
		}
		if client.Context().Err() == nil {
			t.Error("the context of a refused client is not done")
		}
		logic.Want(t, "connect")
	})
}

func TestPanicInOnConnectIs500(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &gatewaytest.Log{}
		logic := &gatewaytest.Recorder{Connect: func(_ *gateway.Client, r *http.Request) error {
			if r.URL.RawQuery == "" {
				panic(http.ErrAbortHandler)
			}
			return nil
		}}
		s := serveWith(t, gateway.EndpointOptions{Logic: logic, Logger: log.Logger()})
		s.Refused(http.StatusInternalServerError, "/test")
		wantAttrs(t, log.Wait(t, "panic in the logic"), map[string]any{"callback": "OnConnect", "endpoint": "test", "client_ip": gatewaytest.DefaultIP})
		s.Dial("/test?ok")
		logic.Want(t, "connect", "connect") // and no OnClose
	})
}

func TestStatusOfAHandshakeErrorIsAnErrors(t *testing.T) {
	for status, want := range map[int]int{0: 403, 100: 403, 101: 403, 200: 403, 302: 403, 399: 403, 400: 400, 401: 401, 418: 418, 599: 599, 600: 403, -1: 403} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := gatewaytest.ServeLogic(t, &gatewaytest.Recorder{Connect: func(*gateway.Client, *http.Request) error {
					return &gateway.HandshakeError{Status: status, Header: http.Header{"X-Why": {"because"}}, Err: errors.New("a secret")}
				}})
				resp := answerTo(t, s, request())
				if resp.StatusCode != want || resp.Header.Get("X-Why") != "because" {
					t.Errorf("refused with %s and %v, want %d", resp.Status, resp.Header, want)
				}
			})
		})
	}
}

// Closing is the way to tell a browser why, since it shows no status of a
// refused handshake.
func TestCloseInOnConnectFollowsTheHandshake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		logic := &gatewaytest.Recorder{Connect: func(c *gateway.Client, _ *http.Request) error {
			return errors.Join(c.Send(gateway.Text("sorry")), c.Close(4001, "banned"))
		}}
		s := gatewaytest.ServeLogic(t, logic)
		p := dialRaw(t, s, frame(fin|text, "hello"))
		p.want("text sorry", "close 4001 banned")
		p.send(frame(fin|closes, closing(4001, "")))
		p.want("end")
		logic.Want(t, "connect", "close 4001 banned")
	})
}

func TestFirstFrameInTheHandshakesPacketIsHandledAfterOnConnect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		logic := &gatewaytest.Recorder{Message: echo, Connect: func(c *gateway.Client, _ *http.Request) error {
			time.Sleep(10 * time.Second)
			return c.Send(gateway.Text("first"))
		}}
		s := gatewaytest.ServeLogic(t, logic)
		big := strings.Repeat("x", 50_000) // more than net/http has read with the request
		p := dialRaw(t, s, frame(fin|text, "tom"), frame(fin|ping, "p"), frame(fin|binry, big))
		seen := []string{p.next(), p.next(), p.next(), p.next()}
		ponged := slices.Index(seen, "pong p") // it may overtake
		if ponged < 0 || ponged == 3 {
			t.Fatalf("received %.300q, want the pong before the answer to what follows it", seen)
		}
		seen = slices.Delete(seen, ponged, ponged+1)
		if want := []string{"text first", "text tom", "binary " + short(big)}; !slices.Equal(seen, want) {
			t.Errorf("received %.300q, want %.300q", seen, want)
		}
	})
}

func TestSlowHandshakesDisturbNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serveWith(t, gateway.EndpointOptions{Logic: &gatewaytest.Recorder{Message: echo}, MaxClients: 2})
		for cut := range len(upgradeRequest) { // 150 and more, and none of them counts
			connectRaw(t, s).send([]byte(upgradeRequest[:cut]))
		}
		slow := connectRaw(t, s)
		for i := range len(upgradeRequest) {
			slow.send([]byte(upgradeRequest[i : i+1]))
			time.Sleep(100 * time.Millisecond)
		}
		slow.wantUpgrade()
		c := s.Dial("/test")
		c.Send("1")
		c.Want("1")
		slow.send(frame(fin|text, "2"))
		slow.want("text 2")
	})
}

// Who hangs up during OnConnect is noticed soon after, and OnClose still comes.
func TestPeerThatLeavesDuringOnConnectIsClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		logic := &gatewaytest.Recorder{Connect: func(*gateway.Client, *http.Request) error {
			time.Sleep(10 * time.Second)
			return nil
		}}
		s := serveWith(t, gateway.EndpointOptions{Logic: logic, MaxClients: 1})
		p := connectRaw(t, s)
		p.send([]byte(upgradeRequest))
		synctest.Wait()
		_ = p.Close()
		time.Sleep(20 * time.Second)
		events := logic.Events()
		if len(events) != 2 || events[0] != "connect" || !strings.HasPrefix(events[1], "close 1006") {
			t.Errorf("events %q, want connect and close 1006", events)
		}
		wantCount(t, s.Gateway, gateway.All(), 0)
		p = connectRaw(t, s)
		p.send([]byte(upgradeRequest))
		p.response()
	})
}

func TestEndpointThatIsNotServedIs503(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := gatewaytest.ServeHandler(t, gatewaytest.Endpoint(t, "test", gateway.EndpointOptions{}))
		if resp := s.Refused(http.StatusServiceUnavailable, "/test"); resp.Header.Get("Retry-After") == "" {
			t.Error("the refusal has no Retry-After")
		}
	})
}

// A program that listens before it calls Serve must meet no data race.
func TestHandshakesMayComeWhileServeRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGateway(t, gateway.Options{})
		e := gatewaytest.Endpoint(t, "test", gateway.EndpointOptions{})
		for range 4 {
			go func() {
				r := httptest.NewRequest(http.MethodGet, "/test", http.NoBody)
				r.Header = http.Header{
					"Upgrade": {"websocket"}, "Connection": {"Upgrade"},
					"Sec-Websocket-Version": {"13"}, "Sec-Websocket-Key": {"dGhlIHNhbXBsZSBub25jZQ=="},
				}
				e.ServeHTTP(httptest.NewRecorder(), r) // 500 or 503, as there is no connection
			}()
		}
		if err := g.Serve(e); err != nil {
			t.Error(err)
		}
		synctest.Wait()
	})
}

// prepared is an endpoint of a generation that is not in force yet, served.
func prepared(t *testing.T, o gateway.EndpointOptions) (*gatewaytest.Server, *gateway.Generation, *gateway.Gateway) {
	t.Helper()
	g := newGateway(t, gateway.Options{})
	gen, err := g.Prepare(gateway.Options{})
	if err != nil {
		t.Fatal(err)
	}
	e := gatewaytest.Endpoint(t, "test", o)
	if err := gen.Add(e); err != nil {
		t.Fatal(err)
	}
	return gatewaytest.ServeHandler(t, e), gen, g
}

// New servers of a reload accept connections a moment before the new
// configuration is in force.
func TestHandshakeWaitsForItsGeneration(t *testing.T) {
	t.Run("committed", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			logic := &gatewaytest.Recorder{Message: echo}
			s, gen, _ := prepared(t, gateway.EndpointOptions{Logic: logic})
			p := connectRaw(t, s)
			p.send(append([]byte(upgradeRequest), frame(fin|text, "early")...))
			time.Sleep(10 * time.Second)
			p.wantNothing()
			if events := logic.Events(); len(events) != 0 {
				t.Errorf("events before the commit: %q", events)
			}
			if err := gen.Commit(); err != nil {
				t.Fatal(err)
			}
			p.wantUpgrade()
			p.want("text early")
		})
	})
	t.Run("closed", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			logic := &gatewaytest.Recorder{}
			s, gen, _ := prepared(t, gateway.EndpointOptions{Logic: logic})
			p := connectRaw(t, s)
			p.send([]byte(upgradeRequest))
			synctest.Wait()
			gen.Close()
			if resp := p.response(); resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") == "" {
				t.Errorf("answered with %s and %v, want 503 with Retry-After", resp.Status, resp.Header)
			}
			if events := logic.Events(); len(events) != 0 {
				t.Errorf("events of a generation that was dropped: %q", events)
			}
		})
	})
	t.Run("the visitor does not wait", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			logic := &gatewaytest.Recorder{}
			s, gen, g := prepared(t, gateway.EndpointOptions{Logic: logic, MaxClients: 1})
			p := connectRaw(t, s)
			p.send([]byte(upgradeRequest))
			synctest.Wait()
			_ = p.Close()
			synctest.Wait()
			if err := gen.Commit(); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			if events := logic.Events(); len(events) != 0 {
				t.Errorf("events of a visitor who has gone: %q", events)
			}
			wantCount(t, g, gateway.All(), 0)
			dialRaw(t, s)
		})
	})
	t.Run("the gateway is shut down", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s, _, g := prepared(t, gateway.EndpointOptions{})
			p := connectRaw(t, s)
			p.send([]byte(upgradeRequest))
			synctest.Wait()
			if err := g.Shutdown(t.Context()); err != nil {
				t.Fatal(err)
			}
			if resp := p.response(); resp.StatusCode != http.StatusServiceUnavailable {
				t.Errorf("answered with %s, want 503", resp.Status)
			}
		})
	})
	t.Run("its logic fails to start", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s, gen, _ := prepared(t, gateway.EndpointOptions{Logic: failsToStart{}})
			p := connectRaw(t, s)
			p.send([]byte(upgradeRequest))
			synctest.Wait()
			if err := gen.Commit(); err == nil {
				t.Error("Commit returned no error")
			}
			if resp := p.response(); resp.StatusCode != http.StatusServiceUnavailable {
				t.Errorf("answered with %s, want 503", resp.Status)
			}
		})
	})
}

type failsToStart struct{ gateway.NopLogic }

func (failsToStart) OnStart(*gateway.Gateway) error { return errors.New("no database") }

func TestHandshakeDuringShutdownIs503(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		logic := &gatewaytest.Recorder{Closed: func(*gateway.Client, gateway.CloseReason) { <-release }}
		s := gatewaytest.ServeLogic(t, logic)
		c := s.Dial("/test")
		done := make(chan error, 1)
		go func() { done <- s.Gateway.Shutdown(context.Background()) }()
		c.WantClose(gateway.CloseGoingAway)
		_ = c.Net.Close()
		if resp := s.Refused(http.StatusServiceUnavailable, "/test"); resp.Header.Get("Retry-After") == "" {
			t.Error("the refusal has no Retry-After")
		}
		close(release)
		if err := <-done; err != nil {
			t.Error(err)
		}
		s.Refused(http.StatusServiceUnavailable, "/test") // and afterwards
		logic.Want(t, "connect", "close 1001 server is shutting down")
	})
}

// A handshake whose OnConnect is running when the shutdown begins ends like any
// other client.
func TestClientInOnConnectAtShutdownIsClosed1001(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		logic := &gatewaytest.Recorder{Connect: func(*gateway.Client, *http.Request) error {
			time.Sleep(5 * time.Second)
			return nil
		}}
		s := gatewaytest.ServeLogic(t, logic)
		p := connectRaw(t, s)
		p.send([]byte(upgradeRequest))
		synctest.Wait()
		done := make(chan error, 1)
		go func() { done <- s.Gateway.Shutdown(context.Background()) }()
		p.wantUpgrade()
		p.want("close 1001")
		_ = p.Close()
		if err := <-done; err != nil {
			t.Error(err)
		}
		logic.Want(t, "connect", "close 1001 server is shutting down")
	})
}

func TestIdentityThatCannotBeKeptIs400(t *testing.T) {
	var many []string
	for i := range gateway.MaxGroupsPerClient + 1 {
		many = append(many, fmt.Sprint("g", i))
	}
	for name, id := range map[string]gateway.Identity{
		"long user":       {User: strings.Repeat("u", gateway.MaxNameLength+1)},
		"user not UTF-8":  {User: "\xff"},
		"empty group":     {Groups: []string{"good", ""}},
		"long group":      {Groups: []string{strings.Repeat("g", gateway.MaxNameLength+1)}},
		"too many groups": {User: "tom", Groups: many},
		"large session":   {Session: map[string]any{"x": strings.Repeat("s", gateway.MaxSessionSize)}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				logic := &gatewaytest.Recorder{}
				g := newGateway(t, gateway.Options{})
				e := gatewaytest.Endpoint(t, "test", gateway.EndpointOptions{Logic: logic, MaxClients: 1})
				if err := g.Serve(e); err != nil {
					t.Fatal(err)
				}
				s := gatewaytest.ServeHandler(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if r.URL.RawQuery == "good" {
						e.ServeHTTP(w, r)
						return
					}
					_, err := e.Upgrade(w, r, id)
					if refused, ok := errors.AsType[*gateway.HandshakeError](err); ok {
						w.WriteHeader(refused.Status)
					}
				}))
				s.Refused(http.StatusBadRequest, "/test")
				s.Refused(http.StatusBadRequest, "/test")
				s.Dial("/test?good") // the limit is free
				users, err := g.Users(t.Context(), gateway.NameQuery{})
				if err != nil || len(users.Names) != 0 {
					t.Errorf("users are left: %v (%v)", users, err)
				}
				logic.Want(t, "connect")
			})
		})
	}
}
