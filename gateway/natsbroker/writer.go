package natsbroker

import (
	"errors"
	"log/slog"
	"slices"

	"github.com/nats-io/nats.go"
)

// batch is what a writer does in one go.
type batch struct {
	tasks []task
	data  []byte // of all messages
	size  int64  // of all messages, the overhead included
}

// task is one thing to do, in its order.
type task struct {
	kind         taskKind
	subject      string
	from, to     int // of batch.data
	confirmation confirmation
}

type taskKind uint8

const (
	publish taskKind = iota
	look             // at what is wanted of a subject
	confirm
	knock
)

func (b *batch) reset() {
	const keepTasks, keepData = 1 << 10, 1 << 20
	clear(b.tasks)
	b.tasks, b.data, b.size = b.tasks[:0], b.data[:0], 0
	if cap(b.tasks) > keepTasks {
		b.tasks = nil
	}
	if cap(b.data) > keepData {
		b.data = nil
	}
}

// queue is called with mu held.
func (l *link) queue(t task) {
	l.out.tasks = append(l.out.tasks, t)
	if len(l.out.tasks) == 1 {
		l.wake.Signal()
	}
}

// write does what is queued. nats.go gathers what it is given, and has a goroutine that
// writes it when there is no more.
func (l *link) write() {
	var now batch
	for {
		l.mu.Lock()
		l.size -= now.size
		now.reset()
		for len(l.out.tasks) == 0 && !l.stopped {
			l.wake.Wait()
		}
		if l.stopped {
			leaving := l.leaving
			l.mu.Unlock()
			for _, active := range leaving {
				_ = active.Unsubscribe() // fails if the session has ended
			}
			return
		}
		now, l.out = l.out, now
		s := l.session
		l.mu.Unlock()
		for _, t := range now.tasks {
			switch t.kind {
			case publish:
				l.publish(s, t.subject, now.data[t.from:t.to])
			case look:
				l.match(s, t.subject)
			case confirm:
				l.ask(s, t.confirmation)
			case knock:
				l.knock(s)
			}
		}
	}
}

func (l *link) publish(s *session, subject string, data []byte) {
	switch err := s.nc.Publish(l.prefix+subject, data); {
	case err == nil:
		for _, other := range l.broker.neighbours(l) {
			other.overhear(subject, data)
		}
	case errors.Is(err, nats.ErrMaxPayload), errors.Is(err, nats.ErrBadSubject):
		l.broker.log.line(slog.LevelError, "a message could not be published to NATS", slog.Any("error", err))
	default:
		// The write failed: what is on the wire ends anywhere.
		s.abort()
	}
}

// overhear receives what a link on the same connection has published.
func (l *link) overhear(subject string, data []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if sub := l.subjects[subject]; sub != nil && sub.wanted && sub.active != nil {
		l.in.Put(slices.Clone(data))
	}
}

// match subscribes or unsubscribes, as is wanted now.
func (l *link) match(s *session, subject string) {
	l.mu.Lock()
	sub := l.subjects[subject]
	if l.session != s || sub == nil {
		l.mu.Unlock()
		return
	}
	sub.queued = false
	wanted, active := sub.wanted, sub.active
	if !wanted {
		delete(l.subjects, subject)
	}
	l.mu.Unlock()
	switch {
	case wanted && active == nil:
		active, err := s.nc.ChanSubscribe(l.prefix+subject, l.incoming)
		if err != nil {
			return // the session has ended
		}
		l.mu.Lock()
		current := l.session == s
		if current {
			sub.active = active
		}
		l.mu.Unlock()
		if !current {
			_ = active.Unsubscribe() // the link was closed meanwhile, or the session has ended
		}
	case !wanted && active != nil:
		_ = active.Unsubscribe() // fails if the session has ended
	}
}
