package gateway

import (
	"errors"
	"io"
	"sync"
	"sync/atomic"
)

// QueuePolicy says what happens to a message that finds a client's send buffer
// full.
type QueuePolicy uint8

const (
	// CloseWhenFull gives the client up: what waits is discarded and the
	// connection closed with 1013. The default, since a client that misses
	// messages without knowing is worse off than one that reconnects.
	CloseWhenFull QueuePolicy = iota

	// DropNewest discards the message that does not fit.
	DropNewest

	// DropOldest discards what has waited longest until the message fits, never
	// a frame that was already handed to a write.
	DropOldest
)

// String returns the name that configurations use.
func (p QueuePolicy) String() string {
	switch p {
	case CloseWhenFull:
		return "close"
	case DropNewest:
		return "drop_newest"
	case DropOldest:
		return "drop_oldest"
	}
	return "unknown policy"
}

// leastWeight is what a frame counts for in a send buffer at least: that is about
// what a small one costs in memory, and thousands of them must not cost many times
// the buffer that somebody has configured.
const leastWeight = 64

// writeChunk is how much one Write is given at most: a client that takes in a
// large message slowly is seen to make progress, chunk by chunk.
const writeChunk = 64 << 10

// sendQueue stands between Send and the socket. Whoever sends, puts a whole
// frame in and goes on; somebody else writes it out: the client's own goroutine
// what it has caused itself, one of the gateway's writers all else. Control frames have slots of their own, one for each kind, go
// before the data, and so can neither pile up nor be held up by a full queue.
//
// A push never blocks on the socket. Frames are shared between clients: nobody
// writes to one that was pushed.
type sendQueue struct {
	owner queueOwner
	least int64 // what a frame weighs at least, see leastWeight

	mu      sync.Mutex
	out     io.Writer     // guarded by mu; nil before open
	data    [][]byte      // guarded by mu; data[head:] wait
	head    int           // guarded by mu
	bytes   int64         // guarded by mu; the weight of data[head:]
	pong    []byte        // guarded by mu; the newest only
	ping    []byte        // guarded by mu
	closing []byte        // guarded by mu; the close frame: nothing is accepted after it
	flushed chan struct{} // guarded by mu; made with closing, closed when that is written or cannot be
	busy    bool          // guarded by mu; somebody writes, or is about to
	pinging bool          // guarded by mu; a ping among other things
	err     error         // guarded by mu; why nothing is written any more

	// held is set while the client's own goroutine handles messages: it writes the
	// replies itself when it has nothing else in hand. See shared.attend for what it
	// is too slow for.
	held atomic.Bool

	// progress is when the write under way began or last moved on; 0 while
	// nothing is being written.
	progress atomic.Int64

	// ended is when writing ended, in order or not; 0 before.
	ended atomic.Int64

	// pinged is when a ping was handed to a write, until it is answered; roundTrip
	// how long the last answer took. Both are nanoseconds, and 0 before the first.
	pinged    atomic.Int64
	roundTrip atomic.Int64

	// pingOut is when the last ping had been written; 0 while it waits or is being
	// written.
	pingOut atomic.Int64

	// messages counts data frames that were handed to a write, dropped those that
	// a policy discarded, unsent those that waited when the queue ended.
	messages atomic.Int64
	dropped  atomic.Int64
	unsent   atomic.Int64
}

// queueOwner is what a sendQueue needs of the client that it belongs to. now,
// start, holding and full are called with the queue's lock held.
type queueOwner interface {
	now() int64            // monotonic nanoseconds, never 0
	start(*sendQueue)      // has the queue's write called soon, until it returns false
	holding()              // something waits that the client's own goroutine is to write
	wrote(n int)           // n bytes went out
	writeFailed(err error) // nothing more will
	full(QueuePolicy)      // a message did not fit, and the policy has decided
}

// errCloseSent is what a queue holds after its close frame: it ended in order.
var errCloseSent = errors.New("close frame was sent")

// push queues a data frame. limit is how many bytes may wait.
func (q *sendQueue) push(frame []byte, limit int64, policy QueuePolicy) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closing != nil || q.err != nil {
		return ErrClosed
	}
	if int64(len(frame)) > limit {
		return ErrTooBig
	}
	size := q.weight(frame)
	if full := func() bool { return q.bytes > 0 && q.bytes+size > limit }; full() {
		q.owner.full(policy)
		if policy != DropOldest {
			q.dropped.Add(1)
			return ErrQueueFull
		}
		for full() {
			q.take()
			q.dropped.Add(1)
		}
	}
	q.data = append(q.data, frame)
	q.bytes += size
	if q.bytes > min(limit/2, writeChunk) { // it fills: nobody waits for a callback
		q.held.Store(false)
	}
	q.wake()
	return nil
}

// pushPong answers a ping; an answer that still waits is replaced, as RFC 6455
// section 5.5.3 allows.
func (q *sendQueue) pushPong(payload []byte) {
	q.control(&q.pong, newFrame(opPong, payload))
}

// pushPing sends a ping unless one still waits.
func (q *sendQueue) pushPing() {
	q.control(&q.ping, newFrame(opPing, nil))
}

func (q *sendQueue) control(slot *[]byte, frame []byte) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closing != nil || q.err != nil {
		return
	}
	*slot = frame
	if slot == &q.ping {
		q.pingOut.Store(0)
	}
	q.wake()
}

// close queues the close frame behind what waits, or in its place if discard
// is set. It reports whether this was the first close.
func (q *sendQueue) close(frame []byte, discard bool) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closing != nil {
		return false
	}
	q.closing = frame
	q.flushed = make(chan struct{})
	if discard {
		q.clear()
	}
	if q.err != nil {
		close(q.flushed)
		return true
	}
	q.wake()
	return true
}

// wait returns a channel that is closed when the close frame is written or
// cannot be. Only after close.
func (q *sendQueue) wait() <-chan struct{} {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.flushed
}

// open says where to write; what was queued before goes out now.
func (q *sendQueue) open(out io.Writer) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.out = out
	if q.waits() {
		q.wake()
	}
}

// stop makes every further push fail and frees what waits. It reports whether
// the queue was still alive.
func (q *sendQueue) stop(err error) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.err != nil {
		return false
	}
	q.end(err)
	return true
}

// ponged is called when a pong has come.
func (q *sendQueue) ponged() {
	if at := q.pinged.Swap(0); at != 0 {
		q.roundTrip.Store(q.owner.now() - at)
	}
}

// weight returns how many bytes of the send buffer a frame takes up.
func (q *sendQueue) weight(frame []byte) int64 { return max(int64(len(frame)), q.least) }

// waiting returns how many bytes wait to be written, see weight.
func (q *sendQueue) waiting() int64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.bytes
}

func (q *sendQueue) end(err error) {
	q.err = err
	q.ended.Store(q.owner.now())
	q.clear()
	q.pong, q.ping = nil, nil
	if q.flushed != nil {
		close(q.flushed)
	}
}

func (q *sendQueue) clear() {
	q.unsent.Add(int64(len(q.data) - q.head))
	q.data, q.head, q.bytes = nil, 0, 0
}

// take removes the oldest data frame.
func (q *sendQueue) take() []byte {
	frame := q.data[q.head]
	q.data[q.head] = nil
	q.head++
	q.bytes -= q.weight(frame)
	switch {
	case q.head == len(q.data):
		if cap(q.data) > 64 {
			q.data = nil // the array of a burst is not kept for ever
		}
		q.data, q.head = q.data[:0], 0
	case q.head >= 32 && q.head*2 >= len(q.data):
		n := copy(q.data, q.data[q.head:])
		clear(q.data[n:])
		q.data, q.head = q.data[:n], 0
	}
	return frame
}

// wake has what waits written, unless somebody is at it.
func (q *sendQueue) wake() {
	switch {
	case q.busy || q.out == nil || q.err != nil:
	case q.held.Load():
		q.owner.holding()
	default:
		q.begin()
		q.owner.start(q)
	}
}

// begin makes the caller the one who writes. It holds the lock.
func (q *sendQueue) begin() {
	q.busy = true
	q.progress.Store(q.owner.now())
}

// hold leaves what is pushed from now on to whoever calls release.
func (q *sendQueue) hold() { q.held.Store(true) }

// release ends hold. If it returns true, something waits, and the caller has to
// call write until that returns false, or start.
func (q *sendQueue) release() bool {
	q.held.Store(false)
	return q.claim()
}

// claim makes the caller the one who writes, if something waits that nobody
// writes.
func (q *sendQueue) claim() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.busy || q.out == nil || q.err != nil || !q.waits() {
		return false
	}
	q.begin()
	return true
}

// waits tells whether there is something to write. The caller holds the lock.
func (q *sendQueue) waits() bool {
	return q.pong != nil || q.ping != nil || q.head < len(q.data) || q.closing != nil
}

// scratch holds buffers in which frames are gathered for one write.
var scratch = sync.Pool{New: func() any {
	b := make([]byte, 0, writeChunk)
	return &b
}}

// write writes some of what waits, in one go if it is not much, and returns
// whether more does. Only who was told to by release, or by the owner's start,
// calls it.
func (q *sendQueue) write() (more bool) {
	buf := scratch.Get().(*[]byte)
	defer scratch.Put(buf)
	batch, last := q.next((*buf)[:0])
	for len(batch) > 0 {
		n, err := q.out.Write(batch[:min(len(batch), writeChunk)])
		q.owner.wrote(n)
		if err != nil {
			if q.settle(err) {
				q.owner.writeFailed(err)
			}
			return false
		}
		q.progress.Store(q.owner.now())
		batch = batch[n:]
	}
	if last {
		q.settle(errCloseSent)
		return false
	}
	return !q.idle()
}

// next takes what is to be written now: a frame as it is if it is alone or
// large, otherwise several gathered in buf, so that they cost one TLS record
// and one system call. last is set if nothing comes after it.
func (q *sendQueue) next(buf []byte) (batch []byte, last bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.err != nil {
		return nil, false
	}
	if q.ping != nil {
		q.pinging = true
		q.pinged.Store(q.owner.now())
	}
	for _, slot := range []*[]byte{&q.pong, &q.ping} {
		buf = append(buf, *slot...)
		*slot = nil
	}
	for q.head < len(q.data) {
		frame := q.data[q.head]
		if len(buf) == 0 && (q.head+1 == len(q.data) || len(frame) >= writeChunk) {
			q.messages.Add(1)
			return q.take(), false
		}
		if len(buf)+len(frame) > writeChunk {
			break
		}
		q.messages.Add(1)
		buf = append(buf, q.take()...)
	}
	if len(buf) > 0 {
		return buf, false
	}
	return q.closing, q.closing != nil
}

// idle is called when what next gave is written, and ends the writing if nothing
// waits.
func (q *sendQueue) idle() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.pinging && q.ping == nil {
		q.pingOut.Store(q.owner.now())
	}
	q.pinging = false
	if q.err == nil && q.waits() {
		return false
	}
	q.busy = false
	q.progress.Store(0)
	return true
}

// settle ends writing for good. It reports whether that is news.
func (q *sendQueue) settle(err error) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.busy = false
	q.progress.Store(0)
	if q.err != nil {
		return false
	}
	q.end(err)
	return true
}
