package gateway

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Shutdown ends the gateway: handshakes are refused with 503, clients closed
// with 1001, spread over time as Options say, and OnClose is called for each.
// It returns when all are gone and every goroutine has returned, or when ctx is
// done: then the connections that are left are cut, callbacks that still run
// are named in the log and in the error, and not waited for.
//
// Further calls wait for the first.
func (g *Gateway) Shutdown(ctx context.Context) error {
	if g.shutdown.CompareAndSwap(false, true) {
		g.drainErr = g.drain(ctx)
		close(g.drained)
		return g.drainErr
	}
	select {
	case <-g.drained:
		return g.drainErr
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Done is closed when Shutdown is through: nobody is connected any more, and
// nobody will be.
func (g *Gateway) Done() <-chan struct{} { return g.drained }

func (s *shared) drain(ctx context.Context) error {
	s.mu.Lock()
	close(s.stopping)
	o := s.options
	living := slices.Clone(s.living)
	s.mu.Unlock()

	gone := make(chan struct{})
	go func() { // ends when the last connection does
		s.conns.Wait()
		close(gone)
	}()
	clients := s.registry.everybody()
	s.closePaced(ctx, clients, o)
	var errs []error
	select {
	case <-gone:
	case <-ctx.Done():
		for _, c := range s.registry.everybody() {
			c.kill(CloseReason{Code: CloseAbnormal, Reason: reasonShutdown})
		}
		s.giveUp()
		select {
		case <-gone:
		case <-time.After(stuckGrace):
			errs = append(errs, s.reportStuck(func(*Client) bool { return true }))
		}
	}
	// Tasks are told only now, and need a moment to return, also if clients have taken
	// all the time.
	if by, ok := ctx.Deadline(); ctx.Err() != nil || ok && time.Until(by) < stuckGrace {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(context.WithoutCancel(ctx), stuckGrace)
		defer cancel()
	}
	for _, gen := range living {
		if err := gen.g.tasks.stop(ctx); err != nil {
			errs = append(errs, err)
		}
	}
	s.cluster.end()
	s.cancel()
	if len(errs) == 0 {
		s.helpers.Wait()
	}
	return errors.Join(errs...)
}

// Reasons that clients are given, in more than one place.
const (
	reasonShutdown = "server is shutting down"
	reasonDrained  = "server is going away"
	reasonRestart  = "server is restarting"
	reasonRemoved  = "endpoint was removed"
	reasonMoved    = "endpoint has moved"
	reasonFailed   = "logic failed to start"
	reasonChanged  = "endpoint has changed"
	reasonIdle     = "idle timeout"
)

// stuckGrace is what connections that were cut have to run their OnClose, and tasks
// to return, when the time is over.
const stuckGrace = 250 * time.Millisecond

// reportStuck logs the callbacks that are running and returns an error that
// names them.
func (s *shared) reportStuck(of func(*Client) bool) error {
	var errs []error
	for _, c := range s.registry.everybody() {
		callback, since := c.running()
		if callback == "" || !of(c) {
			continue
		}
		s.log.Load().Error("callback still runs and is not waited for",
			"callback", callback, "for", since, "client", c.id, "client_ip", c.ip, "endpoint", c.slot.name)
		if len(errs) < 10 {
			errs = append(errs, fmt.Errorf("%s of client %s on endpoint %q still runs after %s", callback, c.id, c.slot.name, since))
		}
	}
	return errors.Join(errs...)
}

// closePaced closes those of the clients that are due, at the rate that o asks for. It returns early when
// ctx is done.
func (s *shared) closePaced(ctx context.Context, clients []*Client, o Options) {
	clients = slices.DeleteFunc(clients, func(c *Client) bool {
		_, due := c.due()
		return !due
	})
	const tick = 10 * time.Millisecond
	// The last quarter is for answers: whoever is closed at the very end would be cut.
	spread := o.DrainTimeout * 3 / 4
	perSecond := max(float64(o.CloseRate), float64(len(clients))/spread.Seconds())
	atOnce := max(perSecond*tick.Seconds(), 1)
	start := time.Now()
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	for closed := 0; ; {
		// By the clock: a busy machine misses ticks.
		allowed := int(atOnce + perSecond*time.Since(start).Seconds())
		for ; closed < min(allowed, len(clients)); closed++ {
			clients[closed].closeIfDue()
		}
		if closed == len(clients) {
			return
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}
