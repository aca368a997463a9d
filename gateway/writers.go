package gateway

import (
	"slices"
	"sync"
	"time"
)

// writerBatch is how many clients a writer takes from the list at a time.
const writerBatch = 32

// writers are the few goroutines that write out what was sent to clients from
// elsewhere than their own callbacks: a message to a thousand wakes one for each
// processor, not a thousand. None exists while nothing waits. One that a socket
// holds up is replaced by another, see attend.
type writers struct {
	shared *shared
	most   int // how many there are that nothing holds up

	mu      sync.Mutex
	waiting []*Client // guarded by mu; waiting[head:], whose queues are to be written
	head    int       // guarded by mu
	active  []*writer // guarded by mu; those that nothing holds up
}

// writer is one of them.
type writer struct {
	mu    sync.Mutex
	room  [writerBatch]*Client // guarded by mu
	batch []*Client            // guarded by mu; in room; still to be done
	began int64                // guarded by mu; when the write under way began; 0 if none is
	alone bool                 // guarded by mu; it was replaced, and ends after what it is at
}

// idleWriters keeps what writers are made of: most live for one write.
var idleWriters = sync.Pool{New: func() any { return new(writer) }}

// rest gives the writer back. Nobody knows it any more: it is not among the active.
func (me *writer) rest() {
	clear(me.room[:])
	me.batch, me.began, me.alone = nil, 0, false
	idleWriters.Put(me)
}

// add has the queues of clients written. They may be locked.
func (w *writers) add(clients ...*Client) {
	var me *writer
	w.mu.Lock()
	w.waiting = append(w.waiting, clients...)
	if len(w.active) < w.most && w.head < len(w.waiting) {
		me = idleWriters.Get().(*writer)
		w.active = append(w.active, me)
	}
	w.mu.Unlock()
	if me != nil {
		w.shared.helper("writer", func() { w.run(me) })
		w.shared.wakeAttendant()
	}
}

func (w *writers) busy() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.active) > 0
}

// run writes until nothing waits.
func (w *writers) run(me *writer) {
	for {
		c := me.next(w.shared.now())
		if c == nil {
			if !w.take(me) {
				me.rest()
				return
			}
			continue
		}
		more := c.queue.write()
		if me.done() {
			me.rest()
			for more {
				more = c.queue.write()
			}
			return
		}
		if more {
			w.add(c)
		}
	}
}

// take gives the writer a batch, or ends it if nothing waits.
func (w *writers) take(me *writer) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := min(len(w.waiting)-w.head, writerBatch)
	if n == 0 {
		w.active = slices.DeleteFunc(w.active, func(other *writer) bool { return other == me })
		return false
	}
	me.mu.Lock()
	me.batch = append(me.room[:0], w.waiting[w.head:w.head+n]...)
	me.mu.Unlock()
	clear(w.waiting[w.head : w.head+n])
	w.head += n
	const most = 4 << 10
	switch left := len(w.waiting) - w.head; {
	case left == 0 && cap(w.waiting) > most:
		w.waiting, w.head = nil, 0 // the array of a burst is not kept for ever
	case left <= w.head: // what is gone makes room
		copy(w.waiting, w.waiting[w.head:])
		clear(w.waiting[left:])
		w.waiting, w.head = w.waiting[:left], 0
	}
	return true
}

// next returns the next of the batch, or nil.
func (me *writer) next(now int64) *Client {
	me.mu.Lock()
	defer me.mu.Unlock()
	if len(me.batch) == 0 {
		return nil
	}
	c := me.batch[0]
	me.batch = me.batch[1:]
	me.began = now
	return c
}

// done notes that a write is over. It returns whether the writer was replaced, which
// happens in writes only.
func (me *writer) done() (alone bool) {
	me.mu.Lock()
	defer me.mu.Unlock()
	me.began = 0
	return me.alone
}

// relieve replaces writers that a socket has held up for some time, and returns
// whether there are any at all.
func (w *writers) relieve(now int64) bool {
	const patience = 2 * time.Millisecond
	w.mu.Lock()
	var left []*Client
	relieved := 0
	w.active = slices.DeleteFunc(w.active, func(me *writer) bool {
		me.mu.Lock()
		defer me.mu.Unlock()
		if me.began == 0 || time.Duration(now-me.began) < patience {
			return false
		}
		left = append(left, me.batch...)
		me.batch, me.alone = nil, true
		relieved++
		return true
	})
	busy := len(w.active) > 0 || len(left) > 0 || w.head < len(w.waiting)
	w.mu.Unlock()
	w.add(left...)
	for range relieved { // another in the place of each, if anything waits
		w.add()
	}
	return busy
}
