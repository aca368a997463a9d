package load

import (
	"context"
	"crypto/tls"
	"sync"
	"time"
)

// Handshakes connects and cuts, again and again, on so many lines at a time. With resume
// the TLS session of a line is taken up again.
func Handshakes(ctx context.Context, t Target, lines int, resume bool, lasts time.Duration) (*Result, error) {
	histograms := make([]Histogram, lines)
	resumed := make([]int64, lines)
	errs := make([]error, lines)
	var wg sync.WaitGroup
	began := time.Now()
	for i := range lines {
		wg.Go(func() {
			t := t
			t.TLS = t.TLS.Clone()
			if resume { // a cache of its own: a ticket is good for one use
				t.TLS.ClientSessionCache = tls.NewLRUClientSessionCache(4)
			}
			for last := began; time.Since(began) < lasts && errs[i] == nil; {
				c, err := t.Dial(ctx, 4<<10)
				if err != nil {
					errs[i] = err
					return
				}
				now := time.Now()
				histograms[i].Add(now.Sub(last), 1)
				last = now
				if c.Resumed() {
					resumed[i]++
				}
				c.Close()
			}
		})
	}
	wg.Wait()
	r, err := summary(began, histograms, errs)
	for _, n := range resumed {
		r.Resumed += n
	}
	return r, err
}
