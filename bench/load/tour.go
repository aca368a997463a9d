package load

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

// parcel is a message to a group.
type parcel struct {
	due  time.Time
	left atomic.Int32  // members who have not got it
	done chan struct{} // has one more when all have; nil if nobody wants to know
}

func (p *parcel) delivered() {
	if p.left.Add(-1) == 0 && p.done != nil {
		p.done <- struct{}{}
	}
}

// underway is what is on its way to one client, in the order sent.
type underway struct {
	mu      sync.Mutex
	parcels []*parcel // guarded by mu
}

func (u *underway) add(p *parcel) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.parcels = append(u.parcels, p)
}

// next takes out the oldest. It returns nil of a run that takes no times.
func (u *underway) next() *parcel {
	u.mu.Lock()
	defer u.mu.Unlock()
	if len(u.parcels) == 0 {
		return nil
	}
	p := u.parcels[0]
	u.parcels = u.parcels[1:]
	return p
}

// tour is one run.
type tour struct {
	*Groups
	message                      []byte
	began                        time.Time
	sent                         int64
	deliveredBefore, heardBefore int64
}

func (g *Groups) tour(message []byte) *tour {
	for i := range g.latency {
		g.latency[i] = Histogram{}
	}
	return &tour{Groups: g, message: message, began: time.Now(), deliveredBefore: g.delivered.Load(), heardBefore: g.answered.Load()}
}

func (t *tour) answers() int64 { return t.answered.Load() - t.heardBefore }

// send has a message sent to one of the groups. Its time is taken unless due is zero.
func (t *tour) send(due time.Time, done chan struct{}) error {
	group := rand.IntN(t.count) //nolint:gosec // no secret
	if !due.IsZero() {
		p := &parcel{due: due, done: done}
		p.left.Store(int32(t.each)) //nolint:gosec // a few
		for i := range t.members(group) {
			t.under[i].add(p)
		}
	}
	t.sent++
	return t.control.send(t.Groups.send(nameOf(group), t.message), 1)
}

// end waits until all that was sent has come, and been answered.
func (t *tour) end() (*Result, error) {
	want := t.sent * int64(t.each)
	got := func() int64 { return t.delivered.Load() - t.deliveredBefore }
	for overdue := time.Now().Add(patience); got() < want || t.answers() < t.sent; time.Sleep(100 * time.Microsecond) {
		if time.Now().After(overdue) {
			return nil, fmt.Errorf("%d deliveries, want %d; %d answers, want %d", got(), want, t.answers(), t.sent)
		}
	}
	if got() != want {
		return nil, fmt.Errorf("%d deliveries, want %d", got(), want)
	}
	r, _ := summary(t.began, t.latency, nil) // without errors there is none
	r.Messages = want
	return r, nil
}

// Run has messages sent to one group after the other, so many of them under way at a time,
// where one is under way until the server has answered.
func (g *Groups) Run(message []byte, outstanding int, lasts time.Duration) (*Result, error) {
	t := g.tour(message)
	overdue := time.NewTimer(patience)
	defer overdue.Stop()
	for time.Since(t.began) < lasts || t.sent == 0 {
		for t.sent-t.answers() < int64(outstanding) {
			if err := t.send(time.Time{}, nil); err != nil {
				return nil, err
			}
		}
		select {
		case <-g.heard:
			overdue.Reset(patience)
		case <-overdue.C:
			return nil, fmt.Errorf("%d answers, want %d", t.answers(), t.sent)
		}
	}
	return t.end()
}

// Deliver has messages sent to one group after the other, so many of them under way at a
// time, where one is under way until every member has it.
func (g *Groups) Deliver(message []byte, outstanding int, lasts time.Duration) (*Result, error) {
	t := g.tour(message)
	done := make(chan struct{}, outstanding)
	overdue := time.NewTimer(patience)
	defer overdue.Stop()
	for range outstanding {
		done <- struct{}{}
	}
	for time.Since(t.began) < lasts || t.sent == 0 {
		select {
		case <-done:
			overdue.Reset(patience)
		case <-overdue.C:
			return nil, fmt.Errorf("%d messages were sent, and the last ones do not come", t.sent)
		}
		if err := t.send(time.Now(), done); err != nil {
			return nil, err
		}
	}
	return t.end()
}

// Paced has so many messages a second sent, to one group after the other, whatever the
// server does. Their times count from when they were due.
func (g *Groups) Paced(message []byte, rate float64, lasts time.Duration) (*Result, error) {
	t := g.tour(message)
	late := new(Histogram)
	gap := time.Duration(float64(time.Second) / rate)
	var stop atomic.Bool
	err := onTime(gap, lasts, late, &stop, func(_ int, due time.Time) error { return t.send(due, nil) })
	if err != nil {
		return nil, err
	}
	r, err := t.end()
	if err == nil {
		r.Late, r.Elapsed = late, lasts
	}
	return r, err
}
