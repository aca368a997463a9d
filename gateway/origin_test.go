package gateway_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/caddy-websocket/caddy-websocket/gateway"
	"github.com/caddy-websocket/caddy-websocket/gateway/gatewaytest"
)

// originGate tells whether an Origin passes an endpoint's rules. What passes is
// stopped by OnConnect, so that no connection is needed.
type originGate struct {
	endpoint *gateway.Endpoint
}

func newOriginGate(t testing.TB, origins []string) *originGate {
	t.Helper()
	e, err := gateway.NewEndpoint("test", gateway.EndpointOptions{Origins: origins, Logic: refuseTeapot{}})
	if err != nil {
		t.Fatal(err)
	}
	g, err := gateway.New(gateway.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Serve(e); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := g.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return &originGate{e}
}

// refuseTeapot refuses who gets as far as OnConnect in a way of its own.
type refuseTeapot struct{ gateway.NopLogic }

func (refuseTeapot) OnConnect(*gateway.Client, *http.Request) error {
	return &gateway.HandshakeError{Status: http.StatusTeapot}
}

// hijackable is a ResponseWriter that could be taken over, and is not.
type hijackable struct {
	*httptest.ResponseRecorder
	http.Hijacker
}

// status asks with these Origin lines on this Host.
func (g *originGate) status(host string, origins ...string) int {
	r := httptest.NewRequest(http.MethodGet, "/test", http.NoBody)
	r.Host = host
	r.Header = http.Header{
		"Upgrade": {"websocket"}, "Connection": {"Upgrade"},
		"Sec-Websocket-Version": {"13"}, "Sec-Websocket-Key": {"dGhlIHNhbXBsZSBub25jZQ=="},
	}
	if origins != nil {
		r.Header["Origin"] = origins
	}
	w := httptest.NewRecorder()
	g.endpoint.ServeHTTP(hijackable{w, nil}, r)
	return w.Code
}

func (g *originGate) allows(t testing.TB, host string, origins ...string) bool {
	t.Helper()
	switch status := g.status(host, origins...); status {
	case http.StatusTeapot:
		return true
	case http.StatusForbidden:
		return false
	default:
		t.Fatalf("Origin %q on %q answered with %d", origins, host, status)
		return false
	}
}

// The Origin is all that keeps a page of somebody else's from using the cookies
// of a visitor (RFC 6455 section 10.2).
func TestOriginRules(t *testing.T) {
	const host = "example.com"
	type ask struct {
		host   string
		origin string // "-" is no header
		pass   bool
	}
	for _, tt := range []struct {
		name  string
		rules []string
		asks  []ask
	}{
		{"default: the request's own host, any port, http or https", nil, []ask{
			{host, "-", true},
			{host, "https://example.com", true},
			{host, "http://example.com", true},
			{host, "https://example.com:8443", true},
			{"example.com:4431", "https://example.com", true},
			{"example.com:4431", "https://example.com:4431", true},
			{"EXAMPLE.com", "HTTPS://Example.COM", true},
			{"[::1]:4431", "https://[::1]:4431", true},
			{"[::1]", "http://[::1]", true},
			{"[::1]:80", "http://[::2]", false},
			{"127.0.0.1:80", "http://127.0.0.1:3000", true},
			{"127.0.0.1", "http://localhost", false},
			{host, "null", false},
			{host, "", false},
			{host, "https://www.example.com", false},
			{host, "https://example.com.evil.example", false},
			{host, "https://evilexample.com", false},
			{host, "https://example.co", false},
			{host, "https://example.com.", false},
			{"", "https://example.com", false},
			{"", "https://", false},
			// As EndpointOptions.Origins says: by http or https.
			{host, "ftp://example.com", false},
			{"localhost:4431", "capacitor://localhost", false},
		}},
		{"require alone", []string{"require"}, []ask{
			{host, "-", false},
			{host, "", false},
			{host, "https://example.com", true},
			{host, "https://other.example", false},
			{host, "null", false},
		}},
		{"exact", []string{"https://example.com"}, []ask{
			{"api.example.com", "-", true},
			{"api.example.com", "https://example.com", true},
			{"api.example.com", "https://EXAMPLE.com", true},
			{"api.example.com", "https://example.com:443", true},
			{"api.example.com", "https://example.com:", true},
			{"api.example.com", "http://example.com", false},
			{"api.example.com", "https://example.com:8443", false},
			{"api.example.com", "https://example.com:0443", false},
			{"api.example.com", "https://api.example.com", false},
			{"example.com:8443", "https://example.com:8443", false}, // its own host is no exception any more
		}},
		{"exact with the scheme's port", []string{"https://example.com:443", "http://example.com:80"}, []ask{
			{host, "https://example.com", true},
			{host, "http://example.com", true},
			{host, "http://example.com:443", false},
		}},
		{"exact with a port", []string{"http://localhost:3000"}, []ask{
			{host, "http://localhost:3000", true},
			{host, "http://localhost:3001", false},
			{host, "http://localhost", false},
			{host, "https://localhost:3000", false},
		}},
		{"another scheme", []string{"capacitor://localhost", "chrome-extension://abcdefghijklmnop"}, []ask{
			{host, "capacitor://localhost", true},
			{host, "chrome-extension://abcdefghijklmnop", true},
			{host, "https://localhost", false},
			{host, "chrome-extension://other", false},
		}},
		{"IPv6", []string{"https://[2001:db8::1]", "https://[::1]:8443"}, []ask{
			{host, "https://[2001:db8::1]", true},
			{host, "https://[2001:DB8::1]:443", true},
			{host, "https://[::1]:8443", true},
			{host, "https://[::1]", false},
			{host, "https://[2001:db8::2]", false},
			{host, "https://2001:db8::1", false},
			// Not strict: another spelling of the address is another host. Browsers send
			// the shortest.
			{host, "https://[2001:db8:0:0:0:0:0:1]", false},
		}},
		{"below", []string{"https://*.example.com"}, []ask{
			{host, "https://www.example.com", true},
			{host, "https://a.b.c.example.com", true},
			{host, "https://WWW.Example.com", true},
			{host, "https://example.com", false},
			{host, "https://.example.com", false},
			{host, "https://evilexample.com", false},
			{host, "https://www.example.com.evil.example", false},
			{host, "https://www.example.com:8443", false},
			{host, "http://www.example.com", false},
			{host, "https://www.example.com@evil.example", false},
			{host, "https://evil.example/www.example.com", false},
			{host, "https://evil.example?.example.com", false},
			{host, "https://evil.example#.example.com", false},
			{host, "https://evil.example\\.example.com", false},
			{host, "https://evil.example:80.example.com", false},
			{host, "https://evil.example .example.com", false},
		}},
		{"below, with a port", []string{"https://*.example.com:8443"}, []ask{
			{host, "https://www.example.com:8443", true},
			{host, "https://www.example.com", false},
		}},
		{"several", []string{"https://a.example", "https://*.b.example"}, []ask{
			{host, "https://a.example", true},
			{host, "https://x.b.example", true},
			{host, "https://x.a.example", false},
			{host, "https://b.example", false},
		}},
		{"any", []string{"*"}, []ask{
			{host, "-", true},
			{host, "https://evil.example", true},
			{host, "null", true}, // any is any
			{host, "garbage", true},
			{host, "", true},
		}},
		{"any, and require", []string{"*", "require"}, []ask{
			{host, "-", false},
			{host, "https://evil.example", true},
		}},
		{"null alone", []string{"null"}, []ask{
			{host, "null", true},
			{host, "NULL", false},
			{host, "-", true},
			{host, "https://example.com", false}, // the default is gone, as with any entry
		}},
		{"null, exact and require", []string{"null", "https://example.com", "require"}, []ask{
			{host, "null", true},
			{host, "https://example.com", true},
			{host, "-", false},
		}},
		{"IDN, as browsers send it", []string{"https://xn--bcher-kva.example", "https://*.xn--bcher-kva.example"}, []ask{
			{host, "https://xn--bcher-kva.example", true},
			{host, "https://www.xn--bcher-kva.example", true},
			{host, "https://b\u00fccher.example", false},
		}},
		// What cannot come from a browser is nobody's origin.
		{"garbage", []string{"https://example.com", "https://kiosk.example"}, []ask{
			{host, "example.com", false},
			{host, "//example.com", false},
			{host, "https:example.com", false},
			{host, "https:/example.com", false},
			{host, "://example.com", false},
			{host, "https://", false},
			{host, "https://:443", false},
			{host, "https://example.com/", false},
			{host, "https://example.com/path", false},
			{host, "https://example.com?", false},
			{host, "https://example.com?q", false},
			{host, "https://example.com#f", false},
			{host, "https://user@example.com", false},
			{host, "https://user:pass@example.com", false},
			{host, "https://@example.com", false},
			{host, "https://example.com https://evil.example", false},
			{host, "https://evil.example https://example.com", false},
			{host, "https://example.com, https://evil.example", false},
			{host, "https://example.com:port", false},
			{host, "https://example.com:-1", false},
			{host, "https://ex%61mple.com", false},
			{host, "https://[example.com]", false},
			{host, "https://[::1", false},
			{host, "%", false},
			{host, "*", false},
			{host, "https://*", false},
			{host, "require", false},
			{host, strings.Repeat("a", 10000), false},
			{host, "https://" + strings.Repeat("a.", 5000) + "example.com", false},
			// U+212A lowers to k, in Unicode; in host names it is not even a letter.
			{host, "https://\u212aiosk.example", false},
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := newOriginGate(t, tt.rules)
			for _, a := range tt.asks {
				lines := []string{a.origin}
				if a.origin == "-" {
					lines = nil
				}
				if got := g.allows(t, a.host, lines...); got != a.pass {
					t.Errorf("Origin %.100q on host %q: allowed %t, want %t", a.origin, a.host, got, a.pass)
				}
			}
		})
	}
}

// Which of two an intermediary looked at cannot be known.
func TestTwoOriginsAreRefusedWhateverIsAllowed(t *testing.T) {
	for _, rules := range [][]string{nil, {"*"}, {"https://example.com"}, {"null"}} {
		g := newOriginGate(t, rules)
		for _, two := range [][]string{{"https://example.com", "https://example.com"}, {"https://example.com", "https://evil.example"}, {"null", "null"}, {"", ""}} {
			if g.allows(t, "example.com", two...) {
				t.Errorf("rules %q allow the Origins %q", rules, two)
			}
		}
	}
}

// A rule that can never be met is a typo, and STYLE 13 says that those fail.
func TestOriginRuleThatMeansNothingIsAConfigurationError(t *testing.T) {
	for _, rule := range []string{
		"", "example.com", "https://", "https:example.com", "//example.com", "example.com:443",
		"https://example.com/", "https://example.com/chat", "https://example.com?x", "https://user@example.com",
		"https://a.*.example.com", "https://*", "https://*.", "https://*.*.example.com", "https://www*.example.com",
		"https://*example.com", "**", "https://exa mple.com", "https://example.com:port", "%", "https://[::1",
		"https://a.example,https://b.example",
	} {
		if _, err := gateway.NewEndpoint("test", gateway.EndpointOptions{Origins: []string{"https://good.example", rule}}); err == nil {
			t.Errorf("the rule %q was accepted", rule)
		} else if !strings.Contains(err.Error(), "origin") {
			t.Errorf("the rule %q: %v, want an error that says origin", rule, err)
		}
	}
}

// Browsers never send ws: as an Origin's scheme, nor letters beyond ASCII: such
// a rule looks right and refuses everybody.
func TestOriginRuleThatNoBrowserCanMeetIsAConfigurationError(t *testing.T) {
	for _, rule := range []string{"wss://example.com", "ws://*.example.com", "https://b\u00fccher.example", "https://*.b\u00fccher.example"} {
		if _, err := gateway.NewEndpoint("test", gateway.EndpointOptions{Origins: []string{rule}}); err == nil {
			t.Errorf("the rule %q was accepted", rule)
		}
	}
}

// The log line is how people find the rule that they forgot.
func TestRefusedOriginIsLoggedWithTheLineThatAllowsIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &gatewaytest.Log{}
		s := serveWith(t, gateway.EndpointOptions{Origins: []string{"https://example.com"}, Logger: log.Logger()})
		s.Refused(http.StatusForbidden, "/test", "Origin: https://www.example.com")
		line := log.Wait(t, "handshake refused")
		wantAttrs(t, line, map[string]any{
			"endpoint": "test", "client_ip": gatewaytest.DefaultIP, "origin": "https://www.example.com",
			"host": "gateway.test", "to_allow": "origins https://www.example.com",
		})
	})
}

var fuzzedRules = []string{"https://example.com", "http://localhost:3000", "https://*.kiosk.example", "https://[2001:db8::1]"}

// An Origin that passes has a host that is listed, or below one that is. The
// host is found here by cutting the string, not by the parser under test.
func FuzzOrigin(f *testing.F) {
	for _, seed := range []string{
		"", "null", "*", "https://example.com", "https://example.com:443", "http://localhost:3000", "https://a.b.kiosk.example",
		"https://[2001:db8::1]", "https://evil.example", "https://user@example.com", "https://example.com@evil.example",
		"https://evil.example/.kiosk.example", "https://\u212aiosk.kiosk.example", "https://x.\u212aiosk.example",
		"HTTPS://EXAMPLE.COM", "https://example.com#", "https://ex%61mple.com", "https://example.com\\@evil.example",
		"https://[::ffff:127.0.0.1]", "https://[fe80::1%25eth0]", "https://evil.example:.kiosk.example",
	} {
		f.Add(seed, "example.com")
	}
	listed := newOriginGate(f, fuzzedRules)
	own := newOriginGate(f, nil)
	f.Fuzz(func(t *testing.T, origin, host string) {
		plain := asciiLower(origin)
		_, authority, _ := strings.Cut(plain, "://")
		if listed.allows(t, host, origin) {
			name := withoutPort(authority)
			exact := slices.Contains([]string{"example.com", "localhost", "[2001:db8::1]"}, name)
			below := strings.HasSuffix(name, ".kiosk.example") && name != ".kiosk.example"
			if !exact && !below {
				t.Errorf("the Origin %q passes %q", origin, fuzzedRules)
			}
			if strings.ContainsAny(origin, "/@?# \\") && strings.ContainsAny(authority, "/@? \\") {
				t.Errorf("the Origin %q passes with more than a host in it", origin)
			}
			if _, err := url.Parse(origin); err != nil {
				t.Errorf("the Origin %q passes: %v", origin, err)
			}
		}
		if own.allows(t, host, origin) {
			if name := withoutPort(authority); strings.Trim(name, "[]") != strings.Trim(withoutPort(asciiLower(host)), "[]") {
				t.Errorf("the Origin %q passes on the host %q", origin, host)
			}
		}
	})
}

func asciiLower(s string) string {
	b := []byte(s)
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	return string(b)
}

// withoutPort cuts a port off a host, and an empty fragment, which is none.
func withoutPort(authority string) string {
	authority = strings.TrimSuffix(authority, "#")
	colon := strings.LastIndexByte(authority, ':')
	if colon < 0 || strings.Trim(authority[colon+1:], "0123456789") != "" || strings.Count(authority, ":") > 1 && !strings.HasSuffix(authority[:colon], "]") {
		return authority
	}
	return authority[:colon]
}
