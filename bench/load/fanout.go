package load

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Fanout is members that listen, and a client that has messages sent to them. What servers
// must know for that is their Dialect.
type Fanout struct {
	dialect *Dialect
	members []*Conn
	stuck   []*Conn
	control *Conn

	slots   [64]slot // of the broadcasts under way
	done    chan time.Time
	errs    chan error
	ending  atomic.Bool
	ended   sync.WaitGroup
	answers atomic.Int64
	sent    int64 // broadcasts so far

	latency []Histogram // of each member
}

type slot struct {
	began atomic.Int64 // since epoch
	left  atomic.Int64 // members that have not got it
}

var epoch = time.Now()

// NewFanout connects members to a group called all. Those that are stuck are in it, too,
// but never read. The client that has messages sent is connected to t, and so are the members
// unless other nodes are named: then they are spread over those.
func NewFanout(ctx context.Context, t Target, members, stuck int, over ...Target) (_ *Fanout, err error) {
	f := &Fanout{dialect: t.dialect(), done: make(chan time.Time, 64), errs: make(chan error, members+1), latency: make([]Histogram, members)}
	defer func() {
		if err != nil {
			f.Close()
		}
	}()
	if f.control, err = t.Dial(ctx, 16<<10); err != nil {
		return nil, err
	}
	nodes := nodesOf(t, over)
	in := func(query string) func(int) Target {
		return func(i int) Target { return nodes[i%len(nodes)].with(query) }
	}
	if f.members, err = dialEach(ctx, members, 8<<10, in("?group=all")); err != nil {
		return nil, err
	}
	if f.stuck, err = dialEach(ctx, stuck, 8<<10, in("?group=all&group=stuck")); err != nil {
		return nil, err
	}
	// Who is answered has been joined: some servers do that after the handshake.
	for i, c := range slices.Concat(f.members, f.stuck) {
		groups := []string{"all"}
		if i >= members {
			groups = append(groups, "stuck")
		}
		if err = c.ask(f.dialect.join(groups...)); err != nil {
			return nil, err
		}
	}
	if err = settle(ctx, t, over); err != nil {
		return nil, err
	}
	for i, c := range f.members {
		f.ended.Go(func() { f.listen(c, &f.latency[i]) })
	}
	f.ended.Go(f.hearAnswers)
	if stuck > 0 {
		err = f.fill()
	}
	return f, err
}

// fill sends the stuck members more than the kernel takes in for them, in pieces of less than
// the 64 KiB that some servers take at most. A server may cut them off for it: nobody asks.
func (f *Fanout) fill() error {
	const piece, most = 32 << 10, 6 << 20
	frame := f.dialect.send("stuck", bytes.Repeat([]byte("f"), piece))
	for n := range int64(most / piece) {
		if err := f.control.send(frame, 1); err != nil {
			return err
		}
		for begun := time.Now(); f.answers.Load() <= n; time.Sleep(time.Millisecond) {
			if time.Since(begun) > 3*time.Second {
				return ErrStuck
			}
		}
	}
	time.Sleep(time.Second) // what the server still does for them is done, or will not be
	f.answers.Store(0)
	return nil
}

// ErrStuck says that members who do not read hold up the server.
var ErrStuck = errors.New("held up by members who do not read")

// Run has messages sent, so many of them under way at a time, where one is under way until
// every member has it.
func (f *Fanout) Run(message []byte, outstanding int, lasts time.Duration) (*Result, error) {
	frame := f.dialect.send("all", message)
	for i := range f.latency {
		f.latency[i] = Histogram{}
	}
	began, count := time.Now(), int64(0)
	send := func() error {
		s := &f.slots[f.sent%int64(len(f.slots))]
		s.left.Store(int64(len(f.members)))
		s.began.Store(int64(time.Since(epoch)))
		f.sent++
		count++
		return f.control.send(frame, 1)
	}
	for range outstanding {
		if err := send(); err != nil {
			return nil, err
		}
	}
	overdue := time.NewTimer(patience)
	defer overdue.Stop()
	for under := outstanding; under > 0; {
		select {
		case <-f.done:
		case err := <-f.errs:
			return nil, err
		case <-overdue.C:
			return nil, ErrStuck
		}
		overdue.Reset(patience)
		if time.Since(began) >= lasts {
			under--
			continue
		}
		if err := send(); err != nil {
			return nil, err
		}
	}
	r, _ := summary(began, f.latency, nil) // without errors there is none
	if want := count * int64(len(f.members)); r.Messages != want {
		return nil, fmt.Errorf("%d deliveries, want %d", r.Messages, want)
	}
	return r, nil
}

// listen takes what comes to a member: its n-th message is the n-th broadcast.
func (f *Fanout) listen(c *Conn, h *Histogram) {
	for next := int64(0); ; {
		n, err := c.receive()
		if err != nil {
			f.failed(err)
			return
		}
		now := time.Now()
		for range n {
			s := &f.slots[next%int64(len(f.slots))]
			next++
			h.Add(now.Sub(epoch)-time.Duration(s.began.Load()), 1)
			if s.left.Add(-1) == 0 {
				f.done <- now
			}
		}
	}
}

func (f *Fanout) hearAnswers() {
	for {
		n, err := f.control.receive()
		if err != nil {
			f.failed(err)
			return
		}
		f.answers.Add(int64(n))
	}
}

func (f *Fanout) failed(err error) {
	if f.ending.Load() && (errors.Is(err, net.ErrClosed) || errors.Is(err, io.EOF)) {
		return
	}
	select {
	case f.errs <- err:
	default:
	}
}

// Close cuts all connections.
func (f *Fanout) Close() {
	f.ending.Store(true)
	CloseAll([]*Conn{f.control})
	CloseAll(f.members)
	CloseAll(f.stuck)
	f.ended.Wait()
}
