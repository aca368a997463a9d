package load

import (
	"context"
	"errors"
	"iter"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// Groups is many small groups: each of its clients is in several.
type Groups struct {
	clients []*Conn
	control *Conn
	dialect *Dialect
	count   int
	each    int                                      // members of a group
	users   bool                                     // a group is a user, and nobody joins it
	send    func(name string, message []byte) []byte // returns the frame that has it sent

	delivered atomic.Int64
	answered  atomic.Int64
	heard     chan struct{} // has one when there are new answers
	ended     sync.WaitGroup

	under   []underway  // to each client
	latency []Histogram // of each client
}

// NewGroups connects clients, and puts them into count groups, each of which has so many
// members. They are spread over other nodes than t if such are named, see NewFanout.
func NewGroups(ctx context.Context, t Target, clients, count, each int, over ...Target) (*Groups, error) {
	d := t.dialect()
	g := &Groups{dialect: d, count: count, each: each, send: d.send}
	nodes := nodesOf(t, over)
	return g, g.connect(ctx, t, clients, over, func(i int) Target { return nodes[i%len(nodes)] })
}

// NewUsers connects clients, each as a user of his own, as "?user=NAME" says. Here that is a
// group with one member.
func NewUsers(ctx context.Context, t Target, clients int, over ...Target) (*Groups, error) {
	d := t.dialect()
	if d.toUser == nil {
		return nil, errors.New("clients of this server cannot be users")
	}
	g := &Groups{dialect: d, count: clients, each: 1, users: true, send: d.toUser}
	nodes := nodesOf(t, over)
	return g, g.connect(ctx, t, clients, over, func(i int) Target {
		return nodes[i%len(nodes)].with("?user=" + nameOf(i))
	})
}

func (g *Groups) connect(ctx context.Context, t Target, clients int, over []Target, to func(i int) Target) (err error) {
	g.under, g.latency, g.heard = make([]underway, clients), make([]Histogram, clients), make(chan struct{}, 1)
	defer func() {
		if err != nil {
			g.Close()
		}
	}()
	if g.control, err = t.Dial(ctx, 16<<10); err != nil {
		return err
	}
	if g.clients, err = dialEach(ctx, clients, 4<<10, to); err != nil {
		return err
	}
	if err = g.join(); err != nil {
		return err
	}
	if err = settle(ctx, t, over); err != nil {
		return err
	}
	g.ended.Go(g.hear)
	for i, c := range g.clients {
		g.ended.Go(func() { g.listen(i, c) })
	}
	return nil
}

// members returns the clients of a group.
func (g *Groups) members(group int) iter.Seq[int] {
	return func(yield func(int) bool) {
		for membership := group * g.each; membership < (group+1)*g.each; membership++ {
			if !yield(membership % len(g.clients)) {
				return
			}
		}
	}
}

// join waits for answers also if there is nothing to join: some servers look at the query
// after the handshake, and who is answered has been seen to.
func (g *Groups) join() error {
	names := make([][]string, len(g.clients))
	if !g.users {
		for group := range g.count {
			for i := range g.members(group) {
				names[i] = append(names[i], nameOf(group))
			}
		}
	}
	for i, c := range g.clients {
		if err := c.ask(g.dialect.join(names[i]...)); err != nil {
			return err
		}
	}
	return nil
}

// nameOf returns what servers call a group.
func nameOf(group int) string { return "g" + strconv.Itoa(group) }

// listen takes what comes to a client. Messages of different groups are told apart by their
// order; a server that changes it has their times exchanged, which is no matter.
func (g *Groups) listen(i int, c *Conn) {
	for {
		n, err := c.receive()
		if err != nil {
			return // Close, or a run misses what would have come
		}
		now := time.Now()
		for range n {
			if p := g.under[i].next(); p != nil {
				g.latency[i].Add(now.Sub(p.due), 1)
				p.delivered()
			}
		}
		g.delivered.Add(int64(n))
	}
}

// hear counts the answers to commands.
func (g *Groups) hear() {
	for {
		n, err := g.control.receive()
		if err != nil {
			return // Close, or a run misses what would have come
		}
		g.answered.Add(int64(n))
		select {
		case g.heard <- struct{}{}:
		default:
		}
	}
}

// Close cuts all connections.
func (g *Groups) Close() {
	CloseAll([]*Conn{g.control})
	CloseAll(g.clients)
	g.ended.Wait()
}
