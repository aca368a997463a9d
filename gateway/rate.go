package gateway

import "time"

// bucket is a token bucket. Only the client's own goroutine uses it.
type bucket struct {
	tokens float64
	last   int64 // nanoseconds, as shared.now gives them; 0 before first use
}

// take takes one token, and tells whether there was one.
func (b *bucket) take(r Rate, now int64) bool {
	if b.last == 0 {
		b.tokens = float64(r.Burst)
	} else {
		elapsed := time.Duration(now - b.last).Seconds()
		b.tokens = min(b.tokens+elapsed*r.PerSecond, float64(r.Burst))
	}
	b.last = now
	if b.tokens < 1 {
		return false
	}
	b.tokens--
	return true
}
