package gateway

import (
	"sync/atomic"
	"time"
)

// durationBounds are the upper bounds of the buckets in which the durations of
// callbacks are counted, but for the last, which has none.
var durationBounds = [...]time.Duration{
	100 * time.Microsecond, 500 * time.Microsecond,
	time.Millisecond, 5 * time.Millisecond, 10 * time.Millisecond, 50 * time.Millisecond,
	100 * time.Millisecond, 500 * time.Millisecond, time.Second, 5 * time.Second, 10 * time.Second,
}

// histogram counts durations.
type histogram struct {
	buckets [len(durationBounds) + 1]atomic.Int64
	sum     atomic.Int64 // nanoseconds
}

func (h *histogram) observe(d time.Duration) {
	i := 0
	for i < len(durationBounds) && d > durationBounds[i] {
		i++
	}
	h.buckets[i].Add(1)
	h.sum.Add(int64(d))
}

// Durations is how long something took, all in all and in buckets.
type Durations struct {
	Count int64         `json:"count"`
	Sum   time.Duration `json:"sum_ns"`

	// Buckets count those that took At most so long; each includes the ones before
	// it. Those that took longer than the last are in Count only.
	Buckets []DurationBucket `json:"buckets"`
}

// DurationBucket is how many took at most so long.
type DurationBucket struct {
	AtMost time.Duration `json:"at_most_ns"`
	Count  int64         `json:"count"`
}

func (h *histogram) durations() Durations {
	d := Durations{Sum: time.Duration(h.sum.Load()), Buckets: make([]DurationBucket, len(durationBounds))}
	for i, bound := range durationBounds {
		d.Count += h.buckets[i].Load()
		d.Buckets[i] = DurationBucket{bound, d.Count}
	}
	d.Count += h.buckets[len(durationBounds)].Load()
	return d
}
