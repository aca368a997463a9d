package websocket_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/caddy-websocket/caddy-websocket/caddymodule/websocket"
	"github.com/caddy-websocket/caddy-websocket/gateway"
)

// Cookies and tokens can be long: Caddy refuses more than 16 KiB of them, and what
// it says must be known (docs/engine.md).
func TestHandshakeWithMoreThan16KiBOfHeaderIs431(t *testing.T) {
	s := start(t, "HTTP {\n websocket /ws {\n logic echo\n}\n}\n")
	s.dial("ws:/ws", "Cookie: "+strings.Repeat("x", 15<<10)).ask("tom", "tom")
	s.refused(http.StatusRequestHeaderFieldsTooLarge, "ws:/ws", "Cookie: "+strings.Repeat("x", 24<<10))
}

// Load balancers of a provider come from addresses that are neither private nor
// anybody's.
func TestAddressesThatNoVisitorHas(t *testing.T) {
	for address, want := range map[string]bool{
		"10.1.2.3": true, "192.168.1.1": true, "127.0.0.1": true, "::1": true, "fd00::1": true, "fe80::1": true,
		"100.64.0.1": true, "100.127.255.255": true, "::ffff:10.0.0.1": true,
		"100.128.0.1": false, "203.0.113.9": false, "2001:db8::1": false,
	} {
		if got := websocket.IsInternal(netip.MustParseAddr(address)); got != want {
			t.Errorf("%s is internal: %v, want %v", address, got, want)
		}
	}
}

// The promise of the README: one process answers over TLS.
func TestMessageIsAnsweredOverTLS(t *testing.T) {
	s := start(t, `HTTPS {
		websocket /ws {
			logic echo
		}
	}`)
	c := s.dial("wss:/ws")
	c.ask("tom", "tom")
	conn, ok := c.NetConn().(*tls.Conn)
	if !ok || conn.ConnectionState().Version != tls.VersionTLS13 {
		t.Errorf("the connection is a %T, want TLS 1.3", c.NetConn())
	}
}

// Whoever came from nginx looks for upgrades in the access log and in graphs:
// they must not be there as 0 or 200.
func TestAccessLogAndMetricsShow101(t *testing.T) {
	s := startWith(t, "metrics", `HTTP {
		log
		websocket /ws {
			logic echo
		}
	}`)
	s.dial("ws:/ws").ask("tom", "tom")
	s.log.wait(t, "handled request", "status", 101.0)
	if n := len(s.log.find("handled request")); n != 1 {
		t.Errorf("%d access log lines, want 1:\n%s", n, s.log)
	}
	s.waitFor("the metric of code 101", func() bool {
		return s.metric("caddy_http_request_duration_seconds_count", `code="101"`) == "1"
	})
	if got := s.metric("caddy_http_request_duration_seconds_count", `code="200"`); got != "0" {
		t.Errorf("%s requests with code 200, want none", got)
	}
}

// Middleware around the directive decorates answers. On a 101 it must work, too:
// sticky cookies and CORS headers are set this way. All of it together also
// shows, under the race detector, that nobody touches the connection after it
// was taken over.
func TestMiddlewareDecoratesThe101(t *testing.T) {
	s := startWith(t, "metrics", `HTTP {
		log
		encode
		header X-Plain now
		header >X-Deferred later
		header +Set-Cookie site=1
		header -Server
		websocket /ws {
			subprotocols chat.v2 chat.v1
			logic probe hello
		}
	}`)
	c := s.dial("ws:/ws", "Accept-Encoding: gzip", "Sec-WebSocket-Protocol: chat.v1")
	for name, want := range map[string]string{
		"X-Plain": "now", "X-Deferred": "later", "X-Logic": "hello",
		"Sec-WebSocket-Protocol": "chat.v1", "Upgrade": "websocket", "Content-Encoding": "", "Server": "",
	} {
		if got := c.resp.Header.Get(name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	cookies := c.resp.Header.Values("Set-Cookie")
	slices.Sort(cookies)
	if !slices.Equal(cookies, []string{"logic=1", "site=1"}) {
		t.Errorf("cookies %q, want those of the site and of the logic", cookies)
	}
	c.ask("tom", "tom")
	s.log.wait(t, "handled request", "status", 101.0)
	c.ask("still here", "still here")
	c.leave(1000, "")
	s.log.wait(t, "client gone")
}

// A request that lasts as long as its socket would hold the configuration that
// it came in under, and the gauge of requests would show sockets.
func TestServeHTTPReturnsAtOnce(t *testing.T) {
	ended := make(chan context.Context, 1)
	hook := func(_ *gateway.Client, r *http.Request) { ended <- r.Context() }
	probeConnect.Store(&hook)
	defer probeConnect.Store(nil)
	s := startWith(t, "metrics", `HTTP {
		websocket /ws {
			logic probe x
		}
	}`)
	c := s.dial("ws:/ws")
	<-(<-ended).Done()
	s.waitFor("no request in flight", func() bool { return s.metric("caddy_http_requests_in_flight") == "0" })
	c.ask("still here", "still here")
}

// A browser closes a connection whose server picks a subprotocol that it has not
// offered, or none where it insists.
func TestSubprotocolIsTheServersFirstThatIsOffered(t *testing.T) {
	s := start(t, `HTTP {
		websocket /ws {
			subprotocols chat.v2 chat.v1
			logic echo
		}
	}`)
	for offered, want := range map[string]string{
		"chat.v1":          "chat.v1",
		"chat.v1, chat.v2": "chat.v2",
		"chat.v3":          "",
		"":                 "",
	} {
		var header []string
		if offered != "" {
			header = []string{"Sec-WebSocket-Protocol: " + offered}
		}
		c := s.dial("ws:/ws", header...)
		if got := c.resp.Header.Get("Sec-WebSocket-Protocol"); got != want {
			t.Errorf("offered %q, got %q, want %q", offered, got, want)
		}
		_ = c.Close()
	}
}

// Who a visitor is comes from the login in front. What that leaves empty must
// not become a user "" or a room that all the nameless share.
func TestIdentityLinesWithEmptyPlaceholdersDoNothing(t *testing.T) {
	s := start(t, `HTTP {
		websocket /ws {
			user {query.user}
			join room:{query.room} everybody
			join {header.X-Team}:{query.room}
			session realIP {client_ip}
			session lang "{query.lang}"
			session greeting "hello {query.user}"
			session constant yes
			logic probe x
		}
	}`)
	for _, tt := range []struct{ query, user, groups, session string }{
		{"", "", "everybody", `{"constant":"yes","realIP":"127.0.0.1"}`},
		{"?room=&user=&lang=", "", "everybody", `{"constant":"yes","realIP":"127.0.0.1"}`},
		{"?room=a&user=tom&lang=de", "tom", "everybody room:a", `{"constant":"yes","greeting":"hello tom","lang":"de","realIP":"127.0.0.1"}`},
		{"?room=%7Bquery.user%7D&user=x", "x", "everybody room:{query.user}", `{"constant":"yes","greeting":"hello x","realIP":"127.0.0.1"}`},
	} {
		t.Run(tt.query, func(t *testing.T) {
			c := s.dial("ws:/ws" + tt.query)
			c.ask("user", tt.user)
			c.ask("groups", tt.groups)
			c.ask("session", tt.session)
		})
	}
	s.dial("ws:/ws?room=a", "X-Team: red").ask("groups", "everybody red:a room:a")
}

// A name that is too long, or no text, cannot be kept: the visitor is told so,
// and not let in without it.
func TestIdentityThatCannotBeKeptIs400(t *testing.T) {
	s := start(t, `HTTP {
		websocket /ws {
			user {query.user}
			join {query.room}
		}
	}`)
	s.refused(http.StatusBadRequest, "ws:/ws?user="+strings.Repeat("x", 256))
	s.refused(http.StatusBadRequest, "ws:/ws?room=%FF")
	s.dial("ws:/ws?user=" + strings.Repeat("x", 255))
}

// The real address is what the product is bought for. It comes from Caddy alone:
// what a visitor writes into headers counts only where a trusted proxy passes it
// on.
func TestRealIP(t *testing.T) {
	const (
		none   = ""
		other  = "trusted_proxies static 203.0.113.0/24\ntrusted_proxies_strict\n"
		lax    = "trusted_proxies static private_ranges\ntrusted_proxies_unix\n"
		strict = lax + "trusted_proxies_strict\n"
	)
	one := "X-Forwarded-For: 198.51.100.1"
	several := "X-Forwarded-For: 198.51.100.1, 198.51.100.2, 10.0.0.1"
	v6 := "X-Forwarded-For: 2001:db8::7"
	garbage := "X-Forwarded-For: <script>, nobody"
	realIP := "X-Real-IP: 198.51.100.3"
	headers := []string{"", one, several, v6, garbage, realIP}
	peers := []string{"IPv4", "IPv6", "unix", "PROXY v4", "PROXY v6"}

	for _, tt := range []struct {
		name, options string
		want          map[string][]string // by peer, in the order of headers
	}{
		{"no proxy is trusted", none, map[string][]string{
			"IPv4":     {"127.0.0.1", "127.0.0.1", "127.0.0.1", "127.0.0.1", "127.0.0.1", "127.0.0.1"},
			"IPv6":     {"::1", "::1", "::1", "::1", "::1", "::1"},
			"unix":     {"", "", "", "", "", ""},
			"PROXY v4": {"192.0.2.7", "192.0.2.7", "192.0.2.7", "192.0.2.7", "192.0.2.7", "192.0.2.7"},
			"PROXY v6": {"2001:db8::9", "2001:db8::9", "2001:db8::9", "2001:db8::9", "2001:db8::9", "2001:db8::9"},
		}},
		{"another proxy is trusted", other, map[string][]string{
			"IPv4":     {"127.0.0.1", "127.0.0.1", "127.0.0.1", "127.0.0.1", "127.0.0.1", "127.0.0.1"},
			"IPv6":     {"::1", "::1", "::1", "::1", "::1", "::1"},
			"unix":     {"", "", "", "", "", ""},
			"PROXY v4": {"192.0.2.7", "192.0.2.7", "192.0.2.7", "192.0.2.7", "192.0.2.7", "192.0.2.7"},
			"PROXY v6": {"2001:db8::9", "2001:db8::9", "2001:db8::9", "2001:db8::9", "2001:db8::9", "2001:db8::9"},
		}},
		{"trusted, not strict", lax, map[string][]string{ // the left-most, which anybody can write: the docs say so
			"IPv4":     {"127.0.0.1", "198.51.100.1", "198.51.100.1", "2001:db8::7", "127.0.0.1", "127.0.0.1"},
			"IPv6":     {"::1", "198.51.100.1", "198.51.100.1", "2001:db8::7", "::1", "::1"},
			"unix":     {"", "198.51.100.1", "198.51.100.1", "2001:db8::7", "", ""},
			"PROXY v4": {"192.0.2.7", "192.0.2.7", "192.0.2.7", "192.0.2.7", "192.0.2.7", "192.0.2.7"},
			"PROXY v6": {"2001:db8::9", "2001:db8::9", "2001:db8::9", "2001:db8::9", "2001:db8::9", "2001:db8::9"},
		}},
		{"trusted and strict", strict, map[string][]string{
			"IPv4":     {"127.0.0.1", "198.51.100.1", "198.51.100.2", "2001:db8::7", "127.0.0.1", "127.0.0.1"},
			"IPv6":     {"::1", "198.51.100.1", "198.51.100.2", "2001:db8::7", "::1", "::1"},
			"unix":     {"", "198.51.100.1", "198.51.100.2", "2001:db8::7", "", ""},
			"PROXY v4": {"192.0.2.7", "192.0.2.7", "192.0.2.7", "192.0.2.7", "192.0.2.7", "192.0.2.7"},
			"PROXY v6": {"2001:db8::9", "2001:db8::9", "2001:db8::9", "2001:db8::9", "2001:db8::9", "2001:db8::9"},
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newServer(t)
			six, proxied := reserve(t, loopback6), reserve(t, loopback4)
			socket := filepath.Join(filepath.Dir(s.admin), "http")
			s.mustLoad(fmt.Sprintf(`servers {
				%[1]s
			}
			servers 127.0.0.1:%[2]d {
				%[1]s
				listener_wrappers {
					proxy_protocol {
						allow 127.0.0.0/8
					}
				}
			}`, tt.options, proxied.Port()), fmt.Sprintf(`(site) {
				websocket {
					session realIP {client_ip}
					logic reply "{ws.client_ip}|{ws.session.realIP}|{ws.client_id}"
				}
			}
			HTTP {
				import site
			}
			http://:%d {
				bind ::1
				import site
			}
			http://%s {
				import site
			}
			http:// {
				bind unix/%s
				import site
			}`, six.Port(), proxied, socket))
			by := map[string]connection{
				"IPv4":     {},
				"IPv6":     {network: "tcp", address: six.String()},
				"unix":     {network: "unix", address: socket},
				"PROXY v4": {network: "tcp", address: proxied.String(), before: "PROXY TCP4 192.0.2.7 127.0.0.1 1234 80\r\n"},
				"PROXY v6": {network: "tcp", address: proxied.String(), before: "PROXY TCP6 2001:db8::9 ::1 1234 80\r\n"},
			}
			for _, peer := range peers {
				for i, header := range headers {
					t.Run(peer+" "+header, func(t *testing.T) {
						want := tt.want[peer][i]
						var lines []string
						if header != "" {
							lines = []string{header}
						}
						c := s.dialBy(by[peer], "ws:/", lines...)
						c.send("who am I")
						_, got, err := c.ReadMessage()
						if err != nil {
							t.Fatal(err)
						}
						ip, rest, _ := strings.Cut(string(got), "|")
						session, id, _ := strings.Cut(rest, "|")
						if ip != want {
							t.Errorf("the real IP is %q, want %q", ip, want)
						}
						if session != want && (want != "" || session != "@") { // @ is Caddy's word for a unix socket
							t.Errorf("the session's realIP is %q, want %q", session, want)
						}
						s.log.wait(t, "client connected", "client", id, "client_ip", want)
					})
				}
			}
		})
	}
}

// The limit is there against floods: behind a proxy it must neither count all
// visitors as one, nor believe what they make up.
func TestLimitPerIPCountsTheRealIP(t *testing.T) {
	s := startWith(t, "servers {\n trusted_proxies static private_ranges\n trusted_proxies_strict\n}", `HTTP {
		websocket /ws {
			max_clients_per_ip 1
			logic echo
		}
	}`)
	s.dial("ws:/ws", "X-Forwarded-For: 198.51.100.1").ask("x", "x")
	s.dial("ws:/ws", "X-Forwarded-For: 198.51.100.2").ask("x", "x")
	s.dial("ws:/ws", "X-Forwarded-For: 2001:db8:1:2::1").ask("x", "x")
	s.dial("ws:/ws", "X-Forwarded-For: 2001:db8:1:3::1").ask("x", "x")
	for _, again := range []string{
		"X-Forwarded-For: 198.51.100.1",
		"X-Forwarded-For: 203.0.113.5, 198.51.100.1", // as a proxy appends to what was made up
		"X-Forwarded-For: 198.51.100.2, 10.1.2.3",
		"X-Forwarded-For: ::ffff:198.51.100.1",
		"X-Forwarded-For: 2001:db8:1:2:ffff::2", // the same /64
	} {
		s.refused(http.StatusTooManyRequests, "ws:/ws", again)
	}
}

// All clients of a proxy that nobody trusts share its address: who forgot the
// two lines must be told, but not for every client.
func TestUntrustedPrivateProxyIsWarnedOfOnce(t *testing.T) {
	const warning = "a private address that is not a trusted proxy sends X-Forwarded-For: if it is a proxy, all clients seem to have its address"
	site := `HTTP {
		websocket /ws {
			logic echo
		}
	}`
	s := start(t, site)
	s.dial("ws:/ws").ask("x", "x")
	for range 3 {
		s.dial("ws:/ws", "X-Forwarded-For: 198.51.100.1").ask("x", "x")
	}
	w := s.log.wait(t, warning, "level", "warn", "endpoint", "/ws", "remote_ip", "127.0.0.1")
	if to, _ := w["to_trust"].(string); !strings.Contains(to, "trusted_proxies static 127.0.0.1") || !strings.Contains(to, "trusted_proxies_strict") {
		t.Errorf("the warning says to write %q", to)
	}
	if n := len(s.log.find(warning)); n != 1 {
		t.Errorf("%d warnings, want 1", n)
	}
	s.mustLoad("servers {\n trusted_proxies static private_ranges\n trusted_proxies_strict\n}", site)
	s.dial("ws:/ws", "X-Forwarded-For: 198.51.100.1").ask("x", "x")
	if n := len(s.log.find(warning)); n != 1 {
		t.Error("a trusted proxy is warned of")
	}
}

// A page and its socket often have one address.
func TestRequestsThatAreNoHandshakeGoToTheNextHandler(t *testing.T) {
	s := newServer(t)
	root := t.TempDir()
	if err := os.WriteFile(filepath.Join(root, "index.html"), []byte("the page"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.mustLoad("", fmt.Sprintf(`HTTP {
		root %s
		websocket / {
			logic echo
		}
		websocket /chat {
			logic echo
		}
		websocket /handled {
			logic echo
		}
		respond /chat "plain {method}"
		handle /handled {
			respond "by handle"
		}
		file_server
	}`, root))
	for path, want := range map[string]string{"/": "the page", "/chat": "plain GET", "/handled": "by handle"} {
		if resp, body := s.request("GET " + path + " HTTP/1.1\nHost: 127.0.0.1\nConnection: close\n\n"); resp.StatusCode != http.StatusOK || body != want {
			t.Errorf("GET %s: %s %q, want %q", path, resp.Status, body, want)
		}
		s.dial("ws:"+path).ask("x", "x")
	}
	if resp, _ := s.request("GET /no HTTP/1.1\nHost: 127.0.0.1\nConnection: close\n\n"); resp.StatusCode != http.StatusNotFound {
		t.Errorf("GET /no: %s, want 404 of the file server", resp.Status)
	}
}

// Most sites end with a catch-all: handle is ordered before respond and
// file_server, and would win if the directive were not before it.
func TestCatchAllHandleDoesNotTakeTheHandshake(t *testing.T) {
	s := start(t, `HTTP {
		handle {
			respond "everything else"
		}
		websocket /ws {
			logic echo
		}
	}`)
	s.dial("ws:/ws").ask("x", "x")
	if _, body := s.request("GET /ws HTTP/1.1\nHost: 127.0.0.1\nConnection: close\n\n"); body != "everything else" {
		t.Errorf("GET /ws: %q, want the catch-all", body)
	}
}

// Without a next handler Caddy would answer 200 and nothing, which sends people
// on a long search.
func TestRequestThatIsNoHandshakeIs426IfNobodyAnswers(t *testing.T) {
	s := start(t, `HTTP {
		websocket /ws {
			logic echo
		}
		handle_path /sub/* {
			websocket /ws {
				name sub
			}
		}
		handle_errors {
			respond "refused {err.status_code}"
		}
	}
	HTTPS {
		websocket
	}`)
	for _, path := range []string{"/ws", "/sub/ws"} {
		resp, body := s.request("GET " + path + " HTTP/1.1\nHost: 127.0.0.1\nConnection: close\n\n")
		if resp.StatusCode != http.StatusUpgradeRequired || resp.Header.Get("Upgrade") != "websocket" || body != "refused 426" {
			t.Errorf("GET %s: %s %q, Upgrade %q; want 426 and websocket", path, resp.Status, body, resp.Header.Get("Upgrade"))
		}
	}
	if resp, _ := s.request("GET /else HTTP/1.1\nHost: 127.0.0.1\nConnection: close\n\n"); resp.StatusCode != http.StatusOK {
		t.Errorf("GET of a path without the directive: %s, want Caddy's own 200", resp.Status)
	}

	// RFC 9113 section 8.2.2: an answer with connection-specific fields is malformed.
	hc := &http.Client{Timeout: wait, Transport: &http.Transport{TLSClientConfig: s.tls(), ForceAttemptHTTP2: true}}
	defer hc.CloseIdleConnections()
	resp, err := hc.Get(fmt.Sprintf("https://localhost:%d/", s.https.Port()))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.ProtoMajor != 2 || resp.StatusCode != http.StatusUpgradeRequired || resp.Header.Get("Upgrade") != "" || resp.Header.Get("Connection") != "" {
		t.Errorf("over HTTP/2: %s %s, Upgrade %q; want 426 without such a field", resp.Proto, resp.Status, resp.Header.Get("Upgrade"))
	}
}

// Refusals look like the site's other errors, and say what a client can act on.
func TestRefusalsTravelThroughHandleErrors(t *testing.T) {
	s := start(t, `HTTP {
		websocket /open {
			logic echo
		}
		websocket /full {
			max_clients 1
			logic echo
		}
		websocket /ip {
			max_clients_per_ip 1
			logic echo
		}
		handle_errors {
			header X-Error {err.status_code}
			respond "refused {err.status_code}"
		}
	}`)
	s.dial("ws:/full").ask("x", "x")
	s.dial("ws:/ip").ask("x", "x")
	const good = "Host: 127.0.0.1\nConnection: Upgrade\nUpgrade: websocket\nSec-WebSocket-Version: 13\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\n"
	for _, tt := range []struct {
		name, request string
		status        int
		header, value string
	}{
		{"origin", "GET /open HTTP/1.1\n" + good + "Origin: https://evil.example\n", http.StatusForbidden, "", ""},
		{"endpoint is full", "GET /full HTTP/1.1\n" + good, http.StatusServiceUnavailable, "Retry-After", "5"},
		{"too many from one address", "GET /ip HTTP/1.1\n" + good, http.StatusTooManyRequests, "Retry-After", "5"},
		{"method", "POST /open HTTP/1.1\nContent-Length: 0\n" + good, http.StatusBadRequest, "", ""},
		{"body", "GET /open HTTP/1.1\nContent-Length: 1\n" + good, http.StatusBadRequest, "", ""},
		{"no key", "GET /open HTTP/1.1\n" + strings.Replace(good, "Sec-WebSocket-Key", "X-Key", 1), http.StatusBadRequest, "", ""},
		{"key of 15 bytes", "GET /open HTTP/1.1\n" + strings.Replace(good, "AAAAAAAAAAAAAAAAAAAAAA==", "AAAAAAAAAAAAAAAAAAAA", 1), http.StatusBadRequest, "", ""},
		{"no Connection: Upgrade", "GET /open HTTP/1.1\n" + strings.Replace(good, "Connection: Upgrade", "Connection: close", 1), http.StatusBadRequest, "", ""},
		{"version 8", "GET /open HTTP/1.1\n" + strings.Replace(good, "Version: 13", "Version: 8", 1), http.StatusUpgradeRequired, "Sec-WebSocket-Version", "13"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			request := tt.request + "\n"
			if tt.name == "body" {
				request += "x"
			}
			conn := s.raw(t, request)
			resp, body := conn.resp, conn.body
			if want := fmt.Sprint("refused ", tt.status); resp.StatusCode != tt.status || body != want || resp.Header.Get("X-Error") != fmt.Sprint(tt.status) {
				t.Errorf("%s %q, X-Error %q; want %q", resp.Status, body, resp.Header.Get("X-Error"), want)
			}
			if got := resp.Header.Get(tt.header); got != tt.value {
				t.Errorf("%s is %q, want %q", tt.header, got, tt.value)
			}
		})
	}
	// What was sent above is a handshake, but for the one thing.
	if resp := s.raw(t, "GET /open HTTP/1.1\n"+good+"\n").resp; resp.StatusCode != http.StatusSwitchingProtocols {
		t.Errorf("the good request: %s", resp.Status)
	}
}

// Whoever is refused for the Origin needs to know what to write.
func TestRefusedOriginIsLoggedWithTheLineThatAllowsIt(t *testing.T) {
	s := start(t, `HTTP {
		websocket /ws {
			origins https://example.com
		}
	}`)
	s.refused(http.StatusForbidden, "ws:/ws", "Origin: https://www.example.com")
	line := s.log.wait(t, "handshake refused by its origin", "why", "the Origin is not among those that are allowed",
		"level", "warn", "endpoint", "/ws", "client_ip", "127.0.0.1")
	if line["to_allow"] != "origins https://www.example.com" {
		t.Errorf("the log says to write %q", line["to_allow"])
	}
	s.dial("ws:/ws", "Origin: https://example.com")
}

// The two lines are what an operator has of a connection.
func TestClientIsLoggedWhenItComesAndGoes(t *testing.T) {
	s := start(t, `HTTP {
		websocket /ws {
			user {query.user}
			logic echo
		}
	}`)
	c := s.dial("ws:/ws?user=tom")
	c.ask("12345", "12345")
	c.leave(4001, "bye")
	who := []any{"level", "info", "client_ip", "127.0.0.1", "endpoint", "/ws", "user", "tom"}
	connected := s.log.wait(t, "client connected", who...)
	id, _ := connected["client"].(string)
	if len(id) < 26 {
		t.Errorf("the client's id is %q", id)
	}
	gone := s.log.wait(t, "client gone", append(who, "client", id,
		"code", 4001.0, "reason", "bye", "messages_in", 1.0, "messages_out", 1.0,
		"bytes_in", float64(6+5+6+2+3), "bytes_out", float64(2+5+2+2+3))...)
	if d, ok := gone["duration"].(float64); !ok || d <= 0 || d > wait.Seconds() {
		t.Errorf("the duration is %v", gone["duration"])
	}
	for _, line := range []map[string]any{connected, gone} {
		if logger := line["logger"]; logger != "http.handlers.websocket" {
			t.Errorf("the logger is %v, want http.handlers.websocket", logger)
		}
	}
}
