package soak

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"math/bits"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/gorilla/websocket"
)

// ledger counts what happens to a group of clients. Whatever a client opened ends in
// exactly one of the counts of ends, and whatever it sent in one of those of messages.
type ledger struct {
	opened atomic.Int64
	// how connections end
	bye     atomic.Int64 // the client closed with 1000 and was answered with it
	aborted atomic.Int64 // the client reset the connection
	failed  atomic.Int64 // the client made the logic panic and got 1011
	dropped atomic.Int64 // anything else: nobody asked for it

	stayed, stayers atomic.Int64 // clients that were to stay for the whole run, and all of them

	sent      atomic.Int64
	answered  atomic.Int64 // in order, byte for byte
	abandoned atomic.Int64 // the client reset the connection before the answer
	lost      atomic.Int64 // no answer, and nobody asked for that
	wrong     atomic.Int64 // another answer than was due: reordered, doubled or changed

	latencies latencies

	mu      sync.Mutex
	why     map[string]int // guarded by mu; why connections were dropped
	since   time.Time      // guarded by mu; when the first was
	retried map[string]int // guarded by mu; why handshakes had to be tried again
}

func newLedger() *ledger {
	return &ledger{why: map[string]int{}, retried: map[string]int{}}
}

func (l *ledger) drop(err error) {
	l.dropped.Add(1)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.why[ending(err)]++
	if l.since.IsZero() {
		l.since = time.Now()
	}
}

func (l *ledger) retry(res *http.Response, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if res != nil {
		l.retried[fmt.Sprint("status ", res.StatusCode)]++
		return
	}
	l.retried[ending(err)]++
}

// tallies returns copies of why and retried, each as text, and how many retries there were.
func (l *ledger) tallies() (why, retried string, retries int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, n := range l.retried {
		retries += n
	}
	return tally(l.why), tally(l.retried), retries
}

func tally(counts map[string]int) string {
	var parts []string
	for _, what := range slices.Sorted(maps.Keys(counts)) {
		parts = append(parts, fmt.Sprintf("%d %s", counts[what], what))
	}
	return strings.Join(parts, ", ")
}

// ending puts the end of a connection into few words, so that they can be counted.
func ending(err error) string {
	var closed *websocket.CloseError
	var timeout net.Error
	switch {
	case errors.As(err, &closed) && closed.Code != websocket.CloseAbnormalClosure:
		return fmt.Sprintf("closed with %d", closed.Code)
	case errors.Is(err, syscall.ECONNREFUSED):
		return "refused"
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return "reset"
	case errors.As(err, &closed), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "ended without a close frame"
	case errors.As(err, &timeout) && timeout.Timeout():
		return "timed out"
	}
	return err.Error()
}

// latencies is a histogram whose bounds are a quarter of a power of two apart.
type latencies struct {
	worst  atomic.Int64
	counts [256]atomic.Int64
}

func (l *latencies) add(d time.Duration) {
	for old := l.worst.Load(); int64(d) > old && !l.worst.CompareAndSwap(old, int64(d)); {
		old = l.worst.Load()
	}
	n := uint64(max(d, 4))
	e := bits.Len64(n) - 1
	l.counts[4*e+int(n>>(e-2)&3)].Add(1)
}

// quantile returns the upper bound of the bucket that the q-th part of all is in.
func (l *latencies) quantile(q float64) time.Duration {
	total := int64(0)
	for i := range l.counts {
		total += l.counts[i].Load()
	}
	left := int64(q * float64(total))
	for i := range l.counts {
		if left -= l.counts[i].Load(); left < 0 {
			return time.Duration(5+i%4) << (i/4 - 2)
		}
	}
	return time.Duration(l.worst.Load())
}
