package natsbroker

import (
	"errors"

	"github.com/nats-io/nats.go"

	"github.com/caddy-websocket/caddy-websocket/gateway"
)

// confirmation waits until the server has done what it was sent before.
type confirmation struct {
	bringsUp bool
	done     func(error)   // or nil
	sent     chan struct{} // or nil
}

// settle tells how a confirmation has ended. mu is held.
func (l *link) settle(c confirmation, err error) {
	if err == nil && l.refused != nil {
		err = gateway.ErrLinkDown
	}
	if c.bringsUp && err == nil {
		l.state = up
		l.in.Up()
	}
	if c.done != nil {
		l.in.Done(c.done, err)
	}
	if c.sent != nil {
		close(c.sent)
	}
}

// ask has the server confirm what was written before. Those who ask while it is being
// asked share the next question.
func (l *link) ask(s *session, c confirmation) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.session != s {
		l.settle(c, gateway.ErrLinkDown)
		return
	}
	l.asked = append(l.asked, c)
	if !l.asking {
		l.asking = true
		l.broker.tasks.Go(l.confirm)
	}
}

// confirm asks the server until nobody wants to know any more.
func (l *link) confirm() {
	// The pings that nats.go sends by itself notice earlier that a server is frozen.
	patience := 4 * l.broker.options.PingInterval
	for {
		l.mu.Lock()
		s := l.session
		if len(l.asked) == 0 || s == nil {
			l.asking = false
			l.mu.Unlock()
			return
		}
		l.inFlight = append(l.inFlight, l.asked...)
		l.asked = nil
		l.mu.Unlock()
		err := s.nc.FlushTimeout(patience)
		if errors.Is(err, nats.ErrTimeout) {
			s.abort()
		}
		if err == nil {
			s.caughtUp()
		}
		l.mu.Lock()
		if l.session == s {
			if err != nil {
				// The session is about to end: who waits is told then.
				l.asking = false
				l.mu.Unlock()
				return
			}
			for _, c := range l.inFlight {
				l.settle(c, nil)
			}
			l.inFlight = nil
		}
		l.mu.Unlock()
	}
}
