package rooms

import (
	"context"
	"strings"

	"github.com/caddy-websocket/caddy-websocket/gateway"
)

// OnNode tells rooms who is in them when a node is lost, whose members cannot say that
// they have left, and when it is back and its members have not gone anywhere.
func (r *Rooms) OnNode(g *gateway.Gateway, e gateway.NodeEvent) {
	switch e.State {
	case gateway.NodeLeft:
		return // its members have said goodbye
	case gateway.NodeLost:
		if r.lost == nil {
			r.lost = make(map[string]bool)
		}
		r.lost[e.ID] = true
	case gateway.NodeJoined:
		if !r.lost[e.ID] {
			return // it has no members yet
		}
		delete(r.lost, e.ID)
	}
	q := gateway.NameQuery{Prefix: r.Prefix, Nodes: []string{g.Node()}, Page: gateway.Page{Limit: gateway.MaxPageSize}}
	for {
		here, err := g.Groups(context.Background(), q) // no other node is asked
		if err != nil {
			return // cannot happen: the query is right
		}
		for _, group := range here.Names {
			r.tellMembers(g, strings.TrimPrefix(group.Name, r.Prefix))
		}
		if q.Cursor = here.Next; q.Cursor == "" {
			return
		}
	}
}

// tellMembers tells those members of a room who are on this node who is in it.
func (r *Rooms) tellMembers(g *gateway.Gateway, room string) {
	m, err := gateway.JSON(r.members(context.Background(), g, room))
	if err != nil {
		return // cannot happen
	}
	_, _ = g.Send(gateway.Groups(r.Prefix+room).OnNodes(g.Node()), m) // the target is not empty
}

// members lists the members of a room.
func (r *Rooms) members(ctx context.Context, g *gateway.Gateway, room string) event {
	// The query is right: an error is another node's, and those of the others are there.
	list, err := g.Clients(ctx, gateway.Query{Group: r.Prefix + room, Page: gateway.Page{Limit: MaxListed}})
	members := make([]member, 0, len(list.Clients))
	for _, other := range list.Clients {
		members = append(members, member{other.ID, other.User})
	}
	more := list.Next != "" || len(list.Missing) > 0 || err != nil
	return event{Type: "members", Room: room, Members: members, More: &more}
}

// Interface guard
var _ gateway.NodeObserver = (*Rooms)(nil)
