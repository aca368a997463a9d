package gateway

import (
	"sync"
	"sync/atomic"
	"time"
)

// attendEvery is how long a reply waits at most for a callback to return, and how
// soon a goroutine that a socket holds up is noticed.
const attendEvery = time.Millisecond

// attendant looks after what goes on for longer than it should while something
// waits for it: a callback, a write. It has a goroutine only while there is
// something to look after.
type attendant struct {
	running atomic.Bool

	mu      sync.Mutex
	clients []*Client // guarded by mu; each once, see Client.listed
}

// attend has the client looked at soon. Its queue may be locked.
func (s *shared) attend(c *Client) {
	if c.listed.Load() || !c.listed.CompareAndSwap(false, true) {
		return
	}
	s.attendant.mu.Lock()
	s.attendant.clients = append(s.attendant.clients, c)
	s.attendant.mu.Unlock()
	s.wakeAttendant()
}

// wakeAttendant is called when there is something to look after.
func (s *shared) wakeAttendant() {
	if !s.attendant.running.Load() && s.attendant.running.CompareAndSwap(false, true) {
		s.helper("attendant", s.attending)
	}
}

// attending is the attendant's goroutine. It ends after some rounds with nothing
// to do.
func (s *shared) attending() {
	const enough = 100
	a := &s.attendant
	ticker := time.NewTicker(attendEvery)
	defer ticker.Stop()
	var clients []*Client
	ended := s.ctx.Done()
	for idle := 0; ; idle++ {
		select {
		case <-ticker.C:
		case <-ended:
			ended = nil // once: somebody may have to be looked after until the end
		}
		a.mu.Lock()
		clients, a.clients = a.clients, clients[:0]
		a.mu.Unlock()
		if s.writers.relieve(s.now()) || len(clients) > 0 {
			idle = 0
		}
		for i, c := range clients {
			clients[i] = nil
			c.listed.Store(false)
			if c.lookAfter(s.now()) {
				s.attend(c)
			}
		}
		if idle < enough && s.ctx.Err() == nil {
			continue
		}
		a.running.Store(false)
		if !s.unattended() || !a.running.CompareAndSwap(false, true) {
			return
		}
	}
}

// unattended tells whether there is something to look after.
func (s *shared) unattended() bool {
	s.attendant.mu.Lock()
	clients := len(s.attendant.clients)
	s.attendant.mu.Unlock()
	return clients > 0 || s.writers.busy()
}

// lookAfter sees to it that what waits for the client is written although its own
// goroutine is slow. It returns whether to look again.
func (c *Client) lookAfter(now int64) bool {
	if turn := c.turn.Load(); turn%2 == 1 {
		c.takeTurn(turn, now)
		return c.turn.Load() == turn
	}
	if c.queue.held.Load() && c.queue.claim() {
		c.writers.add(c)
	}
	return false
}
