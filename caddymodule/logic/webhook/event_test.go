package webhook_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gorilla/websocket"

	"github.com/caddy-websocket/caddy-websocket/gateway"
	"github.com/caddy-websocket/caddy-websocket/gateway/gatewaytest"
)

// Scripts are written against these bodies, and docs/webhook.md shows them: what
// changes here breaks somebody's backend.
func TestBodiesOfRequestsAreWhatIsDocumented(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &backend{t: t}
		b.answer = func(p *post) (*http.Response, error) {
			if p.is("connect") {
				return say(200, `{"user":"7","groups":["room:b","room:a"],"session":{"name":"tom","n":12345678901234567890}}`), nil
			}
			return say(200, ""), nil
		}
		s := serve(t, "", b)
		c := s.Dial("/test?room=a&room=b&x=%2F", "Cookie: sid=1; theme=dark; sid=2", "X-Test: yes", "Origin: http://gateway.test", "Authorization: Bearer t")
		id := ids(t, s)[0]
		time.Sleep(1500 * time.Millisecond)
		c.Send("<hi> \u2028 日本")
		if err := c.Conn.WriteMessage(websocket.BinaryMessage, []byte{0, 255, 62}); err != nil {
			t.Fatal(err)
		}
		if err := c.Conn.WriteMessage(websocket.BinaryMessage, nil); err != nil {
			t.Fatal(err)
		}
		c.Send("")
		synctest.Wait()
		c.Close(4001, "bye")
		c.WantClose(4001)
		time.Sleep(time.Second)

		before := `"client":{"id":"ID","endpoint":"test","client_ip":"192.0.2.1","user":"","groups":[],"session":{},"subprotocol":"","connected_at":"2000-01-01T00:00:00.000Z"}`
		after := `"client":{"id":"ID","endpoint":"test","client_ip":"192.0.2.1","user":"7","groups":["room:a","room:b"],"session":{"n":12345678901234567890,"name":"tom"},"subprotocol":"","connected_at":"2000-01-01T00:00:00.000Z"}`
		want := []string{
			`{"events":[{"event":"connect","time":"2000-01-01T00:00:00.000Z",` + before + `,"connect":{"method":"GET","uri":"/test?room=a\u0026room=b\u0026x=%2F","host":"gateway.test","query":{"room":["a","b"],"x":["/"]},"headers":{"Authorization":["Bearer t"],"Cookie":["sid=1; theme=dark; sid=2"],"Origin":["http://gateway.test"],"User-Agent":["Go-http-client/1.1"],"X-Test":["yes"]},"cookies":{"sid":"1","theme":"dark"}}}]}`,
			`{"events":[{"event":"message","time":"2000-01-01T00:00:01.500Z",` + after + `,"message":{"text":"\u003chi\u003e \u2028 日本"}}]}`,
			`{"events":[{"event":"message","time":"2000-01-01T00:00:01.500Z",` + after + `,"message":{"binary":"AP8+"}}]}`,
			`{"events":[{"event":"message","time":"2000-01-01T00:00:01.500Z",` + after + `,"message":{"binary":""}}]}`,
			`{"events":[{"event":"message","time":"2000-01-01T00:00:01.500Z",` + after + `,"message":{"text":""}}]}`,
			`{"events":[{"event":"close","time":"2000-01-01T00:00:01.500Z",` + after + `,"close":{"code":4001,"reason":"bye","by_peer":true}}]}`,
		}
		posts := b.seen("")
		if len(posts) != len(want) {
			t.Fatalf("%d requests, want %d", len(posts), len(want))
		}
		for i, p := range posts {
			if got := strings.ReplaceAll(string(p.body), id, "ID"); got != want[i] {
				t.Errorf("request %d is\n%s\nwant\n%s", i, got, want[i])
			}
			if p.Method != "POST" || p.URL.String() != "http://backend.test/events" || p.Header.Get("Content-Type") != "application/json" || p.Header.Get("User-Agent") != "caddy-websocket" {
				t.Errorf("request %d: %s %s with %v", i, p.Method, p.URL, p.Header)
			}
		}
	})
}

// Fields about the visitor's connection to Caddy say nothing about the visitor, and
// a field that Connection names could be made to look like one of the server's.
func TestConnectCarriesNoHopByHopFields(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &backend{t: t}
		s := serve(t, "", b)
		conn, err := s.Connect("192.0.2.7")
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := conn.Write([]byte("GET /test HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade, X-Hop\r\nX-Hop: 1\r\nUpgrade: websocket\r\n" +
			"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nProxy-Authorization: Basic x\r\nTE: trailers\r\nKeep-Alive: 5\r\nX-End: 1\r\n\r\n")); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		connect := b.seen("connect")[0].events[0]["connect"].(map[string]any)
		if got := quote(connect["headers"]); got != `{"X-End":["1"]}` {
			t.Errorf("headers are %s, want X-End alone", got)
		}
	})
}

// What the logic is not asked to send costs the backend nothing.
func TestOnlyTheEventsThatAreAskedForAreSent(t *testing.T) {
	for _, kind := range []string{"connect", "message", "close"} {
		t.Run(kind, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := &backend{t: t}
				s := serve(t, "events "+kind, b)
				c := s.Dial("/test")
				c.Send("hello")
				synctest.Wait()
				c.Close(1000, "")
				c.WantClose(1000)
				time.Sleep(time.Second)
				if posts := b.seen(""); len(posts) != 1 || !posts[0].is(kind) {
					t.Errorf("%d requests, want one, with %s", len(posts), kind)
				}
			})
		})
	}
}

// The push API, Go logic and webhooks reach the same clients: an answer may name
// those of another endpoint of the gateway.
func TestCommandsOfAnAnswerAreDone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &backend{t: t}
		var commands string
		b.answer = func(p *post) (*http.Response, error) {
			if p.is("message") {
				return say(200, strings.ReplaceAll(commands, "SELF", p.client())), nil
			}
			return say(204, ""), nil
		}
		s := gatewaytest.Serve(t,
			gatewaytest.Endpoint(t, "test", gateway.EndpointOptions{Logic: logic(t, "", nil, b)}),
			gatewaytest.Endpoint(t, "other", gateway.EndpointOptions{}))
		tom := s.Dial("/test")
		tomID := ids(t, s)[0]
		time.Sleep(time.Second)
		eve := s.Dial("/other")
		commands = `{"commands":[
			{"join":{"to":{"clients":["SELF"]},"groups":["room:a"]}},
			{"bind":{"to":{"groups":["room:a"]},"user":"7"}},
			{"update_session":{"to":{"users":["7"]},"session":{"n":9007199254740993}}},
			{"nonsense":1}]}`
		tom.Send("not understood: nothing of it is done")
		synctest.Wait()
		if c := s.Gateway.Client(tomID); c.User() != "" || len(c.Groups()) > 0 {
			t.Errorf("tom is %q in %q after an answer that is not understood", c.User(), c.Groups())
		}
		commands = `{"commands":[
			{"join":{"to":{"clients":["SELF"]},"groups":["room:a"]}},
			{"bind":{"to":{"groups":["room:a"]},"user":"7"}},
			{"update_session":{"to":{"users":["7"]},"session":{"n":9007199254740993}}},
			{"send":{"to":{"users":["7"]},"text":"to you"}},
			{"send":{"to":{"groups":["room:a"]},"binary":"AP8="}},
			{"send":{"to":{}, "text":"to nobody: an error, and the rest is done"}},
			{"send":{"to":{"all":true,"except":{"clients":["SELF"]}},"json":{"to":"all"}}},
			{"close":{"to":{"all":true,"endpoints":["other"]},"code":4000,"reason":"enough"}}]}`
		tom.Send("go")
		tom.Want("to you", "\x00\xff")
		eve.Want(`{"to":"all"}`)
		if reason := eve.WantClose(4000); reason != "enough" {
			t.Errorf("closed for %q", reason)
		}
		c := s.Gateway.Client(tomID)
		if got := quote(c.Session()); c.User() != "7" || !c.In("room:a") || got != `{"n":9007199254740993}` {
			t.Errorf("tom is %q in %q with %s", c.User(), c.Groups(), got)
		}
	})
}

// Who somebody is must be settled before anything else happens to the client: what
// connect answers is there with the first message.
func TestAnswerToConnectIdentifiesTheClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &backend{t: t}
		b.answer = func(p *post) (*http.Response, error) {
			if p.is("connect") {
				return say(201, `{"user":"7","groups":["room:a"],"session":{"name":"tom"},
					"commands":[{"send":{"to":{"users":["7"]},"text":"welcome"}}]}`), nil
			}
			return say(204, ""), nil
		}
		s := serve(t, "", b)
		c := s.Dial("/test")
		c.Want("welcome")
		c.Send("who am I?")
		synctest.Wait()
		var client map[string]any
		if err := json.Unmarshal([]byte(quote(b.seen("message")[0].events[0]["client"])), &client); err != nil {
			t.Fatal(err)
		}
		if client["user"] != "7" || quote(client["groups"]) != `["room:a"]` || quote(client["session"]) != `{"name":"tom"}` {
			t.Errorf("the client is %v", client)
		}
	})
}
