// Package lobby is message logic for one room on many nodes: who is in it is told on which
// node everybody is, and hears when a node joins, leaves or is lost.
package lobby

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-websocket/caddy-websocket/gateway"
)

func init() { caddy.RegisterModule(new(Lobby)) }

// What visitors can make grow, in characters and entries.
const (
	MaxName   = 32
	MaxText   = 2000
	MaxListed = 1000
)

// group is everybody, on whatever node.
const group = "lobby"

// patience is how long a visitor waits for nodes that do not answer.
const patience = time.Second

// Lobby is a room. Who connects is in it, under the name and at the place that the
// session has (`session name {query.name}`, `session at {env.NODE_NAME}`).
//
// Messages are JSON objects. A client sends {"type":"say","text":"hello"}, and is sent:
//
//	{"type":"welcome","client":"...","node":"...","nodes":[{"node":"...","host":"...","clients":2,"self":true,"since":"..."}],"connected":true}
//	{"type":"members","members":[{"client":"...","name":"tom","at":"node 1"}],"missing":["..."]}
//	{"type":"came","client":"...","name":"eve","at":"node 2"}
//	{"type":"left","client":"..."}
//	{"type":"said","client":"...","name":"eve","at":"node 2","text":"hello","time":"2026-01-02T15:04:05Z"}
//	{"type":"node","node":"...","state":"lost","nodes":[...]}
//	{"type":"broker","connected":false}
//	{"type":"error","error":"..."}
//
// A client's id begins with its node's. members comes after welcome, and for a node
// that has joined; missing are nodes that did not answer in time. state is joined, left
// or lost: a page forgets the clients of a node that is lost, since nobody is left
// there to say that they have gone.
type Lobby struct {
	broker atomic.Bool // it could be reached a second ago

	gateway.NopLogic
}

// CaddyModule returns the Caddy module information.
func (*Lobby) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "websocket.logic.lobby", New: func() caddy.Module { return new(Lobby) }}
}

// event is what a client is sent.
type event struct {
	Type      string         `json:"type"`
	Client    string         `json:"client,omitempty"`
	Name      string         `json:"name,omitempty"`
	At        string         `json:"at,omitempty"`
	Text      string         `json:"text,omitempty"`
	Time      string         `json:"time,omitempty"`
	Node      string         `json:"node,omitempty"`
	State     string         `json:"state,omitempty"`
	Nodes     []gateway.Node `json:"nodes,omitempty"`
	Members   []member       `json:"members,omitzero"`
	Missing   []string       `json:"missing,omitempty"`
	Connected *bool          `json:"connected,omitempty"`
	Error     string         `json:"error,omitempty"`
}

// member is somebody in the room.
type member struct {
	Client string `json:"client"`
	Name   string `json:"name"`
	At     string `json:"at"`
}

// OnStart watches the broker.
func (l *Lobby) OnStart(g *gateway.Gateway) error {
	l.broker.Store(connected(g))
	g.Every(time.Second, func(context.Context) {
		if now := connected(g); l.broker.Swap(now) != now {
			_ = tellHere(g, event{Type: "broker", Connected: &now}) // cannot fail: it is small and text
		}
	})
	return nil
}

// connected tells whether other nodes can be reached.
func connected(g *gateway.Gateway) bool {
	c := g.Stats().Cluster
	return c != nil && c.Connected
}

// OnConnect lets the visitor in, and tells everybody.
func (*Lobby) OnConnect(c *gateway.Client, r *http.Request) error {
	if name := c.Session().Text("name"); name == "" || utf8.RuneCountInString(name) > MaxName {
		return &gateway.HandshakeError{Status: http.StatusBadRequest, Err: errors.New("the name must have 1 to 32 characters")}
	}
	ctx, cancel := context.WithTimeout(r.Context(), patience)
	defer cancel()
	// Nothing that is said anywhere from now on is missed. If a node does not answer, or the
	// broker is away, the visitor comes in all the same.
	_ = c.JoinWait(ctx, group)
	g := c.Gateway()
	up := connected(g)
	if err := c.SendJSON(event{Type: "welcome", Client: c.ID(), Node: g.Node(), Nodes: g.Nodes(), Connected: &up}); err != nil {
		return err
	}
	list, err := members(ctx, g, gateway.Query{})
	if err != nil {
		return err
	}
	if err := c.SendJSON(list); err != nil {
		return err
	}
	return tell(g, gateway.Groups(group).ExceptClients(c.ID()), news(c, "came"))
}

// OnMessage says something to everybody.
func (*Lobby) OnMessage(c *gateway.Client, m gateway.Message) error {
	var q struct{ Type, Text string }
	if m.Type != gateway.TextMessage || json.Unmarshal(m.Data, &q) != nil || q.Type != "say" {
		return c.SendJSON(event{Type: "error", Error: `not understood: send text like {"type":"say","text":"hello"}`})
	}
	if strings.TrimSpace(q.Text) == "" || utf8.RuneCountInString(q.Text) > MaxText {
		return c.SendJSON(event{Type: "error", Error: "the text must have 1 to 2000 characters"})
	}
	said := news(c, "said")
	said.Text, said.Time = q.Text, time.Now().UTC().Format(time.RFC3339)
	return tell(c.Gateway(), gateway.Groups(group), said)
}

// OnClose tells everybody.
func (*Lobby) OnClose(c *gateway.Client, _ gateway.CloseReason) {
	_ = tell(c.Gateway(), gateway.Groups(group), event{Type: "left", Client: c.ID()}) // cannot fail: it is small and text
}

// OnNode tells the visitors of this node what has become of another. Those of other
// nodes hear it from theirs.
func (*Lobby) OnNode(g *gateway.Gateway, e gateway.NodeEvent) {
	_ = tellHere(g, event{Type: "node", Node: e.ID, State: string(e.State), Nodes: g.Nodes()}) // cannot fail: it is small and text
	if e.State != gateway.NodeJoined {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	// It may have been cut off for a while, and its visitors been forgotten.
	if list, err := members(ctx, g, gateway.Query{Nodes: []string{e.ID}}); err == nil {
		_ = tellHere(g, list)
	}
}

// members lists who is in the room, on the nodes of q.
func members(ctx context.Context, g *gateway.Gateway, q gateway.Query) (event, error) {
	q.Group, q.Session, q.Limit = group, true, MaxListed
	list, err := g.Clients(ctx, q)
	if err != nil {
		return event{}, err
	}
	all := make([]member, 0, len(list.Clients))
	for _, c := range list.Clients {
		all = append(all, member{c.ID, c.Session.Text("name"), c.Session.Text("at")})
	}
	return event{Type: "members", Members: all, Missing: list.Missing}, nil
}

// news says that a client did something.
func news(c *gateway.Client, what string) event {
	return event{Type: what, Client: c.ID(), Name: c.Session().Text("name"), At: c.Session().Text("at")}
}

// tell sends to clients on all nodes. That other nodes cannot be reached is not the
// fault of whoever speaks: the page shows it, and the log has it.
func tell(g *gateway.Gateway, to gateway.Target, e event) error {
	m, err := gateway.JSON(e)
	if err != nil {
		return err
	}
	_, err = g.Send(to, m)
	return gateway.Failure(err)
}

// tellHere sends to the visitors of this node.
func tellHere(g *gateway.Gateway, e event) error {
	to := gateway.Groups(group)
	to.Nodes = []string{g.Node()}
	return tell(g, to, e)
}

// Interface guards
var (
	_ gateway.Logic        = (*Lobby)(nil)
	_ gateway.Starter      = (*Lobby)(nil)
	_ gateway.NodeObserver = (*Lobby)(nil)
)
