package httpapi

import (
	"slices"
	"strings"
	"time"

	"github.com/caddy-websocket/caddy-websocket/gateway"
)

// heardEvery is how often a tail looks which nodes it hears.
const heardEvery = time.Second

// Heard is a line of a tail: it hears other nodes than before. At the beginning it hears
// those that it is for, unless a line says otherwise.
type Heard struct {
	// Joined are nodes whose clients are shown from now on.
	Joined []string `json:"joined,omitempty"`

	// Missing are nodes whose clients are not shown any more: they have left or died, or
	// cannot be reached.
	Missing []string `json:"missing,omitempty"`

	// LocalOnly is set while the broker cannot be reached: no other node is heard.
	LocalOnly bool `json:"local_only,omitempty"`
}

// hearing knows which other nodes a tail hears.
type hearing struct {
	h         *Handler
	o         gateway.WatchOptions
	nodes     []string // sorted
	localOnly bool
}

func (h *Handler) hearing(o gateway.WatchOptions) *hearing {
	n := &hearing{h: h, o: o}
	n.nodes = n.meant()
	return n
}

// meant returns the other nodes that are known and that the tail is for.
func (n *hearing) meant() (ids []string) {
	for _, node := range n.h.g.Nodes() {
		switch {
		case node.Self:
		case len(n.o.Nodes) > 0 && !slices.Contains(n.o.Nodes, node.ID):
		case n.o.Client != "" && !isOn(n.o.Client, node.ID):
		default:
			ids = append(ids, node.ID)
		}
	}
	return ids
}

// alone tells whether the tail is for this node only.
func (n *hearing) alone() bool {
	self := n.h.g.Node()
	return n.o.Client != "" && isOn(n.o.Client, self) || len(n.o.Nodes) == 1 && n.o.Nodes[0] == self
}

// isOn tells whether a client, by its id, is one of a node.
func isOn(client, node string) bool {
	return strings.HasPrefix(client, node+"-")
}

// change returns what to say if it is not as it was, or nil.
func (n *hearing) change() *Heard {
	if n.alone() {
		return nil
	}
	now, localOnly := n.meant(), n.h.cutOff()
	if localOnly {
		now = nil
	}
	without := func(all, these []string) []string {
		return slices.DeleteFunc(slices.Clone(all), func(id string) bool { return slices.Contains(these, id) })
	}
	said := Heard{Joined: without(now, n.nodes), Missing: without(n.nodes, now), LocalOnly: localOnly}
	if len(said.Joined)+len(said.Missing) == 0 && localOnly == n.localOnly {
		return nil
	}
	n.nodes, n.localOnly = now, localOnly
	return &said
}
