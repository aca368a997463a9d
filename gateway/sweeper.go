package gateway

import (
	"fmt"
	"time"
)

// sweepEvery is how often clients are looked at, and so how exact time-outs are.
const sweepEvery = time.Second

// slowCallback is after how long a callback that does not return is reported.
const slowCallback = 10 * time.Second

// watch is what the sweeper remembers of a client. Nobody else uses it.
type watch struct {
	pinged       bool  // a ping is unanswered
	beats        int32 // how many heartbeats were followed by no message
	pingBytes    int64 // how many bytes had been received when it was sent
	beatAt       int64 // when the last heartbeat was sent
	beatMessages int64 // how many messages had been received then
	reported     int64 // the callback, by its beginning, that was reported as slow
}

// sweep is the one goroutine that watches over all clients, so that an idle
// client costs no timer. It never writes to a connection and never closes one
// that speaks TLS: either can block for seconds.
func (s *shared) sweep() {
	ticker := time.NewTicker(sweepEvery)
	defer ticker.Stop()
	var clients []*Client
	var due time.Time
	for {
		select {
		case due = <-ticker.C:
		case <-s.ctx.Done():
			return
		}
		s.cluster.tick()
		for i := range s.registry.clients.shards {
			clients = s.registry.clients.shards[i].values(clients[:0])
			for _, c := range clients {
				c.sweep(s.now())
			}
		}
		clear(clients[:cap(clients)]) // those that are gone are not kept in memory
		s.sweepLag.Store(int64(time.Since(due)))
	}
}

// values appends the values of the shard.
func (s *shard[V]) values(into []V) []V {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, v := range s.names {
		into = append(into, v)
	}
	return into
}

// sweep ends the client if a time-out has passed, and asks whether it is still
// there if it has been silent.
func (c *Client) sweep(now int64) {
	c.reportSlow(now)
	if !c.open.Load() || c.killed.Load() {
		return
	}
	o := &c.slot.current.Load().o
	if c.forwarded {
		c.tunnel.sweep(now, o)
		return
	}
	since := func(t int64) time.Duration { return time.Duration(now - t) }
	if p := c.queue.progress.Load(); p != 0 && since(p) >= o.WriteTimeout {
		c.slow.CompareAndSwap(0, 1)
		c.vanished(fmt.Sprintf("took in nothing for %s", o.WriteTimeout))
		return
	}
	if c.isClosing() {
		if ended := c.queue.ended.Load(); ended != 0 && since(ended) >= o.WriteTimeout {
			c.vanished("") // it does not answer the close frame
		}
		return
	}
	heard := c.wire.readAt.Load()
	if heard == 0 {
		return // a callback runs, and nobody listens
	}
	c.sweepPing(now, heard, o)
	c.sweepHeartbeat(now, heard, o.Heartbeat)
	if o.IdleTimeout > 0 && since(c.lastSaid(heard)) >= o.IdleTimeout {
		c.close(CloseReason{Code: CloseGoingAway, Reason: reasonIdle}, false)
	}
}

// sweepPing pings a client that was last heard so long ago, and cuts it off if
// that was answered by silence. The time for an answer begins when the ping has
// been written: a client that takes in a large message slowly gets it late.
func (c *Client) sweepPing(now, heard int64, o *EndpointOptions) {
	w := &c.watch
	if w.pinged {
		out := c.queue.pingOut.Load()
		switch {
		case c.wire.bytesIn.Load() != w.pingBytes:
			w.pinged = false
		case out != 0 && time.Duration(now-out) >= o.PingTimeout:
			c.vanished(fmt.Sprintf("no answer to a ping for %s", o.PingTimeout))
			return
		default:
			return
		}
	}
	if o.PingInterval > 0 && time.Duration(now-heard) >= o.PingInterval {
		w.pinged, w.pingBytes = true, c.wire.bytesIn.Load()
		c.queue.pushPing()
	}
}

// sweepHeartbeat sends the text to a client that has sent no message for so long,
// and cuts it off if that was answered by none. Pongs do not count: a browser
// sends them whether its page is alive or not.
func (c *Client) sweepHeartbeat(now, heard int64, h Heartbeat) {
	if h.Interval == 0 {
		return
	}
	w := &c.watch
	received := c.messagesIn.Load()
	if received != w.beatMessages {
		w.beats, w.beatAt = 0, 0
	}
	if p := c.queue.progress.Load(); w.beats > 0 && p != 0 && p < now { // it may not have been given the last one yet
		w.beatAt = now
	}
	if time.Duration(now-max(c.lastSaid(heard), w.beatAt)) < h.Interval {
		return
	}
	if int(w.beats) >= h.MaxUnanswered {
		c.vanished(fmt.Sprintf("no answer to %d heartbeats", w.beats))
		return
	}
	w.beats++
	w.beatAt, w.beatMessages = now, received
	_ = c.push(&outgoing{message: Text(h.Text)}) // a queue that is full has its own consequences
}

// lastSaid returns when the client's last message had been handled, or for one
// that is still coming in, when something of it came last.
func (c *Client) lastSaid(heard int64) int64 {
	last := c.lastMessage.Load()
	if c.wire.partial.Load() {
		return max(last, heard)
	}
	return last
}

// reportSlow logs a callback that does not return, once.
func (c *Client) reportSlow(now int64) {
	kind := c.call.kind.Load()
	began := c.call.since.Load()
	if kind == 0 || began == c.watch.reported || time.Duration(now-began) < slowCallback {
		return
	}
	c.watch.reported = began
	c.slot.current.Load().log().Warn("callback runs for long: this client's other messages wait",
		c.about("callback", callback(kind-1).String(), "for", time.Duration(now-began))...)
}
