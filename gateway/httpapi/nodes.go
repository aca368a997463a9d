package httpapi

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/caddy-websocket/caddy-websocket/gateway"
)

// What stands for nodes wherever some are named, beside their ids and the names of their
// hosts.
const (
	NodeSelf = "self" // the one that is asked
	NodeAll  = "all"  // every one; it stands alone
)

// Nodes is the answer to /nodes.
type Nodes struct {
	// Nodes has the one that is asked first, then the others in the order of their ids.
	Nodes []Node `json:"nodes"`

	// Connected tells whether the broker can be reached; nil without one. While it is
	// not, the others are those that were known before.
	Connected *bool `json:"connected,omitempty"`
}

// Node is a process that serves clients of the gateway.
type Node struct {
	// ID begins the ids of the node's clients. It is random: a process that was
	// restarted is another node.
	ID string `json:"node"`

	// Host is the name of its machine.
	Host string `json:"host,omitempty"`

	// Clients is how many it had a second ago; nil where certain endpoints are allowed
	// only.
	Clients *int `json:"clients,omitempty"`

	// Draining tells whether it refused handshakes a second ago.
	Draining bool `json:"draining,omitempty"`

	// Self is set for the node that is asked.
	Self bool `json:"self,omitempty"`

	// Since is when that node first heard of this one.
	Since time.Time `json:"since"`
}

// nodes says which nodes there are.
func (h *Handler) nodes(*http.Request, query) (any, error) {
	known := h.g.Nodes()
	answer := Nodes{Nodes: make([]Node, len(known))}
	for i, n := range known {
		answer.Nodes[i] = Node{ID: n.ID, Host: n.Host, Draining: n.Draining, Self: n.Self, Since: n.Since}
		if len(h.o.Endpoints) == 0 {
			answer.Nodes[i].Clients = &n.Clients
		}
	}
	if cluster := h.g.ClusterStats(); cluster != nil {
		answer.Connected = &cluster.Connected
	}
	return answer, nil
}

// known returns the ids of the nodes that are named, or none for all. A node that is not
// known is refused: the gateway would take its name for one that nobody has, and do nothing.
func (h *Handler) known(names []string) ([]string, error) {
	if slices.Contains(names, NodeAll) {
		if len(names) > 1 {
			return nil, invalid(CodeInvalidQuery, "node: %s stands alone", NodeAll)
		}
		return nil, nil
	}
	nodes := h.g.Nodes()
	var ids []string
	for _, name := range names {
		found := NodesNamed(nodes, name)
		if len(found) == 0 {
			return nil, failed(http.StatusNotFound, CodeUnknownNode, "%s", UnknownNode(name, h.g))
		}
		for _, id := range found {
			if !slices.Contains(ids, id) {
				ids = append(ids, id)
			}
		}
	}
	return ids, nil
}

// NodesNamed returns the ids of those of the nodes that a name stands for: one by its id,
// NodeSelf, NodeAll, or a host, which is all nodes on that machine.
func NodesNamed(nodes []gateway.Node, name string) []string {
	if slices.ContainsFunc(nodes, func(n gateway.Node) bool { return n.ID == name }) {
		return []string{name}
	}
	var ids []string
	for _, n := range nodes {
		if name == NodeAll || name == NodeSelf && n.Self || name != NodeSelf && name != "" && name == n.Host {
			ids = append(ids, n.ID)
		}
	}
	return ids
}

// UnknownNode says that none of the gateways knows a node of this name, and which there are.
func UnknownNode(name string, gateways ...*gateway.Gateway) string {
	all := make([]string, len(gateways))
	for i, g := range gateways {
		all[i] = listOf(g.Nodes()) + " of gateway " + g.Name()
	}
	return fmt.Sprintf("no node %.100q is known: there are %s, and %s", name, strings.Join(all, ", "), NodeAll)
}

func listOf(nodes []gateway.Node) string {
	texts := make([]string, len(nodes))
	for i, n := range nodes {
		texts[i] = n.ID
		if n.Host != "" {
			texts[i] += " on " + n.Host
		}
		if n.Self {
			texts[i] += " (" + NodeSelf + ")"
		}
	}
	return strings.Join(texts, ", ")
}

// cutOff tells whether there is a broker, and it cannot be reached.
func (h *Handler) cutOff() bool {
	cluster := h.g.ClusterStats()
	return cluster != nil && !cluster.Connected
}

// noAnswer is what is wrong with a node that has not answered.
func (h *Handler) noAnswer(node string) error {
	if h.cutOff() {
		return fmt.Errorf("node %s was not asked: %w", node, gateway.ErrLinkDown)
	}
	return fmt.Errorf("%w: %s", gateway.ErrNoAnswer, node)
}

// unanswered is what other nodes answer to a question that is right, or that they do not.
func unanswered(err error) error {
	if err == nil {
		return nil
	}
	return failed(http.StatusGatewayTimeout, CodeNoAnswer, "%v", err)
}
