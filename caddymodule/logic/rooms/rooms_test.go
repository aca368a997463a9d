package rooms_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/gorilla/websocket"

	"github.com/caddy-websocket/caddy-websocket/caddymodule/logic/rooms"
	"github.com/caddy-websocket/caddy-websocket/gateway"
	"github.com/caddy-websocket/caddy-websocket/gateway/gatewaytest"
)

// house is the logic behind a handshake that takes the user and groups from the
// query, as the lines user and join would.
type house struct{ *rooms.Rooms }

func (h house) OnConnect(c *gateway.Client, r *http.Request) error {
	query := r.URL.Query()
	if user := query.Get("user"); user != "" {
		if err := c.Bind(user); err != nil {
			return err
		}
	}
	if err := c.Join(query["group"]...); err != nil {
		return err
	}
	return h.Rooms.OnConnect(c, r)
}

func serve(t *testing.T) *gatewaytest.Server {
	t.Helper()
	return serveRooms(t, new(rooms.Rooms))
}

func serveRooms(t *testing.T, r *rooms.Rooms) *gatewaytest.Server {
	t.Helper()
	if err := r.Provision(caddy.Context{}); err != nil {
		t.Fatal(err)
	}
	return gatewaytest.ServeLogic(t, house{r})
}

// enter connects a user, who gets a welcome. It returns the client and its id.
func enter(t *testing.T, s *gatewaytest.Server, user string) (c *gatewaytest.Client, id string) {
	t.Helper()
	c = s.Dial("/test?user=" + user)
	id, _ = c.WantJSON(`{"type":"welcome"}`)["client"].(string)
	return c, id
}

// join enters a room and reads the news of it, which has so many members then.
func join(c *gatewaytest.Client, room string, members int) {
	c.Send(`{"type":"join","room":` + quote(room) + `}`)
	c.WantJSON(fmt.Sprintf(`{"type":"joined","room":%s,"members":%d}`, quote(room), members))
}

// quote returns s as a JSON string.
func quote(s string) string {
	b, _ := json.Marshal(s) // a string can be encoded
	return string(b)
}

// quiet fails the test if the client has been sent anything that it was not
// asked about: a ping is answered next.
func quiet(c *gatewaytest.Client) {
	c.Send(`{"type":"ping"}`)
	c.Want(`{"type":"pong"}`)
}

// A page shows who and where it is before anything else happens.
func TestWelcomeComesFirstAndSaysWhoOneIs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t)
		c := s.Dial("/test?user=tom&group=room:b&group=room:a&group=staff&group=room:")
		m := c.WantJSON(`{"type":"welcome","ip":"192.0.2.1","user":"tom","rooms":["a","b"]}`)
		if id, _ := m["client"].(string); s.Gateway.Client(id) == nil {
			t.Errorf("%q is no client", id)
		}
		c.WantJSON(`{"type":"joined","room":"a","user":"tom","members":1}`)
		c.WantJSON(`{"type":"joined","room":"b","user":"tom","members":1}`)
		quiet(c)

		nobody := s.Dial("/test")
		nobody.WantJSON(`{"type":"welcome","user":"","rooms":[]}`)
		quiet(nobody)
	})
}

func TestMembersSeeWhoJoinsAndLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t)
		tom, _ := enter(t, s, "tom")
		eve, eveID := enter(t, s, "eve")
		out, _ := enter(t, s, "outsider")
		join(tom, "lobby", 1)
		join(eve, "lobby", 2)
		tom.WantJSON(`{"type":"joined","room":"lobby","client":"` + eveID + `","user":"eve","members":2}`)
		eve.Send(`{"type":"leave","room":"lobby"}`)
		left := `{"type":"left","room":"lobby","client":"` + eveID + `","user":"eve","members":1}`
		eve.WantJSON(left)
		tom.WantJSON(left)
		quiet(eve)
		quiet(tom)
		quiet(out)
	})
}

// Phones vanish without a word: the others must not go on seeing them.
func TestMembersSeeWhoVanishes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t)
		tom, _ := enter(t, s, "tom")
		join(tom, "a", 1)
		eve := s.Dial("/test?user=eve&group=room:a&group=room:b")
		eve.WantJSON(`{"type":"welcome"}`)
		tom.WantJSON(`{"type":"joined","room":"a","user":"eve","members":2}`)
		eve.Cut()
		tom.WantJSON(`{"type":"left","room":"a","user":"eve","members":1}`)
		quiet(tom) // and nothing of the room b
	})
}

func TestWhatIsSaidIsHeardInItsRoomOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t)
		tom, tomID := enter(t, s, "tom")
		eve, _ := enter(t, s, "eve")
		out, _ := enter(t, s, "outsider")
		join(tom, "lobby", 1)
		join(eve, "lobby", 2)
		tom.WantJSON(`{"type":"joined"}`)
		join(out, "elsewhere", 1)

		now := time.Now().UTC().Format(time.RFC3339)
		for _, text := range []string{"hello", "", "</script>\n\"", "日本語"} {
			tom.Send(`{"type":"say","room":"lobby","text":` + quote(text) + `}`)
			for _, c := range []*gatewaytest.Client{tom, eve} {
				m := c.WantJSON(`{"type":"said","room":"lobby","client":"` + tomID + `","user":"tom","time":"` + now + `"}`)
				if m["text"] != text {
					t.Errorf("heard %q, want %q", m["text"], text)
				}
			}
		}
		quiet(out)
	})
}

// The console snippet that everybody tries first sends text, not JSON.
func TestTextThatIsNoJSONObjectIsSaidInAllRooms(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t)
		tom, _ := enter(t, s, "tom")
		tom.Send("tom")
		tom.WantJSON(`{"type":"error","request":"say","error":"you are in no room: join one"}`)
		join(tom, "a", 1)
		join(tom, "b", 1)
		for _, text := range []string{"tom", `"quoted"`, "[1]", "42", "null", "", " "} {
			tom.Send(text)
			for _, room := range []string{"a", "b"} {
				if m := tom.WantJSON(`{"type":"said","room":"` + room + `"}`); m["text"] != text {
					t.Errorf("heard %q, want %q", m["text"], text)
				}
			}
		}
	})
}

func TestMembersAreListed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t)
		tom, tomID := enter(t, s, "tom")
		nobody := s.Dial("/test?group=room:lobby")
		nobodyID, _ := nobody.WantJSON(`{"type":"welcome"}`)["client"].(string)
		join(tom, "lobby", 2)
		members := []string{`{"client":"` + tomID + `","user":"tom"}`, `{"client":"` + nobodyID + `","user":""}`}
		slices.Sort(members) // the list is in the order of ids
		tom.Send(`{"type":"members","room":"lobby"}`)
		tom.Want(`{"type":"members","room":"lobby","members":[` + strings.Join(members, ",") + `],"more":false}`)
	})
}

// A list for a page ends somewhere, and says so.
func TestListOfMembersIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t)
		var tom *gatewaytest.Client
		for range rooms.MaxListed + 1 {
			tom, _ = enter(t, s, "tom")
		}
		if _, err := s.Gateway.Join(gateway.All(), "room:big"); err != nil {
			t.Fatal(err)
		}
		tom.Send(`{"type":"members","room":"big"}`)
		m := tom.WantJSON(`{"type":"members","room":"big","more":true}`)
		if list, _ := m["members"].([]any); len(list) != rooms.MaxListed {
			t.Errorf("%d members are listed, want %d", len(list), rooms.MaxListed)
		}
	})
}

// A client can do to rooms what the protocol says, and nothing to groups that
// the application uses for other things.
func TestForgedRoomNamesReachNoOtherGroup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t)
		staff := s.Dial("/test?user=boss&group=staff&group=room:board")
		staff.WantJSON(`{"type":"welcome","rooms":["board"]}`)
		staff.WantJSON(`{"type":"joined"}`)
		eve, eveID := enter(t, s, "eve")
		for _, room := range []string{"board", "staff", "room:board", ":board", "", "*", "board\u0000"} {
			for _, kind := range []string{"say", "leave", "members"} {
				eve.Send(`{"type":"` + kind + `","room":` + quote(room) + `,"text":"hello"}`)
				eve.WantJSON(`{"type":"error","request":"` + kind + `","error":"you are not in this room"}`)
			}
		}
		for _, room := range []string{"staff", "room:board", "../staff", "a\nb"} {
			join(eve, room, 1)
		}
		groups := s.Gateway.Client(eveID).Groups()
		want := []string{"room:../staff", "room:a\nb", "room:room:board", "room:staff"}
		if !slices.Equal(groups, want) {
			t.Errorf("eve is in %q, want %q", groups, want)
		}
		eve.Send("hello")
		for range want {
			eve.WantJSON(`{"type":"said"}`)
		}
		quiet(staff)
	})
}

func TestErrorsAreAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t)
		tom, _ := enter(t, s, "tom")
		join(tom, "lobby", 1)
		const unjoinable = "this room cannot be joined: names have 1 to 250 bytes, and a client may be in 1000 groups"
		for _, tt := range []struct{ send, want string }{
			{`{"type":"join","room":"lobby"}`, `{"type":"error","request":"join","room":"lobby","error":"you are in this room already"}`},
			{`{"type":"join"}`, `{"type":"error","request":"join","error":"` + unjoinable + `"}`},
			{`{"type":"join","room":"` + strings.Repeat("x", 251) + `"}`, `{"type":"error","request":"join","error":"` + unjoinable + `"}`},
			{`{"type":"leave","room":"other"}`, `{"type":"error","request":"leave","room":"other","error":"you are not in this room"}`},
			{`{"type":"shout","room":"lobby"}`, `{"type":"error","request":"shout","room":"lobby","error":"unknown type \"shout\": allowed are join, leave, say, members, ping"}`},
			{`{}`, `{"type":"error","error":"unknown type \"\": allowed are join, leave, say, members, ping"}`},
			{`{"type":"join","room":`, `{"type":"error"}`},
			{`{"type":"join","room":5}`, `{"type":"error"}`},
			{`{"type":"join"} and more`, `{"type":"error"}`},
		} {
			tom.Send(tt.send)
			tom.WantJSON(tt.want)
		}
		join(tom, strings.Repeat("x", 250), 1)
		if err := tom.Conn.WriteMessage(websocket.BinaryMessage, []byte(`{"type":"ping"}`)); err != nil {
			t.Fatal(err)
		}
		tom.WantJSON(`{"type":"error","error":"binary messages mean nothing here: send JSON objects as text"}`)
		quiet(tom)
	})
}

// Whoever joins room after room must come to an end.
func TestRoomsOfAClientAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tom, _ := enter(t, serve(t), "tom")
		for i := range gateway.MaxGroupsPerClient {
			join(tom, fmt.Sprint(i), 1)
		}
		tom.Send(`{"type":"join","room":"one more"}`)
		tom.WantJSON(`{"type":"error","request":"join","room":"one more"}`)
		tom.Send(`{"type":"leave","room":"0"}`)
		tom.WantJSON(`{"type":"left","members":0}`)
		join(tom, "one more", 1)
	})
}

// Two endpoints whose rooms are to be apart have prefixes of their own.
func TestPrefixIsThatOfTheOption(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := new(rooms.Rooms)
		if err := r.UnmarshalCaddyfile(caddyfile.NewTestDispenser("rooms {\n prefix chat/\n}")); err != nil {
			t.Fatal(err)
		}
		s := serveRooms(t, r)
		c := s.Dial("/test?group=room:a&group=chat/b")
		id, _ := c.WantJSON(`{"type":"welcome","rooms":["b"]}`)["client"].(string)
		c.WantJSON(`{"type":"joined","room":"b"}`)
		join(c, "c", 1)
		if groups := s.Gateway.Client(id).Groups(); !slices.Equal(groups, []string{"chat/b", "chat/c", "room:a"}) {
			t.Errorf("the groups are %q", groups)
		}
	})
}

// Other programs reach a room's members as a group.
func TestRoomIsAGroup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t)
		tom, _ := enter(t, s, "tom")
		join(tom, "lobby", 1)
		if n, err := s.Gateway.Send(gateway.Groups(rooms.DefaultPrefix+"lobby"), gateway.Text("from outside")); n != 1 || err != nil {
			t.Errorf("sent to %d clients, %v", n, err)
		}
		tom.Want("from outside")
	})
}

func TestOptionsThatAreWrongAreRefused(t *testing.T) {
	for input, ok := range map[string]bool{
		"rooms":                            true,
		"rooms {\n}":                       true,
		"rooms {\n prefix a\n}":            true,
		"rooms lobby":                      false,
		"rooms {\n room a\n}":              false,
		"rooms {\n prefix\n}":              false,
		"rooms {\n prefix a b\n}":          false,
		"rooms {\n prefix \"\"\n}":         false,
		"rooms {\n prefix a\n prefix b\n}": false,
		"rooms {\n prefix a {\n  x\n }\n}": false,
		"rooms {\n prefix " + strings.Repeat("p", 255) + "\n}": false,
	} {
		err := new(rooms.Rooms).UnmarshalCaddyfile(caddyfile.NewTestDispenser(input))
		if (err == nil) != ok {
			t.Errorf("%.60q: %v", input, err)
		}
	}
}
