package gateway

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
)

// fakeOwner runs the queue's goroutine and counts.
type fakeOwner struct {
	wg     sync.WaitGroup
	failed error
	bytes  int
}

func (*fakeOwner) now() int64 { return 1 }
func (*fakeOwner) holding()   {}
func (o *fakeOwner) start(q *sendQueue) {
	o.wg.Go(func() {
		for q.write() {
		}
	})
}
func (o *fakeOwner) wrote(n int)           { o.bytes += n }
func (*fakeOwner) full(QueuePolicy)        {}
func (o *fakeOwner) writeFailed(err error) { o.failed = err }

// gate is a writer whose writes block until they are let through.
type gate struct {
	writes chan []byte   // what is being written
	pass   chan struct{} // lets one write through
}

func newGate() *gate { return &gate{make(chan []byte), make(chan struct{})} }

func (g *gate) Write(p []byte) (int, error) {
	g.writes <- bytes.Clone(p)
	<-g.pass
	return len(p), nil
}

// next returns the write under way and lets it through.
func (g *gate) next() string {
	p := <-g.writes
	g.pass <- struct{}{}
	return string(p)
}

func push(t *testing.T, q *sendQueue, limit int64, policy QueuePolicy, frames ...string) {
	t.Helper()
	for _, f := range frames {
		if err := q.push([]byte(f), limit, policy); err != nil {
			t.Fatalf("pushing %q: %v", f, err)
		}
	}
}

// A client to whom nothing is sent costs no goroutine to write it.
func TestQueueThatIsEmptyIsNotWritten(t *testing.T) {
	for _, tt := range []struct {
		frames []string
		want   string
	}{{nil, ""}, {[]string{"early"}, "early"}} {
		var out strings.Builder
		o := &countingOwner{}
		q := &sendQueue{owner: o}
		push(t, q, 100, CloseWhenFull, tt.frames...)
		q.open(&out)
		o.wg.Wait()
		if out.String() != tt.want || o.starts != len(tt.frames) {
			t.Errorf("with %q waiting %q was written in %d starts", tt.frames, &out, o.starts)
		}
	}
}

// countingOwner counts how often the queue is to be written.
type countingOwner struct {
	fakeOwner
	starts int
}

func (o *countingOwner) start(q *sendQueue) {
	o.starts++
	o.fakeOwner.start(q)
}

func TestQueueGathersWhatWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, out := &fakeOwner{}, newGate()
		q := &sendQueue{owner: o}
		q.open(out)
		push(t, q, 100, CloseWhenFull, "1")
		first := <-out.writes
		push(t, q, 100, CloseWhenFull, "2", "3", "4")
		out.pass <- struct{}{}
		if second := out.next(); string(first) != "1" || second != "234" {
			t.Errorf("wrote %q and %q, want 1 and 234", first, second)
		}
		o.wg.Wait() // nothing waits, so nothing runs
	})
}

func TestControlFramesOvertakeWhatWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, out := &fakeOwner{}, newGate()
		q := &sendQueue{owner: o}
		q.open(out)
		push(t, q, 100, CloseWhenFull, "written")
		<-out.writes
		push(t, q, 100, CloseWhenFull, "waits")
		q.pushPong([]byte("old"))
		q.pushPong([]byte("new"))
		q.pushPing()
		out.pass <- struct{}{}
		if got, want := out.next(), "\x8a\x03new\x89\x00waits"; got != want {
			t.Errorf("wrote %q, want %q", got, want)
		}
	})
}

func TestFullQueueFollowsItsPolicy(t *testing.T) {
	for _, tt := range []struct {
		policy QueuePolicy
		err    error
		want   string
		lost   int64
	}{
		{CloseWhenFull, ErrQueueFull, "aabbcc", 1},
		{DropNewest, ErrQueueFull, "aabbcc", 1},
		{DropOldest, nil, "ccddd", 2},
	} {
		t.Run(tt.policy.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const limit = 6
				out := newGate()
				q := &sendQueue{owner: &fakeOwner{}}
				q.open(out)
				push(t, q, limit, tt.policy, "!")
				<-out.writes // no policy touches this one any more
				push(t, q, limit, tt.policy, "aa", "bb", "cc")
				if err := q.push([]byte("ddd"), limit, tt.policy); !errors.Is(err, tt.err) {
					t.Errorf("pushing into a full queue: %v, want %v", err, tt.err)
				}
				if err := q.push([]byte("1234567"), limit, tt.policy); !errors.Is(err, ErrTooBig) {
					t.Errorf("pushing more than the whole queue: %v, want ErrTooBig", err)
				}
				out.pass <- struct{}{}
				if got := out.next(); got != tt.want {
					t.Errorf("wrote %q, want %q", got, tt.want)
				}
				if lost := q.dropped.Load(); lost != tt.lost {
					t.Errorf("counted %d as dropped, want %d", lost, tt.lost)
				}
			})
		})
	}
}

// A frame of two bytes takes up many times that: a buffer of a megabyte must not
// cost twenty.
func TestSmallFramesWeighWhatTheyCost(t *testing.T) {
	q := &sendQueue{owner: &fakeOwner{}, least: leastWeight}
	const limit = 10 * leastWeight
	for range limit / leastWeight {
		push(t, q, limit, DropNewest, "ab")
	}
	if err := q.push([]byte("ab"), limit, DropNewest); !errors.Is(err, ErrQueueFull) {
		t.Errorf("pushing the eleventh: %v, want ErrQueueFull", err)
	}
	push(t, q, limit, DropOldest, "ab")
	if n := q.waiting(); n != limit {
		t.Errorf("%d bytes wait, want %d", n, limit)
	}
	small := &sendQueue{owner: &fakeOwner{}, least: leastWeight}
	push(t, small, 3, CloseWhenFull, "abc") // an empty buffer takes what fits by its bytes
	if err := small.push([]byte("a"), 3, CloseWhenFull); !errors.Is(err, ErrQueueFull) {
		t.Errorf("pushing behind it: %v, want ErrQueueFull", err)
	}
}

func TestCloseFrameComesLastAndNothingAfterIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, out := &fakeOwner{}, newGate()
		q := &sendQueue{owner: o}
		push(t, q, 100, CloseWhenFull, "early ")
		if !q.close([]byte("close"), false) || q.close([]byte("again"), false) {
			t.Error("the first close must win, and only that")
		}
		if err := q.push([]byte("late"), 100, CloseWhenFull); !errors.Is(err, ErrClosed) {
			t.Errorf("pushing after close: %v, want ErrClosed", err)
		}
		q.pushPing()
		q.open(out)
		if got := out.next() + out.next(); got != "early close" {
			t.Errorf("wrote %q, want early close", got)
		}
		<-q.wait()
		o.wg.Wait()
		if n := q.messages.Load(); n != 1 {
			t.Errorf("counted %d messages, want 1", n)
		}
	})
}

// A large message is written in pieces, so that a slow client is seen to move.
func TestLargeFrameIsWrittenInChunks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := newGate()
		q := &sendQueue{owner: &fakeOwner{}}
		q.open(out)
		frame := strings.Repeat("x", writeChunk+1)
		push(t, q, 1<<20, CloseWhenFull, frame)
		if first, second := out.next(), out.next(); len(first) != writeChunk || len(second) != 1 {
			t.Errorf("wrote %d and %d bytes, want %d and 1", len(first), len(second), writeChunk)
		}
	})
}

type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }

func TestFailedWriteEndsTheQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := &fakeOwner{}
		q := &sendQueue{owner: o}
		q.open(brokenWriter{})
		push(t, q, 100, CloseWhenFull, "x")
		o.wg.Wait()
		if !errors.Is(o.failed, io.ErrClosedPipe) {
			t.Errorf("the owner was told %v, want the writer's error", o.failed)
		}
		if err := q.push([]byte("y"), 100, CloseWhenFull); !errors.Is(err, ErrClosed) {
			t.Errorf("pushing: %v, want ErrClosed", err)
		}
		q.close([]byte("close"), false)
		<-q.wait()
	})
}

// Many at once, with every policy: nothing is lost that was taken, order holds,
// and a queue that is empty has no goroutine.
func TestQueueUnderConcurrency(t *testing.T) {
	const writers, each = 8, 500
	o := &fakeOwner{}
	var out bytes.Buffer
	q := &sendQueue{owner: o}
	q.open(&out) // only the queue's one goroutine writes to it
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				if err := q.push([]byte{byte(w), byte(i >> 8), byte(i)}, 1<<20, CloseWhenFull); err != nil {
					t.Error(err)
				}
				if i%50 == 0 {
					q.waiting()
				}
			}
		})
	}
	wg.Wait()
	q.close([]byte{}, false)
	o.wg.Wait()
	last := [writers]int{}
	for i := range last {
		last[i] = -1
	}
	all := out.Bytes()
	for ; len(all) >= 3; all = all[3:] {
		w, i := all[0], int(all[1])<<8|int(all[2])
		if i != last[w]+1 {
			t.Fatalf("writer %d: %d after %d", w, i, last[w])
		}
		last[w] = i
	}
	for w, i := range last {
		if i != each-1 {
			t.Errorf("writer %d ends with %d", w, i)
		}
	}
}
