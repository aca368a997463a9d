package gateway

import (
	"bytes"
	"context"
	"encoding/binary"
	"maps"
	"slices"
	"time"
)

// When a node gets another broker it has two links for a moment, and what passes on one
// may overtake what passes on the other. Since numbers must grow, what is overtaken would
// be lost. So
//
//   - who publishes says on the new link what his last number on the old one was, and who
//     hears that keeps what follows until he has heard up to there;
//   - who listens goes on with the old link until every node has answered a question that
//     was asked when the new link was ready: from the answer on, which comes on both, the
//     new one has all that the old one has. For the answer comes on the node's own subject,
//     which is the last that the new link has subscribed to: where that is known, all are.
type handover struct {
	next  *attached
	fence uint64 // which question that is; 0 before it is asked
}

// turn is what a sender's next message waits for.
type turn struct {
	shut  bool   // what comes on the handover's link comes on the old one, too, and is taken there
	after uint64 // nothing with a higher number is taken before the message with this one
	kept  []envelope
	size  int   // of kept
	since int64 // when the first of them was kept
}

const (
	// handoverMoment is how long each step of a handover may take. What has not come by then
	// is taken for lost.
	handoverMoment = 2 * time.Second

	// handoverLinger is how long both links are heard after that. The answers have shown that
	// the new subscriptions are known where the others publish; who gets another broker at
	// the same time publishes elsewhere, where they may be known a little later.
	handoverLinger = time.Second

	// maxKept is how many bytes of one sender wait for their turn.
	maxKept = 4 << 20
)

// move says on a new link where the old one ends. The caller holds sending.
func (c *cluster) move(from, to Link) {
	if c.publishOn(from, subjectAll, kindHello, c.greeting(false)) != nil {
		return // what was sent there before is lost or has come
	}
	_ = c.publishOn(to, subjectAll, kindMoved, binary.AppendUvarint(nil, c.number)) // it is counted
}

// beginHandover is called before the new link hears anything.
func (c *cluster) beginHandover(next *attached) {
	c.receiving.Lock()
	defer c.receiving.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.handover = &handover{next: next}
	for _, p := range c.peers {
		p.turn.shut = true
	}
}

// takeOver returns when the old link is not needed any more.
func (c *cluster) takeOver(next *attached) {
	next.settle()
	ctx, cancel := context.WithTimeout(c.s.ctx, handoverMoment)
	defer cancel()
	// Who does not answer is not waited for.
	_, _, _ = c.ask(ctx, c.whom(nil), kindQuestion, func(id uint64) ([]byte, error) {
		c.receiving.Lock()
		defer c.receiving.Unlock()
		if h := c.handover; h != nil && h.next == next {
			h.fence = id
		}
		return question{Ping: true}.encode(id)
	})
	linger := time.NewTimer(handoverLinger)
	defer linger.Stop()
	select {
	case <-linger.C:
	case <-c.s.ctx.Done():
	}
}

// endHandover is called before the old link is closed: the new one has all that follows.
// To close it may take a moment, in which who has not answered is not to go unheard.
func (c *cluster) endHandover(next *attached) {
	c.receiving.Lock()
	defer c.receiving.Unlock()
	if h := c.handover; h != nil && h.next == next {
		c.handover = nil
	}
}

func (c *cluster) senders() []*peer {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Collect(maps.Values(c.peers))
}

// due tells whether a message that came on a link is to be taken now. It keeps one whose
// turn will come. The caller holds receiving.
func (c *cluster) due(on *attached, p *peer, e envelope) bool {
	t := &p.turn
	if h := c.handover; h != nil && h.next == on && t.shut {
		if e.kind == kindAnswer && h.fence != 0 {
			if id, _, err := cutUvarint(e.body); err == nil && id == h.fence {
				t.shut, t.after = false, max(t.after, e.number)
			}
		}
		return false
	}
	if e.number <= p.number {
		return false
	}
	if e.kind == kindMoved {
		if last, _, err := cutUvarint(e.body); err == nil && last < e.number {
			t.after = max(t.after, last)
		}
	}
	if p.number >= t.after || e.number <= t.after {
		return true
	}
	if len(t.kept) == 0 {
		t.since = c.s.now()
	}
	e.body = bytes.Clone(e.body)
	t.kept = append(t.kept, e)
	if t.size += len(e.body); t.size > maxKept {
		c.giveUp(p)
	}
	return false
}

// release takes what was kept, if its turn has come. The caller holds receiving.
func (c *cluster) release(p *peer) {
	if len(p.turn.kept) == 0 || p.number < p.turn.after {
		return
	}
	kept := p.turn.kept
	p.turn.kept, p.turn.size = nil, 0
	for _, e := range kept {
		if c.due(nil, p, e) {
			c.take(p, e)
		}
	}
}

// giveUp waits no longer for what was sent before. The caller holds receiving.
func (c *cluster) giveUp(p *peer) {
	p.number = max(p.number, p.turn.after)
	c.release(p)
}

// releaseLate gives up what has not come for long.
func (c *cluster) releaseLate(now int64) {
	c.receiving.Lock()
	defer c.receiving.Unlock()
	for _, p := range c.senders() {
		if len(p.turn.kept) > 0 && time.Duration(now-p.turn.since) >= handoverMoment {
			c.giveUp(p)
		}
	}
}
