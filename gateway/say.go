package gateway

import (
	"context"
	"log/slog"
	"runtime"
	"sync/atomic"
	"time"
)

// place is where in the source a line is logged, for handlers that tell.
type place struct{ pc atomic.Uintptr }

// The lines that every client is good for.
var placeConnected, placeGone place

// here returns the place from which the caller was called.
func (p *place) here() uintptr {
	if pc := p.pc.Load(); pc != 0 {
		return pc
	}
	const skip = 3 // Callers, here and its caller
	var pcs [1]uintptr
	runtime.Callers(skip, pcs[:])
	p.pc.Store(pcs[0])
	return pcs[0]
}

// say logs a line about the client, as a slog.Logger does with about. But a Logger
// finds out again each time where it was called from, which takes as long as writing
// the line, and makes an interface of each value.
func (c *Client) say(at *place, level slog.Level, message string, more ...slog.Attr) {
	ctx, h := context.Background(), c.slot.current.Load().log().Handler()
	if !h.Enabled(ctx, level) {
		return
	}
	line := slog.NewRecord(time.Now(), level, message, at.here())
	id := c.identity()
	line.AddAttrs(id[:]...)
	line.AddAttrs(more...)
	_ = h.Handle(ctx, line) // a Logger has nobody to tell either
}
