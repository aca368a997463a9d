package gateway

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
)

// watchedOwner counts what the queue asks of its owner.
type watchedOwner struct {
	fakeOwner
	running   atomic.Int32
	overflows atomic.Int64
}

func (o *watchedOwner) start(q *sendQueue) {
	o.running.Add(1)
	o.wg.Go(func() {
		defer o.running.Add(-1)
		for q.write() {
		}
	})
}

func (o *watchedOwner) full(QueuePolicy) { o.overflows.Add(1) }

// valve is a socket that takes in as many bytes as it is opened for.
type valve struct {
	mu      sync.Mutex
	room    int           // guarded by mu
	err     error         // guarded by mu; what every write fails with
	got     []byte        // guarded by mu
	changed chan struct{} // holds one
}

func newValve() *valve { return &valve{changed: make(chan struct{}, 1)} }

func (v *valve) update(f func()) {
	v.mu.Lock()
	defer v.mu.Unlock()
	f()
	select {
	case v.changed <- struct{}{}:
	default:
	}
}

func (v *valve) open(room int) { v.update(func() { v.room = min(v.room+room, math.MaxInt32) }) }

func (v *valve) fail(err error) { v.update(func() { v.err = err }) }

// Write returns when all of p has gone through, as a socket does.
func (v *valve) Write(p []byte) (n int, err error) {
	for {
		k, err := v.take(p[n:])
		n += k
		if n == len(p) || err != nil {
			return n, err
		}
		<-v.changed
	}
}

func (v *valve) take(p []byte) (n int, err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.err != nil {
		return 0, v.err
	}
	n = min(v.room, len(p))
	v.got = append(v.got, p[:n]...)
	v.room -= n
	return n, nil
}

// queueModel is what a queue should be like, in plain lists.
type queueModel struct {
	t     *testing.T
	q     *sendQueue
	owner *watchedOwner
	out   *valve

	policy QueuePolicy
	limit  int

	opened     bool
	waiting    [][]byte
	pong, ping []byte
	closing    []byte
	bidden     bool  // nothing but the close frame is left to write
	err        error // why it has ended

	handed   []byte // what was handed to writes, in order, without the close frame
	messages int    // how many data frames that is
	largest  int    // and how large the largest is
	seen     int    // how much of it was found to have arrived

	pushed, overflows, dropped, unsent int
}

func (m *queueModel) bytes() (n int) {
	for _, f := range m.waiting {
		n += len(f)
	}
	return n
}

// push pushes a frame that is like no other, and wants the answer that the
// policy gives.
func (m *queueModel) push(size int) {
	m.t.Helper()
	m.pushed++
	frame := bytes.Repeat([]byte{byte(m.pushed)}, size)
	copy(frame, binary.BigEndian.AppendUint32(nil, uint32(m.pushed)))
	var want error
	switch {
	case m.closing != nil || m.err != nil:
		want = ErrClosed
	case size > m.limit:
		want = ErrTooBig
	case m.bytes()+size <= m.limit:
		m.waiting = append(m.waiting, frame)
	case m.policy == DropOldest:
		m.overflows++
		for m.bytes()+size > m.limit {
			m.waiting = m.waiting[1:]
			m.dropped++
		}
		m.waiting = append(m.waiting, frame)
	default:
		want = ErrQueueFull
		m.overflows++
		m.dropped++
	}
	if err := m.q.push(frame, int64(m.limit), m.policy); !errors.Is(err, want) {
		m.t.Fatalf("pushing %d bytes to %d of %d: %v, want %v", size, m.bytes(), m.limit, err, want)
	}
	if n := m.q.waiting(); want == nil && n > int64(m.limit) {
		m.t.Fatalf("%d bytes wait, %d are allowed", n, m.limit)
	}
	if m.policy == CloseWhenFull && errors.Is(want, ErrQueueFull) {
		m.close(true) // as Client.push does
	}
}

func (m *queueModel) close(discard bool) {
	m.t.Helper()
	frame := []byte("the close frame")
	if got, want := m.q.close(frame, discard), m.closing == nil; got != want {
		m.t.Fatalf("close says that it was the first: %t, want %t", got, want)
	}
	if m.closing != nil {
		return
	}
	m.closing = frame
	if discard {
		m.unsent += len(m.waiting)
		m.waiting = nil
	}
}

func (m *queueModel) end(err error) {
	m.err = err
	m.unsent += len(m.waiting)
	m.waiting, m.pong, m.ping = nil, nil, nil
}

// control notes a control frame, which takes the place of an older one.
func (m *queueModel) control(slot *[]byte, frame []byte) {
	if m.closing == nil && m.err == nil {
		*slot = frame
	}
}

// step does one random thing to the queue and to the model.
func (m *queueModel) step(rnd *rand.Rand, sizes int) {
	m.t.Helper()
	switch n := rnd.IntN(100); {
	case n < 55:
		m.push(4 + rnd.IntN(sizes))
	case n < 61:
		m.q.pushPing()
		m.control(&m.ping, newFrame(opPing, nil))
	case n < 67:
		payload := binary.BigEndian.AppendUint32(nil, rnd.Uint32())
		m.q.pushPong(payload)
		m.control(&m.pong, newFrame(opPong, payload))
	case n < 85:
		m.out.open(rnd.IntN(sizes)) // often less than a frame
	case n < 96:
		m.out.open(rnd.IntN(10 * sizes))
	case n < 98:
		m.limit = sizes/2 + rnd.IntN(3*sizes) // a reload
	default:
		m.opened = true
		m.q.open(m.out)
	}
}

// finish ends the queue in one of the ways that there are.
func (m *queueModel) finish(rnd *rand.Rand) {
	m.t.Helper()
	switch rnd.IntN(4) {
	case 0:
		m.close(false)
	case 1:
		m.close(true)
	case 2:
		if m.q.stop(ErrClosed) != (m.err == nil) {
			m.t.Fatal("stop is wrong about whether the queue was alive")
		}
		if m.err == nil {
			m.end(ErrClosed)
		}
	case 3:
		m.out.fail(io.ErrClosedPipe) // the next write notices
	}
}

// settle waits until the writing goroutine is blocked or gone, and moves in the
// model what it has taken since.
func (m *queueModel) settle() {
	m.t.Helper()
	synctest.Wait()
	if errors.Is(m.q.err, io.ErrClosedPipe) {
		m.pong, m.ping = nil, nil // handed to the write that failed, or discarded: they never arrive
	}
	for _, slot := range []struct{ queue, model *[]byte }{{&m.q.pong, &m.pong}, {&m.q.ping, &m.ping}} {
		if *slot.queue == nil {
			m.handed = append(m.handed, *slot.model...)
			*slot.model = nil
		} else if !bytes.Equal(*slot.queue, *slot.model) {
			m.t.Fatalf("the control frame %x waits, want %x", *slot.queue, *slot.model)
		}
	}
	for ; m.messages < int(m.q.messages.Load()); m.messages++ {
		if len(m.waiting) == 0 {
			m.t.Fatalf("%d messages are counted, of %d", m.q.messages.Load(), m.messages)
		}
		m.handed = append(m.handed, m.waiting[0]...)
		m.largest = max(m.largest, len(m.waiting[0]))
		m.waiting = m.waiting[1:]
	}
	if m.err == nil && m.q.err != nil {
		m.end(m.q.err)
	}
	m.checkDelivery()
	m.checkState()
}

// checkDelivery compares what has arrived with what was handed to writes: with
// push and settle it says that nothing is lost, doubled, cut or out of order.
func (m *queueModel) checkDelivery() {
	m.t.Helper()
	want := m.handed
	closeSent := errors.Is(m.err, errCloseSent)
	if m.closing != nil && (m.err == nil || closeSent) && len(m.waiting) == 0 && m.pong == nil && m.ping == nil {
		m.bidden = true
	}
	if m.bidden {
		want = slices.Concat(want, m.closing) // it comes last, and once
	}
	got := m.out.got
	if len(got) > len(want) || !bytes.Equal(got[m.seen:], want[m.seen:len(got)]) {
		m.t.Fatalf("what arrived differs from what was pushed, after byte %d", m.seen)
	}
	m.seen = len(got)
	if held := len(m.handed) - len(got); held > max(writeChunk, m.largest) {
		m.t.Fatalf("a write holds %d bytes: more than %d gathered and more than one frame", held, writeChunk)
	}
	if closeSent && len(got) != len(want) {
		m.t.Fatalf("the queue has ended in order and %d bytes are missing", len(want)-len(got))
	}
	if m.owner.running.Load() == 0 && m.owner.bytes != len(got) {
		m.t.Fatalf("the owner was told of %d bytes, %d were written", m.owner.bytes, len(got))
	}
}

// checkState compares what the queue holds, counts and runs.
func (m *queueModel) checkState() {
	m.t.Helper()
	q := m.q
	if n, b := len(q.data)-q.head, q.waiting(); n != len(m.waiting) || b != int64(m.bytes()) {
		m.t.Fatalf("%d frames of %d bytes wait, want %d of %d", n, b, len(m.waiting), m.bytes())
	}
	for _, n := range []struct {
		what      string
		got, want int
	}{
		{"dropped", int(q.dropped.Load()), m.dropped},
		{"unsent", int(q.unsent.Load()), m.unsent},
		{"overflows", int(m.owner.overflows.Load()), m.overflows},
	} {
		if n.got != n.want {
			m.t.Fatalf("%s: counted %d, want %d", n.what, n.got, n.want)
		}
	}
	running := m.owner.running.Load()
	waits := len(m.waiting) > 0 || m.pong != nil || m.ping != nil || m.closing != nil && m.err == nil
	switch {
	case running > 1:
		m.t.Fatalf("%d goroutines write", running)
	case running == 0 && waits && m.opened:
		m.t.Fatal("something waits and nobody writes it")
	case running == 1 && !waits && !m.bidden && len(m.out.got) >= len(m.handed):
		m.t.Fatal("a goroutine runs and nothing waits")
	case (running == 1) != (q.progress.Load() != 0):
		m.t.Fatalf("%d goroutines write, and the sweeper sees progress %d", running, q.progress.Load())
	case (m.err != nil) != (q.ended.Load() != 0):
		m.t.Fatalf("the sweeper sees the end at %d, and the queue ended with %v", q.ended.Load(), m.err)
	case (m.owner.failed != nil) != errors.Is(m.err, io.ErrClosedPipe):
		m.t.Fatalf("the owner was told of %v, the queue ended with %v", m.owner.failed, m.err)
	case (q.ping != nil || q.pinging) && q.pingOut.Load() != 0:
		m.t.Fatal("the sweeper sees a ping as written that is not")
	case m.err != nil && (q.data != nil || q.ping != nil || q.pong != nil):
		m.t.Fatal("the queue has ended and holds frames")
	}
	if m.closing == nil {
		return
	}
	select {
	case <-q.wait():
		if m.err == nil {
			m.t.Fatal("wait returns before the close frame is out")
		}
	default:
		if m.err != nil {
			m.t.Fatal("wait does not return although the queue has ended")
		}
	}
}

// Everything that is promised of a queue, with every policy, against a plain
// model, through random sends, controls, reloads, ends, and a client that takes
// in a few bytes at a time: what arrives is what was accepted, in order, whole,
// without what a policy dropped; what waits stays below the limit; the counters
// are exact; a goroutine runs only while something waits.
func TestQueueAgreesWithAPlainModel(t *testing.T) {
	for _, policy := range []QueuePolicy{CloseWhenFull, DropNewest, DropOldest} {
		for _, tt := range []struct {
			name               string
			sizes, runs, steps int
		}{
			{"small frames", 40, 30, 300},
			{"frames around a chunk", writeChunk * 3 / 2, 10, 80},
		} {
			t.Run(policy.String()+", "+tt.name, func(t *testing.T) {
				for range tt.runs {
					synctest.Test(t, func(t *testing.T) {
						seed := rand.Uint64()
						defer func() {
							if t.Failed() {
								t.Logf("seed %d", seed)
							}
						}()
						modelRun(t, rand.New(rand.NewPCG(seed, 0)), policy, tt.sizes, tt.steps)
					})
				}
			})
		}
	}
}

func modelRun(t *testing.T, rnd *rand.Rand, policy QueuePolicy, sizes, steps int) {
	m := &queueModel{t: t, owner: &watchedOwner{}, out: newValve(), policy: policy, limit: sizes * 2}
	m.q = &sendQueue{owner: m.owner}
	defer m.owner.wg.Wait()
	defer m.out.update(func() { m.out.room = math.MaxInt32 }) // whatever fails, nobody stays blocked
	if rnd.IntN(2) == 0 {
		m.opened = true
		m.q.open(m.out)
	}
	last := rnd.IntN(steps)
	for i := range steps {
		if i == last || i > last && rnd.IntN(20) == 0 {
			m.finish(rnd)
		} else {
			m.step(rnd, sizes)
		}
		m.settle()
	}
	m.close(false)
	m.q.open(m.out)
	m.opened = true
	m.out.open(math.MaxInt32)
	m.settle()
	if m.err == nil {
		t.Error("the queue has not ended although it was closed and all could be written")
	}
	if m.owner.running.Load() != 0 {
		t.Error("a goroutine runs after the end")
	}
	m.push(4) // is refused
}

// Many send at once to a client that takes in too little, while it answers pings:
// each policy keeps its word to every one of those who send.
func TestEveryPolicyHoldsUnderConcurrency(t *testing.T) {
	const pushers, each, size, limit = 6, 400, 5, 20 * 5
	for _, policy := range []QueuePolicy{CloseWhenFull, DropNewest, DropOldest} {
		t.Run(policy.String(), func(t *testing.T) {
			o, out := &watchedOwner{}, newValve()
			q := &sendQueue{owner: o}
			q.open(out)
			var accepted, refused [pushers]int
			var pushing, others sync.WaitGroup
			for w := range pushers {
				pushing.Go(func() {
					for i := range each {
						err := q.push([]byte{opBinary, size - 2, byte(w), byte(i >> 8), byte(i)}, limit, policy)
						switch {
						case err == nil:
							accepted[w]++
						case policy == DropOldest, !errors.Is(err, ErrQueueFull) && (policy != CloseWhenFull || !errors.Is(err, ErrClosed)):
							t.Errorf("pushing: %v", err)
						default:
							refused[w]++
							if policy == CloseWhenFull {
								q.close([]byte{opClose, 0}, true)
							}
						}
						if n := q.waiting(); n > limit {
							t.Errorf("%d bytes wait, %d are allowed", n, limit)
						}
					}
				})
			}
			stop := make(chan struct{})
			for _, f := range []func(){q.pushPing, func() { q.pushPong([]byte("!!!")) }, func() { out.open(3) }} {
				others.Go(func() {
					for {
						select {
						case <-stop:
							return
						default:
							f()
						}
					}
				})
			}
			pushing.Wait()
			close(stop)
			others.Wait()
			out.open(math.MaxInt32)
			q.close([]byte{opClose, 0}, false)
			<-q.wait()
			o.wg.Wait()

			arrived, total := checkArrivals(t, out.got, pushers)
			sum := 0
			for w := range pushers {
				sum += accepted[w]
				if policy == DropNewest && len(arrived[w]) != accepted[w] {
					t.Errorf("pusher %d: %d were accepted, %d arrived", w, accepted[w], len(arrived[w]))
				}
				for i, n := range arrived[w] {
					if policy == CloseWhenFull && i != n {
						t.Fatalf("pusher %d: %d misses although nothing after it should come", w, i)
					}
				}
			}
			if n := int(q.messages.Load()); n != total {
				t.Errorf("%d messages are counted, %d arrived", n, total)
			}
			dropped, unsent := int(q.dropped.Load()), int(q.unsent.Load())
			lost := unsent
			if policy == DropOldest {
				lost += dropped
			}
			if sum != total+lost {
				t.Errorf("%d were accepted, %d arrived, %d are counted as dropped and %d as unsent", sum, total, dropped, unsent)
			}
			if dropped == 0 {
				t.Error("nothing was dropped: the test has not tried what it should")
			}
		})
	}
}

// checkArrivals cuts a stream into frames, wants one close frame at its end, and
// returns the numbers that came of each pusher, which must grow.
func checkArrivals(t *testing.T, stream []byte, pushers int) (arrived [][]int, total int) {
	t.Helper()
	arrived = make([][]int, pushers)
	for len(stream) > 0 {
		op, size := stream[0]&0xF, 2+int(stream[1])
		if len(stream) < size {
			t.Fatalf("the stream ends inside a frame: %x", stream)
		}
		switch frame := stream[:size]; op {
		case opBinary:
			w, n := int(frame[2]), int(frame[3])<<8|int(frame[4])
			if last := arrived[w]; len(last) > 0 && n <= last[len(last)-1] {
				t.Fatalf("pusher %d: %d came after %d", w, n, last[len(last)-1])
			}
			arrived[w] = append(arrived[w], n)
			total++
		case opClose:
			if len(stream) != size {
				t.Fatalf("%d bytes follow the close frame", len(stream)-size)
			}
			return arrived, total
		}
		stream = stream[size:]
	}
	t.Fatal("no close frame came")
	return nil, 0
}
