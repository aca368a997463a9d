package load

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

// Groups is many small groups: each of its clients is in several.
type Groups struct {
	clients   []*Conn
	control   *Conn
	count     int
	each      int // members of a group
	delivered atomic.Int64
	ended     sync.WaitGroup
}

// NewGroups connects clients, and puts them into count groups, each of which has so many members.
func NewGroups(ctx context.Context, t Target, clients, count, each int) (_ *Groups, err error) {
	g := &Groups{count: count, each: each}
	defer func() {
		if err != nil {
			g.Close()
		}
	}()
	if g.control, err = t.Dial(ctx, 16<<10); err != nil {
		return nil, err
	}
	if g.clients, err = t.DialMany(ctx, clients, 4<<10); err != nil {
		return nil, err
	}
	for i, c := range g.clients {
		join := bytes.NewBufferString("j")
		for membership := i; membership < count*each; membership += clients {
			fmt.Fprintf(join, " g%d", membership/each)
		}
		if err := c.send(Binary(join.Bytes()), 1); err != nil {
			return nil, err
		}
	}
	for _, c := range g.clients {
		if _, err := c.receive(); err != nil {
			return nil, err
		}
	}
	for _, c := range g.clients {
		g.ended.Go(func() {
			for {
				n, err := c.receive()
				if err != nil {
					return // Close, or Run misses what would have come
				}
				g.delivered.Add(int64(n))
			}
		})
	}
	return g, nil
}

// Run has messages sent to one group after the other, so many of them under way at a time,
// where one is under way until the server has answered.
func (g *Groups) Run(message []byte, outstanding int, lasts time.Duration) (*Result, error) {
	frames := make([][]byte, 1000)
	for i := range frames {
		frames[i] = Binary(fmt.Appendf(nil, "s g%d %s", rand.IntN(g.count), message)) //nolint:gosec // no secret
	}
	before := g.delivered.Load()
	began, sent := time.Now(), 0
	for under := 0; under > 0 || time.Since(began) < lasts; {
		for ; under < outstanding && time.Since(began) < lasts || sent == 0; under++ {
			if err := g.control.send(frames[sent%len(frames)], 1); err != nil {
				return nil, err
			}
			sent++
		}
		n, err := g.control.receive()
		if err != nil {
			return nil, err
		}
		under -= n
	}
	r := &Result{Messages: int64(sent * g.each), Latency: new(Histogram)}
	for g.delivered.Load()-before < r.Messages {
		if time.Since(began) > lasts+patience {
			return nil, fmt.Errorf("%d deliveries, want %d", g.delivered.Load()-before, r.Messages)
		}
		time.Sleep(100 * time.Microsecond)
	}
	r.Elapsed = time.Since(began)
	if g.delivered.Load()-before != r.Messages {
		return nil, errors.New("more deliveries than messages")
	}
	return r, nil
}

// Close cuts all connections.
func (g *Groups) Close() {
	CloseAll([]*Conn{g.control})
	CloseAll(g.clients)
	g.ended.Wait()
}
