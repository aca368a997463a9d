package gateway

import (
	"context"
	"fmt"
	"time"
)

// Drain empties the gateway without ending it, before a restart or to take the
// machine out of service: handshakes are refused with 503 and clients closed,
// spread over time as Options say, with 1012 if the server will be back at once
// (restart), with 1001 if not. It returns when all are gone or ctx is done; the
// gateway refuses handshakes until Resume, through reloads, too.
func (g *Gateway) Drain(ctx context.Context, restart bool) error {
	reason := &CloseReason{Code: CloseGoingAway, Reason: reasonDrained}
	if restart {
		reason = &CloseReason{Code: CloseServiceRestart, Reason: reasonRestart}
	}
	g.mu.Lock()
	o := g.options
	g.evacuating.Store(reason)
	g.mu.Unlock()
	g.closePaced(ctx, g.registry.everybody(), o)
	const pause = 10 * time.Millisecond
	for {
		left := g.registry.clients.size()
		if left == 0 {
			return nil
		}
		if g.evacuating.Load() != reason {
			return fmt.Errorf("draining gateway %q: it was told otherwise; %d clients are left", g.name, left)
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return fmt.Errorf("draining gateway %q: %d clients are left: %w", g.name, left, ctx.Err())
		}
	}
}

// Resume accepts handshakes again after Drain.
func (g *Gateway) Resume() { g.evacuating.Store(nil) }

// Draining tells whether handshakes are refused since Drain or Shutdown.
func (g *Gateway) Draining() bool { return g.unwilling() }

func (s *shared) unwilling() bool { return s.draining() || s.evacuating.Load() != nil }
