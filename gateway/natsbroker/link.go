package natsbroker

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/caddy-websocket/caddy-websocket/gateway"
	"github.com/caddy-websocket/caddy-websocket/gateway/internal/inbox"
)

// closePatience is how long Close waits for what is to be published.
const closePatience = time.Second

// link is a node's. What it is asked for goes through one queue to one goroutine, the
// only one that waits for nats.go, which waits for the network; what it hears goes
// through one channel and an inbox to its Receiver.
type link struct {
	broker   *Broker
	gateway  string
	prefix   string // of its subjects, with the last dot
	in       *inbox.Inbox
	once     sync.Once
	stop     chan struct{}  // closed when nothing is to be received any more
	incoming chan *nats.Msg // all subscriptions deliver here
	overtook atomic.Bool    // nats.go has dropped something, of late

	mu          sync.Mutex
	wake        sync.Cond                // with mu; out has something, or stopped
	state       state                    // guarded by mu
	session     *session                 // guarded by mu; nil while down
	pumped      chan struct{}            // guarded by mu; closed when all that the session delivered is in the inbox
	subjects    map[string]*subscription // guarded by mu
	refused     error                    // guarded by mu; why the session is of no use to the link
	wantedSoFar uint64                   // guarded by mu; how often Subscribe was called
	out         batch                    // guarded by mu; what the writer has to do
	size        int64                    // guarded by mu; of all that waits, what the writer holds included
	asked       []confirmation           // guarded by mu; written, to be confirmed by the server
	inFlight    []confirmation           // guarded by mu; the server has been asked
	asking      bool                     // guarded by mu; there is a goroutine for that
	closing     bool                     // guarded by mu
	stopped     bool                     // guarded by mu
	leaving     []*nats.Subscription     // guarded by mu; to be ended when stopped
}

type state uint8

const (
	down     state = iota
	comingUp       // connected, the subscriptions are not confirmed yet
	up
)

func newLink(b *Broker, gatewayName string, to gateway.Receiver) *link {
	l := &link{
		broker:   b,
		gateway:  gatewayName,
		prefix:   b.options.Prefix + "." + encodeName(gatewayName) + ".",
		in:       inbox.New(b.options.ReceiveBuffer, to),
		stop:     make(chan struct{}),
		incoming: make(chan *nats.Msg, incomingMessages),
		subjects: make(map[string]*subscription),
	}
	l.wake.L = &l.mu
	b.tasks.Go(l.write)
	return l
}

// attach begins the link's life: up with a session, down without.
func (l *link) attach(s *session, why error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if s == nil {
		l.in.Down(why)
		return
	}
	l.use(s)
	l.state = up
	l.queue(task{kind: knock})
}

// begin gives the link a new session. It is up when the server has confirmed the
// subscriptions.
func (l *link) begin(s *session) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stopped {
		return
	}
	l.use(s)
	l.state = comingUp
	// In the order in which they were asked for.
	for _, subject := range slices.SortedFunc(maps.Keys(l.subjects), func(a, b string) int {
		return cmp.Compare(l.subjects[a].since, l.subjects[b].since)
	}) {
		l.look(subject, l.subjects[subject])
	}
	l.queue(task{kind: knock})
	l.queue(task{kind: confirm, confirmation: confirmation{bringsUp: true}})
}

// use is called with mu held.
func (l *link) use(s *session) {
	l.session = s
	pumped := make(chan struct{})
	l.pumped = pumped
	l.broker.tasks.Go(func() { l.pump(s, pumped) })
}

// stillDown tells why there is no session now.
func (l *link) stillDown(why error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.session == nil && !l.stopped {
		l.in.Down(why)
	}
}

// lose takes the session away, and what waits for it.
func (l *link) lose(s *session, why error) {
	l.mu.Lock()
	pumped := l.pumped
	if l.session != s {
		l.mu.Unlock()
		return
	}
	l.mu.Unlock()
	// What came before is told before.
	<-pumped
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.session != s {
		return
	}
	wasUp := l.state == up
	l.drop()
	if wasUp {
		l.in.Down(why)
	}
}

// drop forgets the session, and fails what waits for it. mu is held.
func (l *link) drop() {
	l.state, l.session, l.refused = down, nil, nil
	for subject, sub := range l.subjects {
		sub.queued, sub.active, sub.dropped = false, nil, 0
		if !sub.wanted {
			delete(l.subjects, subject)
		}
	}
	waiting := append(l.inFlight, l.asked...)
	for _, t := range l.out.tasks {
		if t.kind == confirm {
			waiting = append(waiting, t.confirmation)
		}
	}
	l.size -= l.out.size
	l.out.reset()
	l.inFlight, l.asked = nil, nil
	for _, c := range waiting {
		l.settle(c, gateway.ErrLinkDown)
	}
}

// Publish is of gateway.Link.
func (l *link) Publish(subject string, data []byte) error {
	if most := l.MaxSize(); len(data) > most {
		return fmt.Errorf("publishing %d bytes: the NATS server takes %d (max_payload)", len(data), most)
	}
	size := int64(len(data)) + inbox.Overhead
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.state != up || l.closing {
		return gateway.ErrLinkDown
	}
	// A message that finds nothing before it is taken, however large it is.
	if l.size > 0 && l.size+size > l.broker.options.SendBuffer {
		return gateway.ErrLinkFull
	}
	l.size += size
	l.out.size += size
	from := len(l.out.data)
	l.out.data = append(l.out.data, data...)
	l.queue(task{kind: publish, subject: subject, from: from, to: len(l.out.data)})
	return nil
}

// Subscribe is of gateway.Link.
func (l *link) Subscribe(subject string) { l.want(subject, true) }

// Unsubscribe is of gateway.Link.
func (l *link) Unsubscribe(subject string) { l.want(subject, false) }

func (l *link) want(subject string, wanted bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closing {
		return
	}
	sub := l.subjects[subject]
	if sub == nil {
		sub = new(subscription)
	}
	if sub.wanted == wanted {
		return
	}
	if sub.wanted = wanted; wanted {
		l.wantedSoFar++
		sub.since = l.wantedSoFar
	}
	l.subjects[subject] = sub
	switch {
	case l.session != nil:
		l.look(subject, sub)
	case !wanted:
		delete(l.subjects, subject)
	}
}

// look has the writer look at a subject, if it is not about to anyway: what waits is
// bounded by the number of subjects. mu is held.
func (l *link) look(subject string, sub *subscription) {
	if !sub.queued {
		sub.queued = true
		l.queue(task{kind: look, subject: subject})
	}
}

// Flush is of gateway.Link.
func (l *link) Flush(done func(error)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.state != up || l.closing {
		l.in.Done(done, gateway.ErrLinkDown)
		return
	}
	l.queue(task{kind: confirm, confirmation: confirmation{done: done}})
}

// MaxSize is of gateway.Link.
func (l *link) MaxSize() int { return int(l.broker.maxSize.Load()) }

// Close is of gateway.Link.
func (l *link) Close() { l.end(nil) }

// end closes the link. If its broker is closed, why is told, too.
func (l *link) end(why error) {
	l.once.Do(func() {
		l.mu.Lock()
		l.closing = true
		var sent chan struct{}
		if l.state == up {
			sent = make(chan struct{})
			l.queue(task{kind: confirm, confirmation: confirmation{sent: sent}})
		}
		l.mu.Unlock()
		if sent != nil {
			timer := time.NewTimer(closePatience)
			defer timer.Stop()
			select {
			case <-sent:
			case <-timer.C:
			}
		}
		l.mu.Lock()
		wasUp := l.state == up
		l.stopped = true
		close(l.stop)
		for _, sub := range l.subjects {
			if sub.active != nil {
				l.leaving = append(l.leaving, sub.active)
			}
		}
		l.drop()
		if why != nil && wasUp {
			l.in.Down(why)
		}
		l.wake.Signal()
		l.mu.Unlock()
		l.in.Close()
		l.broker.forget(l)
	})
}
