package gateway

import (
	"slices"
	"sync/atomic"
	"time"
	"unicode/utf8"
)

// EventType says what happened to a client.
type EventType string

// What a Watcher is told.
const (
	EventConnect EventType = "connect" // the handshake was answered with 101
	EventMessage EventType = "message" // a message came in
	EventSend    EventType = "send"    // a message was queued for the client, or passed on by its backend
	EventClose   EventType = "close"   // the connection is gone
)

// Event is something that happened to a client.
type Event struct {
	Time     time.Time `json:"time"`
	Type     EventType `json:"type"`
	Client   string    `json:"client"`
	Endpoint string    `json:"endpoint"`
	RealIP   string    `json:"client_ip,omitempty"`
	User     string    `json:"user,omitempty"`

	// Message and Size are the type, "text" or "binary", and the length in bytes of
	// a message. Payload is its beginning, if the watcher asked for it; never for
	// clients of a backend.
	Message string `json:"message,omitempty"`
	Size    int64  `json:"size,omitempty"`
	Payload []byte `json:"payload,omitempty"`

	// Code, Reason and ByPeer are those of a close.
	Code   int    `json:"code,omitempty"`
	Reason string `json:"reason,omitempty"`
	ByPeer bool   `json:"by_peer,omitempty"`
}

// WatchOptions choose what a Watcher is told. The zero value: connects and
// closes of all clients.
type WatchOptions struct {
	// Client and Endpoint narrow to one client, or the clients of one endpoint.
	Client   string
	Endpoint string

	// AllNodes adds clients of all other nodes, those included that join later; Nodes
	// narrows to clients of these. With neither it is clients of this node. What happens
	// elsewhere comes some milliseconds late, and without Payload.
	AllNodes bool
	Nodes    []string

	// Messages adds messages in both directions.
	Messages bool

	// Payload is how many bytes of each message are given. Zero means none.
	Payload int

	// Buffer is how many events may wait to be received; more are missed. Zero
	// means 1024.
	Buffer int
}

const defaultWatchBuffer = 1024

// Watcher is told what happens, as long as it keeps up: nobody waits for it.
// Close ends it.
type Watcher struct {
	o      WatchOptions
	id     uint64 // among those that are for other nodes, too
	shared *shared
	events chan Event
	missed atomic.Int64
}

// Watch begins to watch. What happens from now on is received from Events. With
// nobody watching, a message pays for one comparison.
func (g *Gateway) Watch(o WatchOptions) *Watcher {
	w := g.newWatcher(o)
	if len(o.Nodes) == 0 || slices.Contains(o.Nodes, g.node) {
		g.addWatcher(w)
	}
	if o.elsewhere(g.node) {
		g.cluster.watch(w)
	}
	return w
}

func (s *shared) newWatcher(o WatchOptions) *Watcher {
	if o.Buffer <= 0 {
		o.Buffer = defaultWatchBuffer
	}
	return &Watcher{o: o, shared: s, events: make(chan Event, o.Buffer)}
}

// watchHere is Watch for clients of this node.
func (s *shared) watchHere(o WatchOptions) *Watcher {
	w := s.newWatcher(o)
	s.addWatcher(w)
	return w
}

func (s *shared) addWatcher(w *Watcher) {
	s.changeWatchers(func(all []*Watcher) []*Watcher { return append(all, w) })
}

// Events returns what happens. It is never closed: stop receiving when Close is
// called.
func (w *Watcher) Events() <-chan Event { return w.events }

// Missed returns how many events found the buffer full, and sets that to 0.
func (w *Watcher) Missed() int64 { return w.missed.Swap(0) }

// Close ends the watching. Further calls do nothing.
func (w *Watcher) Close() {
	w.shared.cluster.endWatch(w)
	w.shared.changeWatchers(func(all []*Watcher) []*Watcher {
		return slices.DeleteFunc(all, func(other *Watcher) bool { return other == w })
	})
}

// changeWatchers replaces the list of watchers, which is nil while there are
// none and never written to.
func (s *shared) changeWatchers(change func([]*Watcher) []*Watcher) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []*Watcher
	if old := s.watchers.Load(); old != nil {
		all = slices.Clone(*old)
	}
	if all = change(all); len(all) == 0 {
		s.watchers.Store(nil)
		return
	}
	s.watchers.Store(&all)
}

// watched tells the watchers about a client, if there are any. fill completes
// the event for one of them.
func (c *Client) watched(kind EventType, fill func(*Event, *Watcher)) {
	watchers := c.watchers.Load()
	if watchers == nil {
		return
	}
	for _, w := range *watchers {
		if !w.wants(c, kind) {
			continue
		}
		e := Event{
			Time: time.Now(), Type: kind,
			Client: c.id, Endpoint: c.slot.name, RealIP: c.ip, User: c.User(),
		}
		if fill != nil {
			fill(&e, w)
		}
		w.tell(e)
	}
}

// tell gives the watcher an event, if it keeps up.
func (w *Watcher) tell(e Event) {
	select {
	case w.events <- e:
	default:
		w.missed.Add(1)
	}
}

func (w *Watcher) wants(c *Client, kind EventType) bool {
	switch {
	case w.o.Client != "" && w.o.Client != c.id, w.o.Endpoint != "" && w.o.Endpoint != c.slot.name:
		return false
	case kind == EventMessage || kind == EventSend:
		return w.o.Messages
	}
	return true
}

// watchedMessage tells the watchers about a message.
func (c *Client) watchedMessage(kind EventType, m Message) {
	if c.watchers.Load() == nil {
		return
	}
	c.watched(kind, func(e *Event, w *Watcher) {
		e.Message, e.Size = m.Type.String(), int64(len(m.Data))
		e.Payload = beginning(m, w.o.Payload)
	})
}

// watchedFrames tells the watchers about a message that was seen to pass.
func (c *Client) watchedFrames(kind EventType, t MessageType, size int64) {
	if c.watchers.Load() == nil {
		return
	}
	c.watched(kind, func(e *Event, _ *Watcher) { e.Message, e.Size = t.String(), size })
}

func (c *Client) watchedClose(reason CloseReason) {
	c.watched(EventClose, func(e *Event, _ *Watcher) {
		e.Code, e.Reason, e.ByPeer = reason.Code, reason.Reason, reason.ByPeer
	})
}

// beginning returns a copy of the first bytes of a message; of text, whole
// characters.
func beginning(m Message, most int) []byte {
	if most <= 0 {
		return nil
	}
	cut := m.Data[:min(most, len(m.Data))]
	for m.Type == TextMessage && len(cut) < len(m.Data) && len(cut) > 0 && !utf8.RuneStart(m.Data[len(cut)]) {
		cut = cut[:len(cut)-1]
	}
	return slices.Clone(cut)
}
