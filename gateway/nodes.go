package gateway

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"
)

// nodeLost is after how long without a sign of life a node is taken for lost. Signs are
// sent once a second.
const nodeLost = 5 * time.Second

// Node is a process that serves clients of the gateway.
type Node struct {
	// ID begins the ids of the node's clients. It is random: a process that was
	// restarted is another node.
	ID string `json:"node"`

	// Host is the name of its machine.
	Host string `json:"host,omitempty"`

	// Clients is how many it had a second ago.
	Clients int `json:"clients"`

	// Draining tells whether it refused handshakes a second ago, see Drain.
	Draining bool `json:"draining,omitempty"`

	// Self is set for this node.
	Self bool `json:"self,omitempty"`

	// Since is when this node first heard of it.
	Since time.Time `json:"since"`
}

// NodeState says what has become of a node.
type NodeState string

const (
	// NodeJoined is a node that has said who it is for the first time, or again.
	NodeJoined NodeState = "joined"

	// NodeLeft is a node that said goodbye: it was shut down, and OnClose has been called
	// there for its clients.
	NodeLeft NodeState = "left"

	// NodeLost is a node that has given no sign of life for 5 s while the broker could be
	// reached: the process or its machine has died, or the network is cut. Its clients are
	// in no list any more. If it is only cut off, it joins again.
	NodeLost NodeState = "lost"
)

// NodeEvent is what has become of a node.
type NodeEvent struct {
	Node
	State NodeState `json:"state"`
}

// NodeObserver is an optional interface of Logic: OnNode is called when another node
// joins, leaves or is lost, on every node that notices. Calls come one at a time and in
// order, in a goroutine like those of Go. Without it, nothing is called.
type NodeObserver interface {
	OnNode(g *Gateway, e NodeEvent)
}

// peer is another node.
type peer struct {
	id    string
	since time.Time

	number uint64   // guarded by cluster.receiving; of the last message heard
	parts  assembly // guarded by cluster.receiving
	turn   turn     // guarded by cluster.receiving

	seen    int64  // guarded by cluster.mu; when it was last heard
	greeted bool   // guarded by cluster.mu; it has said who it is, and logic has been told
	host    string // guarded by cluster.mu
	clients int    // guarded by cluster.mu
	drained bool   // guarded by cluster.mu
}

func (p *peer) node() Node {
	return Node{ID: p.id, Host: p.host, Clients: p.clients, Draining: p.drained, Since: p.since}
}

// Nodes returns the nodes that are known: this one first, then the others in the order
// of their ids. While the broker cannot be reached, those that were known before are.
func (g *Gateway) Nodes() []Node {
	c := g.cluster
	c.mu.Lock()
	defer c.mu.Unlock()
	nodes := make([]Node, 1, 1+len(c.peers))
	nodes[0] = Node{ID: g.node, Host: machineName(), Clients: g.registry.clients.size(), Draining: g.unwilling(), Self: true, Since: g.began}
	for _, id := range slices.Sorted(maps.Keys(c.peers)) {
		nodes = append(nodes, c.peers[id].node())
	}
	return nodes
}

// known returns the ids of the other nodes, sorted.
func (c *cluster) known() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Sorted(maps.Keys(c.peers))
}

// heard returns the sender of a message, who may be new. It is nil if he has nothing to
// say but goodbye.
func (c *cluster) heard(e envelope) *peer {
	c.mu.Lock()
	defer c.mu.Unlock()
	p := c.peers[e.node]
	if p == nil {
		if e.kind == kindBye {
			return nil
		}
		p = &peer{id: e.node, since: time.Now()}
		c.peers[e.node] = p
		c.others.Store(int32(len(c.peers))) //nolint:gosec // there are not that many nodes
	}
	p.seen = c.s.now()
	return p
}

// greeted notes what a node says of itself.
func (c *cluster) greeted(p *peer, body []byte) error {
	var g greeting
	if err := json.Unmarshal(body, &g); err != nil {
		return fmt.Errorf("decoding a greeting: %w", err)
	}
	c.mu.Lock()
	p.host, p.clients, p.drained = g.Host, g.Clients, g.Draining
	if !p.greeted && c.peers[p.id] == p {
		p.greeted = true
		c.happened(NodeEvent{p.node(), NodeJoined})
	}
	c.mu.Unlock()
	if g.Ask {
		c.greet(false, subjectNode+p.id)
	}
	return nil
}

// remove forgets a node.
func (c *cluster) remove(p *peer, state NodeState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.drop(p, state)
}

// drop forgets a node. The caller holds mu.
func (c *cluster) drop(p *peer, state NodeState) {
	if c.peers[p.id] != p {
		return
	}
	delete(c.peers, p.id)
	c.others.Store(int32(len(c.peers))) //nolint:gosec // there are not that many nodes
	c.asks.gone(p.id)
	if p.greeted {
		c.happened(NodeEvent{p.node(), state})
	}
}

// removeAll forgets all nodes. The caller holds mu.
func (c *cluster) removeAll() {
	for _, p := range c.peers {
		c.drop(p, NodeLost)
	}
}

// removeSilent forgets nodes that have not been heard for long. The caller holds mu.
func (c *cluster) removeSilent(now int64) {
	// Who looks late may have been standing still himself, and what came meanwhile not been
	// handled: that time does not count.
	late := time.Duration(now-c.lastTick) - sweepEvery
	for _, p := range c.peers {
		if c.lastTick != 0 && late > sweepEvery {
			p.seen += int64(late)
		}
		if time.Duration(now-p.seen) >= nodeLost {
			c.drop(p, NodeLost)
		}
	}
}

// happened has an event logged and logic told. The caller holds mu.
func (c *cluster) happened(e NodeEvent) {
	c.events = append(c.events, e)
	if !c.telling {
		c.telling = true
		c.s.helper("OnNode", c.tellLogic)
	}
}

// tellLogic gives events to logic until there are none.
func (c *cluster) tellLogic() {
	for {
		c.mu.Lock()
		if len(c.events) == 0 {
			c.telling, c.events = false, nil
			c.mu.Unlock()
			return
		}
		e := c.events[0]
		c.events = c.events[1:]
		c.mu.Unlock()
		c.logNode(e)
		c.s.tellNode(e)
	}
}

func (c *cluster) logNode(e NodeEvent) {
	log := c.s.log.Load().With("gateway", c.s.name, "node", e.ID, "host", e.Host)
	switch e.State {
	case NodeJoined:
		log.Info("node joined")
	case NodeLeft:
		log.Info("node left")
	case NodeLost:
		log.Warn("node lost: it gives no sign of life", "clients", e.Clients)
	}
}

// tellNode gives an event to the logic in force, and returns when that has returned.
func (s *shared) tellNode(e NodeEvent) {
	for tried := (*Generation)(nil); ; {
		s.mu.Lock()
		gen := s.current
		s.mu.Unlock()
		if gen == nil || gen == tried {
			return
		}
		tried = gen
		done := make(chan struct{})
		started := gen.g.tasks.start("OnNode", func(context.Context) {
			defer close(done)
			for _, name := range slices.Sorted(maps.Keys(gen.endpoints)) {
				if o, ok := gen.endpoints[name].o.Logic.(NodeObserver); ok && gen.endpoints[name].failed == nil {
					gen.g.tasks.contain("OnNode", func() { o.OnNode(gen.g, e) })
				}
			}
		})
		if !started {
			continue // the generation has just ended: there may be another
		}
		select {
		case <-done:
		case <-s.ctx.Done():
		}
		return
	}
}
