package webhook_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-websocket/caddy-websocket/gateway"
	"github.com/caddy-websocket/caddy-websocket/gateway/gatewaytest"
)

// The backend decides who comes in, in words that a browser's server and a program
// understand; what is wrong with the backend itself is not the visitor's fault.
func TestRefusalsOfHandshakes(t *testing.T) {
	for _, tt := range []struct {
		status int
		body   string
		want   int
		header string // of the refusal
		close  bool   // the backend may believe that the client is there
	}{
		{status: 400, want: 403},
		{status: 401, want: 401, header: "Www-Authenticate: Bearer"},
		{status: 403, want: 403},
		{status: 404, want: 403},
		{status: 429, want: 429, header: "Retry-After: 77"},
		{status: 418, want: 403},
		{status: 500, want: 503, header: "Retry-After: 77", close: true},
		{status: 503, want: 503, header: "Retry-After: 77", close: true},
		{status: 302, want: 502, close: true},
		{status: 200, body: "<br />\n<b>Warning</b>", want: 502, close: true},
		{status: 200, body: `{"user":7}`, want: 502, close: true},
		{status: 200, body: `{"groups":[""]}`, want: 502, close: true},
		{status: 200, body: `{"user":"` + strings.Repeat("x", 256) + `"}`, want: 502, close: true},
		{status: 200, body: `{"session":"tom"}`, want: 502, close: true},
		{status: 200, body: `{"session":{"":1}}`, want: 502, close: true},
		{status: 200, body: `{"session":{"x":"` + strings.Repeat("x", gateway.MaxSessionSize) + `"}}`, want: 502, close: true},
	} {
		t.Run(fmt.Sprintf("%d %.20s", tt.status, tt.body), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := &backend{t: t}
				b.answer = func(p *post) (*http.Response, error) {
					if p.is("connect") {
						return say(tt.status, tt.body, "Retry-After: 77", "WWW-Authenticate: Bearer", "X-Internal: 1", "Location: /login"), nil
					}
					return say(204, ""), nil
				}
				s := serve(t, "", b)
				res := s.Refused(tt.want, "/test")
				if name, value, ok := strings.Cut(tt.header, ": "); ok && res.Header.Get(name) != value {
					t.Errorf("the answer has %v, want %s", res.Header, tt.header)
				}
				if res.Header.Get("X-Internal") != "" || res.Header.Get("Location") != "" {
					t.Errorf("the visitor sees the backend's fields: %v", res.Header)
				}
				time.Sleep(time.Second)
				if n := len(b.seen("close")); (n == 1) != tt.close {
					t.Errorf("%d close events, want one: %t", n, tt.close)
				}
			})
		})
	}
}

// A deploy of the backend takes a second or two: visitors who come meanwhile wait.
func TestConnectIsTriedAgain(t *testing.T) {
	for name, fail := range map[string]func(*post) (*http.Response, error){
		"after 500":         func(*post) (*http.Response, error) { return say(500, ""), nil },
		"after 503":         func(*post) (*http.Response, error) { return say(503, "down"), nil },
		"after a reset":     func(*post) (*http.Response, error) { return nil, io.ErrUnexpectedEOF },
		"without a backend": func(*post) (*http.Response, error) { return nil, errRefused },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := &backend{t: t}
				b.answer = func(p *post) (*http.Response, error) {
					if n := len(b.seen("connect")); p.is("connect") && n <= 3 {
						return fail(p)
					}
					return say(204, ""), nil
				}
				start := time.Now()
				s := serve(t, "", b)
				s.Dial("/test")
				if d := time.Since(start); d != 1750*time.Millisecond {
					t.Errorf("it took %s, want pauses of 250 ms, 500 ms, 1 s", d)
				}
				posts := b.seen("connect")
				for _, p := range posts {
					if p.id() != posts[0].id() || p.id() == "" {
						t.Errorf("ids %q and %q: the backend could not know that it is the same event", p.id(), posts[0].id())
					}
				}
				if len(posts) != 4 {
					t.Errorf("%d requests, want 4", len(posts))
				}
			})
		})
	}
}

// A backend that is down must not hold visitors for ever, nor tell them that they
// are not allowed in.
func TestConnectIsGivenUpInTime(t *testing.T) {
	for _, tt := range []struct {
		name, options string
		answer        func(*post) (*http.Response, error)
		took          time.Duration
		requests      int
		closed        bool
	}{
		{"no answer", "", never, 20 * time.Second, 2, true},
		{"no answer, short timeout", "timeout 1s", never, 2 * time.Second, 2, true},
		{"500", "", func(*post) (*http.Response, error) { return say(500, ""), nil }, 1750 * time.Millisecond, 4, true},
		{"500, one retry", "retries 1", func(*post) (*http.Response, error) { return say(500, ""), nil }, 250 * time.Millisecond, 2, true},
		{"500, no retry", "retries 0", func(*post) (*http.Response, error) { return say(500, ""), nil }, 0, 1, true},
		{"no backend", "", func(*post) (*http.Response, error) { return nil, errRefused }, 1750 * time.Millisecond, 4, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := &backend{t: t}
				b.answer = func(p *post) (*http.Response, error) {
					if p.is("close") {
						return say(204, ""), nil
					}
					return tt.answer(p)
				}
				var log gatewaytest.Log
				s := serveLog(t, tt.options, b, &log)
				conn, err := s.Connect("192.0.2.7")
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				start := time.Now()
				if _, err := io.WriteString(conn, handshake); err != nil {
					t.Fatal(err)
				}
				var answer [512]byte
				n, err := conn.Read(answer[:])
				if d := time.Since(start); err != nil || d < tt.took || d > tt.took+time.Second {
					t.Errorf("%v after %s, want an answer after %s", err, d, tt.took)
				}
				if got := string(answer[:n]); !strings.HasPrefix(got, "HTTP/1.1 503 ") || !strings.Contains(got, "\r\nRetry-After: 5\r\n") {
					t.Errorf("the answer is %q", got)
				}
				time.Sleep(time.Second)
				if n := len(b.seen("connect")); n != tt.requests {
					t.Errorf("%d requests, want %d", n, tt.requests)
				}
				if n := len(b.seen("close")); (n == 1) != tt.closed {
					t.Errorf("%d close events, want one: %t", n, tt.closed)
				}
				if found := log.Find("the handshake is refused"); len(found) != 1 || found[0].Attrs["client_ip"] != "192.0.2.1" && found[0].Attrs["client_ip"] != "192.0.2.7" {
					t.Errorf("logged %v", found)
				}
			})
		})
	}
}

const handshake = "GET /test HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
	"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"

// A visitor who gives up while the backend thinks is somebody whom the backend may
// have noted as present.
func TestVisitorWhoGivesUpDuringConnectIsReportedGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &backend{t: t}
		b.answer = func(p *post) (*http.Response, error) {
			if p.is("connect") {
				return never(p)
			}
			return say(204, ""), nil
		}
		s := serve(t, "timeout 1h", b)
		conn, err := s.Connect("192.0.2.7")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(conn, handshake); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		conn.Close()
		time.Sleep(time.Second)
		connect, gone := b.seen("connect"), b.seen("close")
		if len(connect) != 1 || len(gone) != 1 || connect[0].client() != gone[0].client() || connect[0].Context().Err() == nil {
			t.Fatalf("%d connect, %d close, request ended: %v", len(connect), len(gone), connect[0].Context().Err())
		}
		if got := quote(gone[0].events[0]["close"]); got != `{"by_peer":true,"code":1006,"reason":"handshake failed"}` {
			t.Errorf("closed with %s", got)
		}
	})
}
