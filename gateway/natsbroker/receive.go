package natsbroker

import "github.com/nats-io/nats.go"

// incomingMessages is how many messages may be between nats.go's reading and the pump:
// more than it reads before the pump, which has nothing else to wait for, has its turn.
const incomingMessages = 32 << 10

// pump moves what a session delivers to the inbox, until the session has ended and all
// of it is there. nats.go counts messages; the inbox counts bytes.
func (l *link) pump(s *session, pumped chan struct{}) {
	defer close(pumped)
	for {
		select {
		case m := <-l.incoming:
			l.in.Put(m.Data)
			l.countMissed()
		case <-s.ended:
			for {
				select {
				case m := <-l.incoming:
					l.in.Put(m.Data)
				default:
					return
				}
			}
		case <-l.stop:
			return
		}
	}
}

// overtaken hears that nats.go has dropped something.
func (l *link) overtaken() {
	l.overtook.Store(true)
	l.countMissed()
}

// countMissed tells the Receiver how much nats.go has dropped. It says so once for
// many: the end of a burst is counted when the channel is empty again.
func (l *link) countMissed() {
	if !l.overtook.Load() {
		return
	}
	l.overtook.Store(len(l.incoming) > 0)
	l.mu.Lock()
	defer l.mu.Unlock()
	missed := 0
	for _, sub := range l.subjects {
		if sub.active == nil {
			continue
		}
		if n, err := sub.active.Dropped(); err == nil && n > sub.dropped {
			missed += n - sub.dropped
			sub.dropped = n
		}
	}
	if missed > 0 {
		l.in.Missed(missed)
	}
}

// subscription is what is known of a subject.
type subscription struct {
	wanted  bool
	since   uint64 // which of all calls of Subscribe that was
	queued  bool   // the writer will look at it
	active  *nats.Subscription
	dropped int // of active: what the Receiver has been told
}
