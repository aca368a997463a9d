package chat_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gorilla/websocket"

	"github.com/caddy-websocket/caddy-websocket/examples/chat"
	"github.com/caddy-websocket/caddy-websocket/gateway"
	"github.com/caddy-websocket/caddy-websocket/gateway/gatewaytest"
)

func serve(t *testing.T) *gatewaytest.Server {
	t.Helper()
	return gatewaytest.ServeLogic(t, new(chat.Chat))
}

// login enters a room. It returns the client, its id and its welcome.
func login(s *gatewaytest.Server, name, room string) (c *gatewaytest.Client, id string, welcome map[string]any) {
	c = s.Dial("/test")
	c.Send(fmt.Sprintf(`{"type":"login","name":%s,"room":%s}`, quote(name), quote(room)))
	welcome = c.WantJSON(fmt.Sprintf(`{"type":"welcome","name":%s,"room":%s}`, quote(name), quote(room)))
	id, _ = welcome["client"].(string)
	return c, id, welcome
}

// quote returns s as a JSON string.
func quote(s string) string {
	b, _ := json.Marshal(s) // a string can be encoded
	return string(b)
}

// quiet fails the test if the client has been sent anything that it was not
// asked about: what it is told of its own mistake comes next.
func quiet(c *gatewaytest.Client) {
	c.Send(`{"type":"are you there"}`)
	c.WantJSON(`{"type":"error","request":"are you there"}`)
}

func TestWelcomeListsEverybodyInTheRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t)
		_, tomID, _ := login(s, "tom", "lobby")
		_, _, _ = login(s, "ann", "kitchen")
		_, eveID, welcome := login(s, "eve", "lobby")
		want := fmt.Sprint([]any{
			map[string]any{"client": eveID, "name": "eve"},
			map[string]any{"client": tomID, "name": "tom"},
		})
		if got := fmt.Sprint(welcome["members"]); got != want {
			t.Errorf("eve sees %s, want %s", got, want)
		}
	})
}

func TestLoginIsToldToTheOthersInTheRoomOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t)
		tom, _, _ := login(s, "tom", "lobby")
		ann, _, _ := login(s, "ann", "kitchen")
		nobody := s.Dial("/test")
		eve, eveID, _ := login(s, "eve", "lobby")
		now := time.Now().UTC().Format(time.RFC3339)
		tom.WantJSON(fmt.Sprintf(`{"type":"login","client":%q,"name":"eve","time":%q}`, eveID, now))
		for _, c := range []*gatewaytest.Client{tom, ann, nobody, eve} {
			quiet(c)
		}
	})
}

func TestSayToAllIsHeardInTheRoomOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t)
		tom, tomID, _ := login(s, "tom", "lobby")
		eve, _, _ := login(s, "eve", "lobby")
		tom.WantJSON(`{"type":"login","name":"eve"}`)
		ann, _, _ := login(s, "ann", "kitchen")
		nobody := s.Dial("/test")
		for _, text := range []string{"hello", "</script>\n\"", "日本語 👪", strings.Repeat("x", chat.MaxText)} {
			tom.Send(`{"type":"say","text":` + quote(text) + `}`)
			for _, c := range []*gatewaytest.Client{tom, eve} {
				m := c.WantJSON(fmt.Sprintf(`{"type":"said","client":%q,"name":"tom"}`, tomID))
				if m["text"] != text || m["to"] != nil {
					t.Errorf("heard %v, want %q to all", m, text)
				}
			}
		}
		quiet(ann)
		quiet(nobody)
	})
}

func TestSayToOneIsHeardByThatOneAndTheSpeaker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t)
		tom, tomID, _ := login(s, "tom", "lobby")
		eve, eveID, _ := login(s, "eve", "lobby")
		ann, _, _ := login(s, "ann", "lobby")
		tom.WantJSON(`{"type":"login","name":"eve"}`)
		tom.WantJSON(`{"type":"login","name":"ann"}`)
		eve.WantJSON(`{"type":"login","name":"ann"}`)

		tom.Send(`{"type":"say","text":"psst","to":"` + eveID + `"}`)
		said := fmt.Sprintf(`{"type":"said","client":%q,"name":"tom","text":"psst","to":%q}`, tomID, eveID)
		eve.WantJSON(said)
		tom.WantJSON(said)
		tom.Send(`{"type":"say","text":"to myself","to":"` + tomID + `"}`)
		tom.WantJSON(`{"type":"said","text":"to myself"}`)
		for _, c := range []*gatewaytest.Client{tom, eve, ann} {
			quiet(c)
		}
	})
}

// In GatewayWorker a phone that vanishes stays in the list until a heartbeat is
// missed, and for ever if the process was killed.
func TestLogoutIsToldHoweverTheClientLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t)
		tom, _, _ := login(s, "tom", "lobby")
		for _, leave := range []func(*gatewaytest.Client){
			func(c *gatewaytest.Client) { c.Close(websocket.CloseNormalClosure, "") },
			func(c *gatewaytest.Client) { c.Cut() },
			func(c *gatewaytest.Client) { c.Write([]byte("no frame at all")) },
		} {
			eve, eveID, _ := login(s, "eve", "lobby")
			tom.WantJSON(`{"type":"login","name":"eve"}`)
			leave(eve)
			tom.WantJSON(fmt.Sprintf(`{"type":"logout","client":%q,"name":"eve"}`, eveID))
		}
		s.Dial("/test").Cut() // never logged in
		quiet(tom)
	})
}

// In workerman-chat one message of an anonymous visitor ("say" before "login")
// ends a worker process.
func TestBadInputIsAnsweredAndHurtsNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t)
		tom, tomID, _ := login(s, "tom", "lobby")
		ann, annID, _ := login(s, "ann", "kitchen")
		stranger := s.Dial("/test")
		for _, tt := range []struct {
			by            *gatewaytest.Client
			message, want string
		}{
			{stranger, `{"type":"say","text":"hello"}`, "log in first"},
			{stranger, `{"type":"say","text":"hello","to":"` + tomID + `"}`, "log in first"},
			{stranger, ``, "not understood"},
			{stranger, `hello`, "not understood"},
			{stranger, `"hello"`, "not understood"},
			{stranger, `[{"type":"say"}]`, "not understood"},
			{stranger, `42`, "not understood"},
			{stranger, `{"type":"login","name":"eve"`, "not understood"},
			{stranger, `{"type":"login","name":["eve"],"room":"lobby"}`, "not understood"},
			{stranger, `{"type":7}`, "not understood"},
			{stranger, strings.Repeat("[", 20000), "not understood"},
			{stranger, `null`, "unknown type"},
			{stranger, `{}`, "unknown type"},
			{stranger, `{"type":"` + strings.Repeat("x", 10000) + `"}`, "unknown type"},
			{stranger, `{"type":"login"}`, "the name must"},
			{stranger, `{"type":"login","name":" ","room":"lobby"}`, "the name must"},
			{stranger, `{"type":"login","name":"a\nb","room":"lobby"}`, "the name must"},
			{stranger, `{"type":"login","name":"` + strings.Repeat("x", 100000) + `","room":"lobby"}`, "the name must"},
			{stranger, `{"type":"login","name":"eve"}`, "the room must"},
			{stranger, `{"type":"login","name":"eve","room":"` + strings.Repeat("日", chat.MaxRoom+1) + `"}`, "the room must"},
			{tom, `{"type":"login","name":"eve","room":"lobby"}`, "logged in already"},
			{tom, `{"type":"say"}`, "the text must"},
			{tom, `{"type":"say","text":"` + strings.Repeat("x", chat.MaxText+1) + `"}`, "the text must"},
			{tom, `{"type":"say","text":"hello","to":"nobody"}`, "nobody with this client id"},
			{tom, `{"type":"say","text":"hello","to":"` + annID + `"}`, "nobody with this client id"},
		} {
			tt.by.Send(tt.message)
			m := tt.by.WantJSON(`{"type":"error"}`)
			if problem, _ := m["error"].(string); !strings.Contains(problem, tt.want) {
				t.Errorf("%.100s is answered with %q, want %q", tt.message, problem, tt.want)
			}
			if request, _ := m["request"].(string); len(request) > 100 {
				t.Errorf("%.100s is answered with %d bytes of itself", tt.message, len(request))
			}
		}
		if err := stranger.Conn.WriteMessage(websocket.BinaryMessage, []byte{0xff, 0}); err != nil {
			t.Fatal(err)
		}
		stranger.WantJSON(`{"type":"error"}`)
		for _, c := range []*gatewaytest.Client{stranger, tom, ann} {
			quiet(c)
		}
	})
}

// After a mistake one can still log in.
func TestAFailedLoginLeavesNoTrace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t)
		c := s.Dial("/test")
		c.Send(`{"type":"login","name":"tom","room":""}`)
		c.WantJSON(`{"type":"error","request":"login"}`)
		c.Send(`{"type":"login","name":" tom ","room":"` + strings.Repeat("日", chat.MaxRoom) + `"}`)
		c.WantJSON(`{"type":"welcome","name":"tom"}`)
	})
}

// list is who a page shows as members: those of its welcome, and the news after it.
type list struct {
	mu    sync.Mutex
	names map[string]string // guarded by mu; nil before the welcome
}

// follow keeps the list up to date until the connection ends.
func (l *list) follow(c *gatewaytest.Client) {
	for {
		var m struct {
			Type, Client, Name string
			Members            []struct{ Client, Name string }
		}
		if c.Conn.ReadJSON(&m) != nil {
			return
		}
		l.mu.Lock()
		switch m.Type {
		case "welcome":
			l.names = make(map[string]string)
			for _, member := range m.Members {
				l.names[member.Client] = member.Name
			}
		case "login":
			l.names[m.Client] = m.Name
		case "logout":
			delete(l.names, m.Client)
		}
		l.mu.Unlock()
	}
}

// Whatever the order in which people come and go, all pages must show the same
// in the end.
func TestEverybodyEndsUpWithTheSameMembers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t)
		const visitors, stay = 32, 24
		var lists [visitors]list
		var clients [visitors]*gatewaytest.Client
		for i := range clients {
			clients[i] = s.Dial("/test")
			go lists[i].follow(clients[i])
		}
		for i, c := range clients {
			go func() {
				login := fmt.Appendf(nil, `{"type":"login","name":"visitor %d","room":"lobby"}`, i)
				if err := c.Conn.WriteMessage(websocket.TextMessage, login); err != nil {
					t.Error(err)
				}
				if i >= stay {
					c.Cut()
				}
			}()
		}
		synctest.Wait()
		for i := range stay {
			lists[i].mu.Lock()
			defer lists[i].mu.Unlock()
			if !maps.Equal(lists[i].names, lists[0].names) || len(lists[i].names) != stay {
				t.Fatalf("visitor %d sees %v, visitor 0 sees %v, want %d members", i, lists[i].names, lists[0].names, stay)
			}
		}
	})
}

// The option `heartbeat` of the Caddyfile beside this file.
func TestOnlyWhoAnswersHeartbeatsStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := gatewaytest.Serve(t, gatewaytest.Endpoint(t, "test", gateway.EndpointOptions{
			Logic:        new(chat.Chat),
			PingInterval: -1,
			Heartbeat:    gateway.Heartbeat{Interval: 10 * time.Second, Text: `{"type":"ping"}`, MaxUnanswered: 2},
		}))
		login(s, "eve", "lobby")
		tom, _, _ := login(s, "tom", "lobby")
		start := time.Now()
		for {
			m := tom.WantJSON(`{}`)
			if m["type"] == "logout" {
				break
			}
			if m["type"] != "ping" || time.Since(start) > time.Minute {
				t.Fatalf("received %v after %s, want a heartbeat, and eve's logout in time", m, time.Since(start))
			}
			tom.Send(`{"type":"pong"}`)
		}
		for range 5 {
			tom.WantJSON(`{"type":"ping"}`)
			tom.Send(`{"type":"pong"}`)
		}
	})
}
