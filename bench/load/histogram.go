package load

import (
	"math/bits"
	"time"
)

// Each doubling is cut into so many steps: what is read off is 3 % too much at most.
const (
	stepBits = 5
	steps    = 1 << stepBits
)

// Histogram counts durations. It is not safe for concurrent use: each goroutine has one of
// its own.
type Histogram struct {
	counts [40 * steps]uint32
	total  int64
	most   time.Duration
}

// Add counts n durations.
func (h *Histogram) Add(d time.Duration, n int) {
	d = max(d, 0)
	h.counts[min(bucket(uint64(d)), len(h.counts)-1)] += uint32(n) //nolint:gosec // a few at a time
	h.total += int64(n)
	h.most = max(h.most, d)
}

func bucket(v uint64) int {
	shift := max(bits.Len64(v)-stepBits-1, 0)
	return shift*steps + int(v>>shift) //nolint:gosec // less than 2 * steps
}

// upper returns the largest duration that is counted in a bucket.
func upper(bucket int) time.Duration {
	shift := max(bucket/steps-1, 0)
	return time.Duration((bucket-shift*steps+1)<<shift - 1)
}

// Merge adds what the other has counted.
func (h *Histogram) Merge(other *Histogram) {
	for i, n := range other.counts {
		h.counts[i] += n
	}
	h.total += other.total
	h.most = max(h.most, other.most)
}

// Total returns how many durations were counted.
func (h *Histogram) Total() int64 { return h.total }

// Quantile returns what the share q of the durations does not exceed; 0 if there are none.
func (h *Histogram) Quantile(q float64) time.Duration {
	want := max(int64(q*float64(h.total)+0.5), 1)
	var seen int64
	for i, n := range h.counts {
		if seen += int64(n); seen >= want {
			return min(upper(i), h.most)
		}
	}
	return 0
}
