package gateway

import (
	"bytes"
	"cmp"
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
//     Who has not answered, or publishes elsewhere by now, is heard on the old link until
//     the end, and then up to what has come on the new one.
type handover struct {
	next  *attached
	fence uint64 // which question that is; 0 before it is asked
}

// turn is what a sender's next message waits for.
type turn struct {
	shut  bool       // what comes on the handover's link comes on the old one, too, and is taken there
	seen  uint64     // the last number that came there while it was shut
	kept  []envelope // in the order of their numbers
	size  int        // of kept
	since int64      // when the first of them began to wait

	// fences grow: nothing with a higher number than one of them is taken before the message
	// that has it.
	fences []uint64
}

// fence adds one.
func (t *turn) fence(number uint64) {
	if i, there := slices.BinarySearch(t.fences, number); !there {
		t.fences = slices.Insert(t.fences, i, number)
	}
}

// next returns the fence that a sender whose last message was this one is at, if there is
// one.
func (t *turn) next(last uint64) (fence uint64, there bool) {
	for len(t.fences) > 0 {
		if t.fences[0] > last {
			return t.fences[0], true
		}
		t.fences = t.fences[1:]
	}
	t.fences = nil
	return 0, false
}

// waits tells whether a message has to.
func (t *turn) waits(e envelope, last uint64) bool {
	fence, there := t.next(last)
	return there && e.number > fence
}

const (
	// handoverMoment is how long each step of a handover may take. What has not come by then
	// is taken for lost.
	handoverMoment = 2 * time.Second

	// handoverLinger is how long both links are heard after that, and again for what is still
	// on its way on the old one. The answers have shown that the new subscriptions are
	// known where the others publish; who gets another broker at the same time publishes
	// elsewhere, where they may be known a little later.
	handoverLinger = time.Second / 2

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
		if h := c.handover; h != nil { // there is none if the old link was down
			h.fence = id
		}
		return question{Ping: true}.encode(id)
	})
	c.linger()
	c.endHandover()
	c.linger()
}

func (c *cluster) linger() {
	timer := time.NewTimer(handoverLinger)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-c.s.ctx.Done():
	}
}

// endHandover has all that follows taken from the new link.
func (c *cluster) endHandover() {
	c.receiving.Lock()
	defer c.receiving.Unlock()
	c.handover = nil
	for _, p := range c.senders() {
		t := &p.turn
		if t.shut {
			t.shut = false
			t.fence(t.seen)
		}
		t.seen = 0
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
	// Where the sender publishes from now on, what the new link has subscribed to may not
	// be known.
	t.shut = t.shut || c.handover != nil && e.kind == kindMoved && e.number > p.number
	if h := c.handover; h != nil && h.next == on && t.shut {
		t.seen = max(t.seen, e.number)
		if e.kind == kindAnswer && h.fence != 0 {
			if id, _, err := cutUvarint(e.body); err == nil && id == h.fence {
				t.shut = false
				t.fence(e.number)
			}
		}
		return false
	}
	if e.number <= p.number {
		return false
	}
	if e.kind == kindMoved {
		if last, _, err := cutUvarint(e.body); err == nil && last < e.number {
			t.fence(last)
		}
	}
	if !t.waits(e, p.number) {
		return true
	}
	c.keep(p, e)
	return false
}

// keep keeps a message until its turn. The caller holds receiving.
func (c *cluster) keep(p *peer, e envelope) {
	t := &p.turn
	i, there := slices.BinarySearchFunc(t.kept, e.number, func(k envelope, n uint64) int { return cmp.Compare(k.number, n) })
	if there { // it has come on the other link
		return
	}
	if len(t.kept) == 0 {
		t.since = c.s.now()
	}
	e.body = bytes.Clone(e.body)
	t.kept = slices.Insert(t.kept, i, e)
	if t.size += len(e.body); t.size > maxKept {
		c.giveUp(p)
	}
}

// release takes what was kept, as far as its turn has come. The caller holds receiving.
func (c *cluster) release(p *peer) {
	t := &p.turn
	for len(t.kept) > 0 && !t.waits(t.kept[0], p.number) {
		e := t.kept[0]
		t.kept = t.kept[1:]
		t.size -= len(e.body)
		t.since = c.s.now()
		if e.number > p.number {
			c.take(p, e)
		}
	}
	if len(t.kept) == 0 {
		t.kept = nil
	}
}

// giveUp waits no longer for what was sent before. The caller holds receiving.
func (c *cluster) giveUp(p *peer) {
	if fence, there := p.turn.next(p.number); there {
		p.number = fence
	}
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
