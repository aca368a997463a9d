package load

import (
	"cmp"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// Result is what a run has seen.
type Result struct {
	Messages int64 // echoes, deliveries or handshakes
	Elapsed  time.Duration
	Latency  *Histogram
	Late     *Histogram // of an open loop: how late the generator itself was
	Resumed  int64      // of handshakes
}

// Rate returns messages a second.
func (r *Result) Rate() float64 { return float64(r.Messages) / r.Elapsed.Seconds() }

// Flight is how many messages are under way on a connection, and what follows when some of them
// have come back: as many again, or with Burst nothing until all have. By the former a server
// that gathers its answers is sent its next messages in heaps, too; by the latter all servers
// are sent the same heaps.
type Flight struct {
	Messages int
	Burst    bool
}

// Echo has messages come back, each of which is sent in a record of its own. At the end all of
// them have come back, so that the connections can be used again.
func Echo(conns []*Conn, frame []byte, flight Flight, lasts time.Duration) (*Result, error) {
	var stop atomic.Bool
	histograms := make([]Histogram, len(conns))
	errs := make([]error, len(conns))
	var wg sync.WaitGroup
	began := time.Now()
	for i, c := range conns {
		wg.Go(func() { errs[i] = c.echo(frame, flight, &histograms[i], &stop) })
	}
	guard := time.AfterFunc(lasts, func() { stop.Store(true) })
	defer guard.Stop()
	overdue := time.AfterFunc(lasts+patience, func() { CloseAll(conns) })
	defer overdue.Stop()
	wg.Wait()
	return summary(began, histograms, errs)
}

func summary(began time.Time, histograms []Histogram, errs []error) (*Result, error) {
	r := &Result{Elapsed: time.Since(began), Latency: new(Histogram)}
	for i := range histograms {
		r.Latency.Merge(&histograms[i])
	}
	r.Messages = r.Latency.Total()
	return r, first(errs)
}

// first returns the first error, and how many there are.
func first(errs []error) (err error) {
	failed := 0
	for _, e := range errs {
		if e != nil {
			failed++
			err = cmp.Or(err, e)
		}
	}
	if failed > 1 {
		err = fmt.Errorf("%w, and %d more failed", err, failed-1)
	}
	return err
}

func (c *Conn) echo(frame []byte, flight Flight, h *Histogram, stop *atomic.Bool) error {
	// Echoes come in order, so what came back was sent first.
	sent := make([]time.Time, flight.Messages)
	now := time.Now()
	for i := range sent {
		sent[i] = now
	}
	if err := c.send(frame, flight.Messages); err != nil {
		return err
	}
	for head, out := 0, flight.Messages; out > 0; {
		n, err := c.receive()
		if err != nil {
			return err
		}
		if n > out {
			return fmt.Errorf("%d messages came back, and %d were under way", n, out)
		}
		if n == 0 {
			continue
		}
		now := time.Now()
		for range n {
			h.Add(now.Sub(sent[head]), 1)
			sent[head] = now
			head = (head + 1) % len(sent)
		}
		if out -= n; stop.Load() || flight.Burst && out > 0 {
			continue
		}
		if flight.Burst { // what came back first is as old as what came last
			for i := range sent {
				sent[i] = now
			}
		}
		n = len(sent) - out
		if err := c.send(frame, n); err != nil {
			return err
		}
		out += n
	}
	return nil
}
