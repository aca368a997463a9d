package load

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Open sends at a fixed rate whether answers come or not, each connection in turn, and takes
// the time of each echo from when its message was due: a server that stands still for a while
// is charged with all that should have happened meanwhile (what is called coordinated omission
// leaves that out).
func Open(conns []*Conn, frame []byte, rate float64, lasts time.Duration) (*Result, error) {
	every := time.Duration(float64(time.Second) * float64(len(conns)) / rate)
	due := make([]chan time.Time, len(conns)) // of the messages under way on a connection
	for i := range due {
		due[i] = make(chan time.Time, 1<<12)
	}
	histograms := make([]Histogram, len(conns))
	results := make(chan error, 1+len(conns))
	began := time.Now()
	for i, c := range conns {
		go func() { results <- c.collect(due[i], &histograms[i]) }()
	}
	var stop atomic.Bool
	overdue := time.AfterFunc(lasts+patience, func() {
		stop.Store(true)
		CloseAll(conns)
	})
	defer overdue.Stop()
	late := new(Histogram)
	go func() { results <- pace(conns, frame, due, every, lasts, late, &stop) }()
	errs := make([]error, 1+len(conns))
	for i := range errs {
		errs[i] = <-results
	}
	r, err := summary(began, histograms, errs)
	r.Late = late
	r.Elapsed = lasts
	return r, err
}

// pace sends what is due, to each connection in turn.
func pace(conns []*Conn, frame []byte, due []chan time.Time, every, lasts time.Duration, late *Histogram, stop *atomic.Bool) error {
	defer func() {
		for i := range due {
			close(due[i])
		}
	}()
	order := rand.Perm(len(conns)) //nolint:gosec // no secret
	return onTime(every/time.Duration(len(conns)), lasts, late, stop, func(n int, at time.Time) error {
		i := order[n%len(order)]
		select {
		case due[i] <- at:
		default:
			return errors.New("thousands of messages are under way on one connection: the rate is too high")
		}
		return conns[i].send(frame, 1)
	})
}

// onTime calls send when something is due and sleeps until more is. The kernel's clock is
// used, not Go's timers, which can be a millisecond late.
func onTime(gap, lasts time.Duration, late *Histogram, stop *atomic.Bool, send func(n int, due time.Time) error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	_ = unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0) // without it sleeps are 50 µs longer
	_ = unix.Setpriority(unix.PRIO_PROCESS, 0, -10)    // of this thread; only root may, and without it the generator is later
	defer func() {
		_ = unix.Setpriority(unix.PRIO_PROCESS, 0, 0)
		_ = unix.Prctl(unix.PR_SET_TIMERSLACK, 0, 0, 0, 0) // 0 is the default
	}()
	began := time.Now()
	for n := 0; ; n++ {
		at := began.Add(time.Duration(n) * gap)
		if at.Sub(began) >= lasts || stop.Load() {
			return nil
		}
		if wait := time.Until(at); wait > 0 {
			t := unix.NsecToTimespec(int64(wait))
			_ = unix.Nanosleep(&t, nil) // if a signal wakes it, the message is sent early by that much
		}
		late.Add(time.Since(at), 1)
		if err := send(n, at); err != nil {
			return fmt.Errorf("sending: %w", err)
		}
	}
}

// collect takes the echoes of what is due until that ends.
func (c *Conn) collect(due <-chan time.Time, h *Histogram) error {
	came := 0
	for at := range due {
		for came == 0 {
			n, err := c.receive()
			if err != nil {
				return err
			}
			came = n
		}
		h.Add(time.Since(at), 1)
		came--
	}
	return nil
}
