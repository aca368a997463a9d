// Package rooms is message logic for chat rooms: clients join rooms, talk in
// them, and see who comes and goes.
package rooms

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-websocket/caddy-websocket/gateway"
)

func init() {
	caddy.RegisterModule(&Rooms{})
}

// DefaultPrefix comes before a room's name in the name of its group.
const DefaultPrefix = "room:"

// MaxListed is how many members a list of them has at most.
const MaxListed = 1000

// Rooms lets clients talk in rooms. A room is the group of its name behind a
// prefix, so other programs reach its members as a group, `join room:lobby` puts
// a client into it at the handshake, and clients get into no other groups.
//
// Messages are JSON objects. From a client:
//
//	{"type":"join","room":"lobby"}
//	{"type":"leave","room":"lobby"}
//	{"type":"say","room":"lobby","text":"hello"}
//	{"type":"members","room":"lobby"}
//	{"type":"ping"}
//
// Text that is no JSON object is said in every room that the client is in. To a
// client:
//
//	{"type":"welcome","client":"...","ip":"192.0.2.7","user":"tom","rooms":["lobby"]}
//	{"type":"joined","room":"lobby","client":"...","user":"tom","members":3}
//	{"type":"left","room":"lobby","client":"...","user":"tom","members":2}
//	{"type":"said","room":"lobby","client":"...","user":"tom","text":"hello","time":"2026-01-02T15:04:05Z"}
//	{"type":"members","room":"lobby","members":[{"client":"...","user":"tom"}],"more":false}
//	{"type":"pong"}
//	{"type":"error","request":"join","room":"lobby","error":"..."}
//
// welcome comes first; joined also to the one who joined, left also to the one
// who left of its own accord, said also to the one who said it. more is set if there are
// more than MaxListed, or not all of the gateway's nodes have answered; then a number of
// members, too, is that of those who have. members also comes unasked, to all in a room,
// when one of the nodes is lost, and when it is back.
type Rooms struct {
	// Prefix comes before a room's name in the name of its group. Default: `room:`.
	Prefix string `json:"prefix,omitempty"`

	lost map[string]bool // nodes; used by OnNode only, which is called once at a time
}

// CaddyModule returns the Caddy module information.
func (*Rooms) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "websocket.logic.rooms", New: func() caddy.Module { return new(Rooms) }}
}

// Provision fills in the default.
func (r *Rooms) Provision(caddy.Context) error {
	if r.Prefix == "" {
		r.Prefix = DefaultPrefix
	}
	return nil
}

// Validate checks that the prefix leaves room for names.
func (r *Rooms) Validate() error {
	const most = gateway.MaxNameLength / 2
	if len(r.Prefix) > most || !utf8.ValidString(r.Prefix) {
		return fmt.Errorf("prefix %.32q has %d bytes: allowed are %d bytes of UTF-8, to leave some for the rooms' names", r.Prefix, len(r.Prefix), most)
	}
	return nil
}

// request is what a client sends.
type request struct {
	Type string `json:"type"`
	Room string `json:"room"`
	Text string `json:"text"`
}

// event is what a client is sent.
type event struct {
	Type    string   `json:"type"`
	Request string   `json:"request,omitempty"`
	Room    string   `json:"room,omitempty"`
	Client  string   `json:"client,omitempty"`
	IP      string   `json:"ip,omitempty"`
	User    *string  `json:"user,omitempty"`
	Rooms   []string `json:"rooms,omitzero"`
	Members any      `json:"members,omitempty"` // a number or a list
	More    *bool    `json:"more,omitempty"`
	Text    *string  `json:"text,omitempty"`
	Time    string   `json:"time,omitempty"`
	Error   string   `json:"error,omitempty"`
}

// member is an entry of a list of members.
type member struct {
	Client string `json:"client"`
	User   string `json:"user"`
}

// OnConnect welcomes the client and tells the rooms that it joined at the
// handshake.
func (r *Rooms) OnConnect(c *gateway.Client, _ *http.Request) error {
	rooms := r.rooms(c)
	user := c.User()
	if err := c.SendJSON(event{Type: "welcome", Client: c.ID(), IP: c.RealIP(), User: &user, Rooms: rooms}); err != nil {
		return err
	}
	for _, room := range rooms {
		if err := r.announce(c, "joined", room); err != nil {
			return err
		}
	}
	return nil
}

// OnMessage does what the client asks for.
func (r *Rooms) OnMessage(c *gateway.Client, m gateway.Message) error {
	if m.Type != gateway.TextMessage {
		return c.SendJSON(event{Type: "error", Error: "binary messages mean nothing here: send JSON objects as text"})
	}
	if data := bytes.TrimSpace(m.Data); len(data) == 0 || data[0] != '{' {
		return r.sayEverywhere(c, m.String())
	}
	var q request
	if err := json.Unmarshal(m.Data, &q); err != nil {
		return c.SendJSON(event{Type: "error", Error: fmt.Sprintf("not a JSON object that is understood here: %v", err)})
	}
	return r.answer(c, q)
}

// OnClose tells the client's rooms.
func (r *Rooms) OnClose(c *gateway.Client, _ gateway.CloseReason) {
	for _, room := range r.rooms(c) {
		_ = r.announce(c, "left", room) // cannot fail: the room's name was accepted before
	}
}

func (r *Rooms) answer(c *gateway.Client, q request) error {
	var problem string
	switch q.Type {
	case "ping":
		return c.SendJSON(event{Type: "pong"})
	case "join":
		if r.in(c, q.Room) {
			problem = "you are in this room already"
			break
		}
		if q.Room == "" || c.Join(r.Prefix+q.Room) != nil {
			problem = "this room cannot be joined: names have 1 to " + fmt.Sprint(gateway.MaxNameLength-len(r.Prefix)) +
				" bytes, and a client may be in " + fmt.Sprint(gateway.MaxGroupsPerClient) + " groups"
			break
		}
		return r.announce(c, "joined", q.Room)
	case "leave", "say", "members":
		if !r.in(c, q.Room) {
			problem = "you are not in this room"
			break
		}
		return r.answerMember(c, q)
	default:
		problem = fmt.Sprintf("unknown type %.50q: allowed are join, leave, say, members, ping", q.Type)
	}
	return c.SendJSON(event{Type: "error", Request: q.Type, Room: q.Room, Error: problem})
}

// answerMember answers what only members of the room may ask.
func (r *Rooms) answerMember(c *gateway.Client, q request) error {
	switch q.Type {
	case "leave":
		if err := c.Leave(r.Prefix + q.Room); err != nil {
			return err
		}
		if err := r.announce(c, "left", q.Room); err != nil {
			return err
		}
		return c.SendJSON(r.news(c, "left", q.Room))
	case "say":
		return r.say(c, q.Room, q.Text)
	}
	return c.SendJSON(r.members(c.Context(), c.Gateway(), q.Room))
}

func (r *Rooms) sayEverywhere(c *gateway.Client, text string) error {
	rooms := r.rooms(c)
	if len(rooms) == 0 {
		return c.SendJSON(event{Type: "error", Request: "say", Error: "you are in no room: join one"})
	}
	for _, room := range rooms {
		if err := r.say(c, room, text); err != nil {
			return err
		}
	}
	return nil
}

func (r *Rooms) say(c *gateway.Client, room, text string) error {
	user := c.User()
	return r.tell(c, room, event{
		Type: "said", Room: room, Client: c.ID(), User: &user, Text: &text,
		Time: time.Now().UTC().Format(time.RFC3339),
	})
}

// announce tells a room that the client came or went.
func (r *Rooms) announce(c *gateway.Client, what, room string) error {
	return r.tell(c, room, r.news(c, what, room))
}

func (r *Rooms) news(c *gateway.Client, what, room string) event {
	// In OnClose the client's own context is done.
	ctx := context.WithoutCancel(c.Context())
	members, _ := c.Gateway().Count(ctx, gateway.Groups(r.Prefix+room)) // the target is not empty
	user := c.User()
	return event{Type: what, Room: room, Client: c.ID(), User: &user, Members: members.Clients}
}

func (r *Rooms) tell(c *gateway.Client, room string, e event) error {
	m, err := gateway.JSON(e)
	if err != nil {
		return err
	}
	if _, err = c.Gateway().Send(gateway.Groups(r.Prefix+room), m); errors.Is(err, gateway.ErrLocalOnly) {
		return nil // the log says that this node is on its own
	}
	return err
}

// rooms returns the rooms that the client is in, sorted.
func (r *Rooms) rooms(c *gateway.Client) []string {
	rooms := []string{}
	for _, group := range c.Groups() {
		if room, ok := strings.CutPrefix(group, r.Prefix); ok && room != "" {
			rooms = append(rooms, room)
		}
	}
	return rooms
}

func (r *Rooms) in(c *gateway.Client, room string) bool {
	return room != "" && c.In(r.Prefix+room)
}

// UnmarshalCaddyfile sets up the logic from the lines:
//
//	logic rooms {
//		prefix <text>
//	}
func (r *Rooms) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the module's name
	if d.NextArg() {
		return d.Errf("logic rooms takes no arguments, found %q", d.Val())
	}
	for d.NextBlock(0) {
		if d.Val() != "prefix" {
			return d.Errf("unknown option %q of logic rooms: allowed is prefix", d.Val())
		}
		if r.Prefix != "" {
			return d.Err("prefix is given twice")
		}
		if !d.AllArgs(&r.Prefix) || r.Prefix == "" || d.NextBlock(1) {
			return d.Err("the syntax is prefix <text>")
		}
	}
	if err := r.Validate(); err != nil {
		return d.WrapErr(err)
	}
	return nil
}

// Interface guards
var (
	_ caddy.Provisioner     = (*Rooms)(nil)
	_ caddy.Validator       = (*Rooms)(nil)
	_ gateway.Logic         = (*Rooms)(nil)
	_ caddyfile.Unmarshaler = (*Rooms)(nil)
)
