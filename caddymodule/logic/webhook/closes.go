package webhook

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/caddy-websocket/caddy-websocket/gateway"
)

const (
	// closeWorkers is how many requests with close events are on their way at most.
	closeWorkers = 4

	// maxPending bounds what waits to be sent, in bytes.
	maxPending = 32 << 20

	// maxBatchBytes bounds a request: nginx takes a megabyte.
	maxBatchBytes = 512 << 10

	// lastChance is how long is tried to send what is left when nobody comes after.
	// It fits into the gateway's drain timeout of 4s.
	lastChance = 3 * time.Second
)

// closeQueue has the close events that are to be sent. At a reload the instances
// before and after share it, so that what the one has not sent the other does.
type closeQueue struct {
	wake     chan struct{} // has an element when a worker should look
	flushing chan struct{} // one for each OnClose that sends by itself

	mu        sync.Mutex
	events    []json.RawMessage // guarded by mu
	size      int               // guarded by mu; of events, in bytes
	since     time.Time         // guarded by mu; when the first of events came
	returned  []*batch          // guarded by mu; given back by workers that had to end
	instances int               // guarded by mu; those that have workers
	lost      int               // guarded by mu; how many could not be sent, ever
}

// batch is what one request carries.
type batch struct {
	id     string
	events []json.RawMessage
}

func newCloseQueue() *closeQueue {
	return &closeQueue{wake: make(chan struct{}, 1), flushing: make(chan struct{}, closeWorkers)}
}

// join notes that an instance has workers.
func (q *closeQueue) join() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.instances++
}

// leave notes that its workers end.
func (q *closeQueue) leave() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.instances--
}

// served tells whether there are workers that go on.
func (q *closeQueue) served() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.instances > 0
}

// add queues an event. It returns whether there is somebody to send it, and whether
// there was room.
func (q *closeQueue) add(event json.RawMessage) (served, added bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.size+len(event) > maxPending {
		return q.instances > 0, false
	}
	if len(q.events) == 0 {
		q.since = time.Now()
	}
	q.events = append(q.events, event)
	q.size += len(event)
	q.wakeOne()
	return q.instances > 0, true
}

func (q *closeQueue) wakeOne() {
	select {
	case q.wake <- struct{}{}:
	default: // somebody is about to look
	}
}

// take returns a batch that is due: full, or its first event has waited for
// interval. If none is, it returns how long to wait, which is 0 if there is
// nothing at all.
func (q *closeQueue) take(size int, interval time.Duration) (b *batch, wait time.Duration) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.returned) > 0 {
		b, q.returned = q.returned[0], q.returned[1:]
		return b, 0
	}
	if len(q.events) == 0 {
		return nil, 0
	}
	if rest := interval - time.Since(q.since); rest > 0 && len(q.events) < size && q.size < maxBatchBytes {
		return nil, rest
	}
	n, bytes := 0, 0
	for n < min(len(q.events), size) && (n == 0 || bytes+len(q.events[n]) <= maxBatchBytes) {
		bytes += len(q.events[n])
		n++
	}
	b = &batch{id: newID(), events: slices.Clone(q.events[:n])}
	q.events = slices.Delete(q.events, 0, n)
	q.size -= bytes
	if len(q.events) > 0 {
		q.wakeOne() // another worker may have them
	}
	return b, 0
}

// giveBack leaves a batch to workers that go on. It is false if there are none.
func (q *closeQueue) giveBack(b *batch) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.instances == 0 {
		return false
	}
	q.returned = append(q.returned, b)
	q.wakeOne()
	return true
}

// lose counts events that could not be sent and returns how many that are by now.
func (q *closeQueue) lose(n int) int {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.lost += n
	return q.lost
}

// queueClose has the backend told that the client is gone. It does not wait for
// that, unless everything ends.
func (w *Webhook) queueClose(c *gateway.Client, reason gateway.CloseReason) {
	event, err := encode(closeEvent(c, reason))
	if err != nil { // cannot happen: a session is valid JSON
		w.log.Error("close event was not sent", append(aboutClient(c), "error", err)...)
		return
	}
	served, added := w.closes.add(event)
	if !added {
		w.lost(1, &failure{err: errors.New("too many wait to be sent")})
		return
	}
	if g := c.Gateway(); !served || g.Draining() {
		w.flush(g)
	}
}

// sendCloses is a worker. ctx ends with the configuration.
func (w *Webhook) sendCloses(ctx context.Context, g *gateway.Gateway) {
	requests, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	waits, stopWaiting := context.WithCancel(requests)
	defer stopWaiting()
	defer context.AfterFunc(ctx, func() {
		w.retired.Do(w.closes.leave)
		if w.closes.served() {
			stopWaiting() // somebody else has the time
		}
		time.AfterFunc(lastChance, cancel)
	})()
	interval := time.Duration(w.CloseBatch.Interval)
	for {
		if ctx.Err() != nil {
			w.retired.Do(w.closes.leave)
			if w.closes.served() {
				return
			}
			interval = 0
		}
		b, wait := w.closes.take(w.CloseBatch.Size, interval)
		if b != nil {
			w.send(g, b, requests, waits)
			continue
		}
		if ctx.Err() != nil {
			return
		}
		var due <-chan time.Time
		if wait > 0 {
			due = time.After(wait)
		}
		select {
		case <-w.closes.wake:
		case <-due:
		case <-ctx.Done():
		}
	}
}

// flush sends what is queued, by the goroutine of a client that is gone: when
// everything ends, a gateway waits longer for callbacks than for tasks. Many
// arrive here together; a few of them send for all.
func (w *Webhook) flush(g *gateway.Gateway) {
	ctx, cancel := context.WithTimeout(context.Background(), lastChance)
	defer cancel()
	select {
	case w.closes.flushing <- struct{}{}:
	case <-ctx.Done():
		return // those that do send have it
	}
	defer func() { <-w.closes.flushing }()
	for {
		b, _ := w.closes.take(w.CloseBatch.Size, 0)
		if b == nil {
			return
		}
		w.send(g, b, ctx, ctx)
	}
}

// send sends a batch, or gives it back, or notes that it is lost.
func (w *Webhook) send(g *gateway.Gateway, events *batch, requests, waits context.Context) {
	b := w.backend.Load()
	if b == nil {
		if !w.closes.giveBack(events) {
			w.lost(len(events.events), &failure{err: errEnded})
		}
		return
	}
	failed := b.deliver(&delivery{
		kind: eventClose, id: events.id, body: joinEvents(events.events), again: true, requests: requests, waits: waits,
		use: func(a *answer) error {
			if err := a.onlyCommands(); err != nil {
				return err
			}
			b.do(g, a.Commands, []any{"event", eventClose})
			return nil
		},
	})
	switch {
	case failed == nil:
	case failed.status >= 200 && failed.status <= 299: // delivered: only the answer is no good
		b.report("answer to close events is no good", failed)
	case waits.Err() != nil && w.closes.giveBack(events):
	default:
		w.lost(len(events.events), failed)
	}
}

// lost says that close events could not be sent.
func (w *Webhook) lost(n int, failed *failure) {
	total := w.closes.lose(n)
	if b := w.backend.Load(); b != nil {
		b.report("close events were not delivered", failed, "events", n, "lost_total", total)
		return
	}
	w.log.Error("close events were not delivered", "error", failed.err.Error(), "events", n, "lost_total", total)
}
