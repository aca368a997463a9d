package gateway

import (
	"sync/atomic"
	"time"
)

// attached is a link to a broker.
type attached struct {
	c      *cluster
	broker Broker
	link   Link
	downAt atomic.Int64 // when it went down, 0 while it is up
	why    atomic.Pointer[error]
}

func (a *attached) up() bool { return a.downAt.Load() == 0 }

// settle waits a moment until what was subscribed to is in force.
func (a *attached) settle() {
	const moment = 2 * time.Second
	done := make(chan struct{})
	a.link.Flush(func(error) { close(done) })
	select {
	case <-done:
	case <-time.After(moment):
	case <-a.c.s.ctx.Done():
	}
}

// Receive handles what another node has sent.
func (a *attached) Receive(data []byte) {
	c := a.c
	c.receiving.Lock()
	defer c.receiving.Unlock()
	defer c.s.recovered("broker")
	e, err := parseEnvelope(data)
	switch {
	case err != nil:
		c.misunderstood(e.node, err)
		return
	case e.node == c.s.node:
		return
	}
	if p := c.heard(e); p != nil && c.due(a, p, e) {
		c.take(p, e)
		c.release(p)
	}
}

// Up is told by the link.
func (a *attached) Up() {
	c := a.c
	c.mu.Lock()
	for _, p := range c.peers {
		p.seen = c.s.now() // nobody could be heard
	}
	c.mu.Unlock()
	a.downAt.Store(0)
	if c.current.Load() == a {
		c.logUp()
		c.greet(true, subjectAll)
	}
}

// Down is told by the link, again when the reason changes. The log is told by tick: a
// connection that is just being made is not worth a line.
func (a *attached) Down(why error) {
	a.why.Store(&why)
	a.downAt.CompareAndSwap(0, a.c.s.now())
}

// logUp says, if the log says that the node is on its own, that it is no longer: also when
// it is another broker that can be reached.
func (c *cluster) logUp() {
	if since := c.aloneSince.Swap(0); since != 0 {
		c.s.log.Load().Info("the broker can be reached: this node is no longer on its own",
			"gateway", c.s.name, "after", time.Duration(c.s.now()-since).Round(time.Millisecond))
	}
}

// logDown says, once, that the link has been down for a moment.
func (a *attached) logDown(now int64) {
	const moment = time.Second
	since := a.downAt.Load()
	if since == 0 || time.Duration(now-since) < moment || !a.c.aloneSince.CompareAndSwap(0, since) {
		return
	}
	a.c.s.log.Load().Warn("the broker cannot be reached: this node is on its own", "gateway", a.c.s.name, "error", *a.why.Load())
}

// Missed is told by the link.
func (a *attached) Missed(n int) {
	a.c.missed.Add(int64(n))
	a.c.lost.Add(int64(n))
}
