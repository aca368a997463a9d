// Package inbox holds what a node has heard from a broker until its gateway has been
// told: it is what brokers have in common.
package inbox

import (
	"sync"
	"sync/atomic"
)

// Overhead is how many bytes a message counts for beside its own: about what a small
// one costs in memory.
const Overhead = 64

// Receiver is a gateway.Receiver.
type Receiver interface {
	Receive(data []byte)
	Up()
	Down(why error)
	Missed(n int)
}

// Inbox calls a Receiver from one goroutine, in the order of its own methods' calls,
// which never wait for it. Messages are bounded: those that find it full are dropped,
// and the Receiver is told how many, at that place. Its methods are safe for concurrent
// use.
type Inbox struct {
	to    Receiver
	limit int64
	size  atomic.Int64 // of the messages that wait, Overhead included
	ended chan struct{}

	mu     sync.Mutex
	filled sync.Cond   // with mu
	items  []item      // guarded by mu
	closed atomic.Bool // set with mu held
}

// item is one call of the Receiver, or of done.
type item struct {
	kind kind
	data []byte
	n    int
	err  error
	done func(error)
}

type kind uint8

const (
	message kind = iota
	missed
	up
	down
	done
)

// New returns an inbox for limit bytes. It has a goroutine until it is closed.
func New(limit int64, to Receiver) *Inbox {
	in := &Inbox{to: to, limit: limit, ended: make(chan struct{})}
	in.filled.L = &in.mu
	go in.run()
	return in
}

// Put passes a message on, and keeps data.
func (in *Inbox) Put(data []byte) {
	size := int64(len(data)) + Overhead
	in.mu.Lock()
	defer in.mu.Unlock()
	// A message that finds nothing before it is taken, however large it is.
	if now := in.size.Load(); now > 0 && now+size > in.limit {
		in.missed(1)
		return
	}
	in.size.Add(size)
	in.add(item{kind: message, data: data})
}

// Missed says that n messages were lost.
func (in *Inbox) Missed(n int) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.missed(n)
}

// missed is called with mu held.
func (in *Inbox) missed(n int) {
	if last := len(in.items) - 1; last >= 0 && in.items[last].kind == missed {
		in.items[last].n += n
		return
	}
	in.add(item{kind: missed, n: n})
}

// Up says that the link has come up.
func (in *Inbox) Up() {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.add(item{kind: up})
}

// Down says that the link has gone down.
func (in *Inbox) Down(why error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.add(item{kind: down, err: why})
}

// Done calls f with err, as it calls the Receiver; if the inbox is closed already, from
// a goroutine of its own.
func (in *Inbox) Done(f func(error), err error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.closed.Load() {
		go f(err)
		return
	}
	in.add(item{kind: done, done: f, err: err})
}

// add is called with mu held.
func (in *Inbox) add(i item) {
	if in.closed.Load() {
		return
	}
	in.items = append(in.items, i)
	if len(in.items) == 1 {
		in.filled.Signal()
	}
}

// Close drops the messages that wait, tells the rest, and returns when the Receiver is
// not called any more. Further calls wait for the same.
func (in *Inbox) Close() {
	in.mu.Lock()
	in.closed.Store(true)
	in.filled.Signal()
	in.mu.Unlock()
	<-in.ended
}

func (in *Inbox) run() {
	defer close(in.ended)
	var batch []item
	for {
		in.mu.Lock()
		for len(in.items) == 0 && !in.closed.Load() {
			in.filled.Wait()
		}
		batch, in.items = in.items, batch[:0]
		in.mu.Unlock()
		if len(batch) == 0 {
			return
		}
		for i := range batch {
			in.tell(batch[i])
			batch[i] = item{}
		}
		const keep = 1024
		if cap(batch) > keep {
			batch = nil
		}
	}
}

func (in *Inbox) tell(i item) {
	switch i.kind {
	case message:
		if !in.closed.Load() {
			in.to.Receive(i.data)
		}
		in.size.Add(-int64(len(i.data)) - Overhead)
	case missed:
		if !in.closed.Load() {
			in.to.Missed(i.n)
		}
	case up:
		in.to.Up()
	case down:
		in.to.Down(i.err)
	case done:
		i.done(i.err)
	}
}
