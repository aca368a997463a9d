// Package chat is message logic for a chat with named visitors: they log in with
// a name and a room, see who is there, and talk to all or to one.
package chat

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-websocket/caddy-websocket/gateway"
)

func init() { caddy.RegisterModule(new(Chat)) }

// What visitors can make grow, in characters and entries.
const (
	MaxName   = 32
	MaxRoom   = 32
	MaxText   = 4000
	MaxListed = 1000
)

// Chat lets visitors talk in rooms. One connection is in one room, under a name
// that need not be the only one of its kind: client ids tell visitors apart.
//
// Messages are JSON objects. From a client, login first:
//
//	{"type":"login","name":"tom","room":"lobby"}
//	{"type":"say","text":"hello"}
//	{"type":"say","text":"hello you","to":"<client>"}
//	{"type":"pong"}
//
// To a client:
//
//	{"type":"welcome","client":"...","name":"tom","room":"lobby","members":[{"client":"...","name":"tom"}],"time":"2026-01-02T15:04:05Z"}
//	{"type":"login","client":"...","name":"eve","time":"..."}
//	{"type":"logout","client":"...","name":"eve","time":"..."}
//	{"type":"said","client":"...","name":"eve","text":"hello","time":"..."}
//	{"type":"said","client":"...","name":"eve","text":"hello you","to":"<client>","time":"..."}
//	{"type":"error","request":"say","error":"..."}
//
// welcome answers login and lists everybody in the room; login and logout go to
// the others there. said goes also to the one who said it. error goes to the one
// whose message meant nothing, and has no other consequence. pong answers the
// option `heartbeat 20s {"type":"ping"} 2` and is itself not answered.
//
// Names and text are passed on as they came: who shows them in a page inserts
// them as text, never as HTML.
type Chat struct {
	// door is held while somebody comes or goes, so that the list in his welcome
	// and the news around it reach everybody in the same order.
	door sync.Mutex

	gateway.NopLogic
}

// CaddyModule returns the Caddy module information.
func (*Chat) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "websocket.logic.chat", New: func() caddy.Module { return new(Chat) }}
}

// request is what a client sends.
type request struct {
	Type string `json:"type"`
	Name string `json:"name"`
	Room string `json:"room"`
	Text string `json:"text"`
	To   string `json:"to"`
}

// event is what a client is sent.
type event struct {
	Type    string   `json:"type"`
	Client  string   `json:"client,omitempty"`
	Name    string   `json:"name,omitempty"`
	Room    string   `json:"room,omitempty"`
	Members []member `json:"members,omitempty"`
	Text    string   `json:"text,omitempty"`
	To      string   `json:"to,omitempty"`
	Time    string   `json:"time,omitempty"`
	Request string   `json:"request,omitempty"`
	Error   string   `json:"error,omitempty"`
}

// member is an entry of the list of who is in a room.
type member struct {
	Client string `json:"client"`
	Name   string `json:"name"`
}

// OnMessage does what the client asks for. What makes no sense is answered with
// an error message: an error returned from here would close the connection.
func (ch *Chat) OnMessage(c *gateway.Client, m gateway.Message) error {
	var q request
	if m.Type != gateway.TextMessage || json.Unmarshal(m.Data, &q) != nil {
		return complain(c, "", `not understood: send text like {"type":"login","name":"tom","room":"lobby"}`)
	}
	switch q.Type {
	case "login":
		return ch.login(c, strings.TrimSpace(q.Name), strings.TrimSpace(q.Room))
	case "say":
		return say(c, q.Text, q.To)
	case "pong":
		return nil // that it came is what the heartbeat wants to know
	}
	return complain(c, q.Type, "unknown type: allowed are login, say, pong")
}

// OnClose tells the room.
func (ch *Chat) OnClose(c *gateway.Client, _ gateway.CloseReason) {
	room := roomOf(c)
	if room == "" {
		return
	}
	ch.door.Lock()
	defer ch.door.Unlock()
	_ = send(c.Gateway(), everybodyIn(room), news(c, "logout")) // cannot fail: it is small and text
}

func (ch *Chat) login(c *gateway.Client, name, room string) error {
	switch {
	case roomOf(c) != "":
		return complain(c, "login", "you are logged in already: connect again for another name or room")
	case !isName(name, MaxName):
		return complain(c, "login", fmt.Sprintf("the name must have 1 to %d characters, and no control characters", MaxName))
	case !isName(room, MaxRoom):
		return complain(c, "login", fmt.Sprintf("the room must have 1 to %d characters, and no control characters", MaxRoom))
	}
	if err := c.Session().Update(map[string]any{"name": name, "room": room}); err != nil {
		return err
	}
	ch.door.Lock()
	defer ch.door.Unlock()
	if err := c.Join(groupOf(room)); err != nil {
		return err
	}
	members, err := membersOf(c, room)
	if err != nil {
		return err
	}
	welcome := news(c, "welcome")
	welcome.Room, welcome.Members = room, members
	if err := send(c.Gateway(), gateway.Clients(c.ID()), welcome); err != nil {
		return err
	}
	return send(c.Gateway(), everybodyIn(room).ExceptClients(c.ID()), news(c, "login"))
}

// say says the text to one client in the room, or to all if to is empty.
func say(c *gateway.Client, text, to string) error {
	room := roomOf(c)
	said := news(c, "said")
	said.Text, said.To = text, to
	switch {
	case room == "":
		return complain(c, "say", "log in first")
	case strings.TrimSpace(text) == "" || utf8.RuneCountInString(text) > MaxText:
		return complain(c, "say", fmt.Sprintf("the text must have 1 to %d characters", MaxText))
	case to == "":
		return send(c.Gateway(), everybodyIn(room), said)
	}
	other, err := c.Gateway().ClientInfo(c.Context(), to, true) // he may be on another node
	if err != nil || other.Session.Text("room") != room {
		return complain(c, "say", "nobody with this client id is in the room")
	}
	return send(c.Gateway(), gateway.Clients(to, c.ID()), said)
}

// news says that the client did something, now.
func news(c *gateway.Client, what string) event {
	return event{
		Type: what, Client: c.ID(), Name: c.Session().Text("name"),
		Time: time.Now().UTC().Format(time.RFC3339),
	}
}

// complain tells the client alone what was wrong with its request.
func complain(c *gateway.Client, request, problem string) error {
	const shown = 32
	return send(c.Gateway(), gateway.Clients(c.ID()), event{Type: "error", Request: cut(request, shown), Error: problem})
}

func send(g *gateway.Gateway, to gateway.Target, e event) error {
	m, err := gateway.JSON(e)
	if err != nil {
		return err
	}
	_, err = g.Send(to, m)
	return err
}

// membersOf lists who is in the room, by name.
func membersOf(c *gateway.Client, room string) ([]member, error) {
	list, err := c.Gateway().Clients(c.Context(), gateway.Query{
		Group: groupOf(room), Session: true, Page: gateway.Page{Limit: MaxListed},
	})
	if err != nil {
		return nil, err
	}
	members := make([]member, 0, len(list.Clients))
	for _, other := range list.Clients {
		members = append(members, member{other.ID, other.Session.Text("name")})
	}
	slices.SortStableFunc(members, func(a, b member) int { return strings.Compare(a.Name, b.Name) })
	return members, nil
}

// roomOf returns the room that the client has logged in to, or "".
func roomOf(c *gateway.Client) string { return c.Session().Text("room") }

// groupOf returns the group of a room's clients.
func groupOf(room string) string { return "chat:" + room }

func everybodyIn(room string) gateway.Target { return gateway.Groups(groupOf(room)) }

func isName(s string, most int) bool {
	return s != "" && utf8.RuneCountInString(s) <= most && !strings.ContainsFunc(s, unicode.IsControl)
}

// cut returns at most so many characters of s.
func cut(s string, most int) string {
	if runes := []rune(s); len(runes) > most {
		return string(runes[:most]) + "…"
	}
	return s
}

// Interface guards
var _ gateway.Logic = (*Chat)(nil)
