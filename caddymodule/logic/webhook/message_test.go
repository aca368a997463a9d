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

// A message that was handled twice is a payment that was made twice. One that was
// certainly not handled is sent again.
func TestMessageIsNeverHandledTwice(t *testing.T) {
	for _, tt := range []struct {
		name     string
		fail     func(*post) (*http.Response, error)
		requests int
	}{
		{"500", func(*post) (*http.Response, error) { return say(500, "oops"), nil }, 1},
		{"503", func(*post) (*http.Response, error) { return say(503, ""), nil }, 1},
		{"404", func(*post) (*http.Response, error) { return say(404, ""), nil }, 1},
		{"redirect", func(*post) (*http.Response, error) { return say(307, "", "Location: http://elsewhere.test/"), nil }, 1},
		{"reset", func(*post) (*http.Response, error) { return nil, io.ErrUnexpectedEOF }, 1},
		{"no answer", never, 1},
		{"no connection", func(*post) (*http.Response, error) { return nil, errRefused }, 4},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := &backend{t: t}
				b.answer = func(p *post) (*http.Response, error) {
					if p.is("message") && p.text() == "bad" {
						return tt.fail(p)
					}
					return say(204, ""), nil
				}
				var log gatewaytest.Log
				s := serveLog(t, "", b, &log)
				c := s.Dial("/test")
				c.Send("bad")
				c.Send("good")
				time.Sleep(15 * time.Second)
				synctest.Wait()
				posts := b.seen("message")
				if len(posts) != tt.requests+1 || posts[tt.requests].text() != "good" {
					t.Fatalf("%d requests, want %d and the next message", len(posts), tt.requests)
				}
				found := log.Find("message was not handled")
				if len(found) != 1 || found[0].Attrs["client"] != ids(t, s)[0] || found[0].Attrs["url"] != "http://backend.test/events" || found[0].Attrs["attempts"] != int64(tt.requests) {
					t.Errorf("logged %v", found)
				}
				if tt.name == "no answer" && found[0].Attrs["error"] != "no answer within 10s" {
					t.Errorf("the error is %q", found[0].Attrs["error"])
				}
			})
		})
	}
}

// A backend that comes back in a second costs nobody a message.
func TestMessageWaitsForABackendThatIsBeingRestarted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &backend{t: t}
		b.answer = func(p *post) (*http.Response, error) {
			if p.is("message") && len(b.seen("message")) < 3 {
				return nil, errRefused
			}
			return say(200, `{"commands":[{"send":{"to":{"clients":[`+quote(p.client())+`]},"text":"done"}}]}`), nil
		}
		c := serve(t, "", b).Dial("/test")
		c.Want("done") // of connect
		c.Send("do")
		c.Want("done")
	})
}

// A reconnect of everybody is the last thing that a backend needs which has just
// come back: by default its outage costs messages, not connections.
func TestOnErrorChoosesWhetherTheClientStays(t *testing.T) {
	for options, closed := range map[string]bool{"": false, "on_error ignore": false, "on_error close": true} {
		t.Run(options, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := &backend{t: t}
				b.answer = func(p *post) (*http.Response, error) {
					if p.is("message") && p.text() == "bad" {
						return say(500, ""), nil
					}
					if p.is("message") {
						return say(200, `{"commands":[{"send":{"to":{"clients":[`+quote(p.client())+`]},"text":"done"}}]}`), nil
					}
					return say(204, ""), nil
				}
				s := serve(t, options, b)
				c, other := s.Dial("/test"), s.Dial("/test")
				c.Send("bad")
				if closed {
					c.WantClose(gateway.CloseInternalError)
				} else {
					c.Send("good")
					c.Want("done")
				}
				other.Send("good")
				other.Want("done")
			})
		})
	}
}

// PHP prints warnings, proxies print pages, people mistype: nothing of such an
// answer is done, the log says what came, and nobody is harmed.
func TestBadAnswersHarmNobody(t *testing.T) {
	send := `{"send":{"to":{"all":true},"text":"must not arrive"}}`
	for _, body := range []string{
		"<br />\n<b>Warning</b>: Undefined array key in <b>/srv/chat.php</b>\n" + `{"commands":[` + send + `]}`,
		`{"commands":[` + send + `]}` + "\n<b>Warning</b>",
		`{"commands":[` + send + `]}{"commands":[` + send + `]}`,
		`{"commands":[` + send + `]`,
		`{"command":[` + send + `]}`,
		`{"commands":[` + send + `],"user":"7"}`,
		`{"commands":[` + send + `],"groups":[]}`,
		`{"commands":[` + send + `],"session":{}}`,
		`{"commands":` + send + `}`,
		`{"commands":[` + send + `,{"sent":{}}]}`,
		`{"commands":[` + send + `,{"send":{"to":{"all":true},"txt":"x"}}]}`,
		`{"commands":[` + send + `,{"send":{"to":{"users":[7]},"text":"x"}}]}`,
		`{"commands":[` + send + `,{"set_session":{"to":{"all":true},"session":[]}}]}`,
		`{"commands":"` + strings.Repeat("x", 2<<20) + `"}`,
		strings.Repeat("[", 100000),
		`[` + send + `]`, `"text"`, "42", "true", "\x00\xff\xfe", "OK",
	} {
		t.Run(fmt.Sprintf("%.60s", body), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := &backend{t: t}
				b.answer = func(p *post) (*http.Response, error) {
					switch {
					case p.is("message") && p.text() == "bad", p.is("close"):
						return say(200, body), nil
					case p.is("message"):
						return say(200, `{"commands":[{"send":{"to":{"clients":[`+quote(p.client())+`]},"text":"done"}}]}`), nil
					}
					return say(204, ""), nil
				}
				var log gatewaytest.Log
				s := serveLog(t, "", b, &log)
				c, other := s.Dial("/test"), s.Dial("/test")
				c.Send("bad")
				c.Send("good")
				c.Want("done")
				found := log.Find("message was not handled")
				if len(found) != 1 {
					t.Fatalf("logged %v", found)
				}
				if shown, _ := found[0].Attrs["body"].(string); shown == "" || len(shown) > 210 || !strings.HasPrefix(strings.ToValidUTF8(body, "\uFFFD"), shown) {
					t.Errorf("the log shows %q", shown)
				}
				c.Close(1000, "")
				c.WantClose(1000)
				time.Sleep(10 * time.Second)
				if n := len(b.seen("close")); n != 1 {
					t.Errorf("%d requests with the close event, which had arrived: want 1", n)
				}
				other.Send("good")
				other.Want("done")
			})
		})
	}
}

// The shortest scripts answer nothing, or what an empty array of PHP is as JSON.
func TestNothingIsAnAnswer(t *testing.T) {
	for _, body := range []string{"", " \r\n", "{}", "[]", " [] \n", "null", `{"commands":[]}`, `{"commands":null,"session":null}`} {
		t.Run(body, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := &backend{t: t, answer: func(*post) (*http.Response, error) { return say(200, body), nil }}
				var log gatewaytest.Log
				c := serveLog(t, "", b, &log).Dial("/test")
				c.Send("hello")
				c.Close(1000, "")
				c.WantClose(1000)
				time.Sleep(time.Second)
				if found := log.Find(""); len(b.seen("")) != 3 || len(found) > 0 {
					t.Errorf("%d requests, logged %v", len(b.seen("")), found)
				}
			})
		})
	}
}
