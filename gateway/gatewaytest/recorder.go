package gatewaytest

import (
	"fmt"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/caddy-websocket/caddy-websocket/gateway"
)

// Recorder is logic that notes what it was called with. Its fields, if set, are
// called after that and decide what to return; they are not to be changed while
// the recorder is in use.
type Recorder struct {
	Connect func(c *gateway.Client, r *http.Request) error
	Message func(c *gateway.Client, m gateway.Message) error
	Closed  func(c *gateway.Client, reason gateway.CloseReason)

	mu      sync.Mutex
	events  []string          // guarded by mu
	clients []*gateway.Client // guarded by mu; in the order of OnConnect
	changed chan struct{}     // guarded by mu; made by who waits
}

// OnConnect notes "connect".
func (r *Recorder) OnConnect(c *gateway.Client, req *http.Request) error {
	r.note("connect", c)
	if r.Connect == nil {
		return nil
	}
	return r.Connect(c, req)
}

// OnMessage notes "message" and the text.
func (r *Recorder) OnMessage(c *gateway.Client, m gateway.Message) error {
	r.note("message "+m.String(), nil)
	if r.Message == nil {
		return nil
	}
	return r.Message(c, m)
}

// OnClose notes "close" and the code and reason.
func (r *Recorder) OnClose(c *gateway.Client, reason gateway.CloseReason) {
	r.note("close "+reason.String(), nil)
	if r.Closed != nil {
		r.Closed(c, reason)
	}
}

func (r *Recorder) note(event string, connected *gateway.Client) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, event)
	if connected != nil {
		r.clients = append(r.clients, connected)
	}
	if r.changed != nil {
		close(r.changed)
		r.changed = nil
	}
}

// Events returns what has been noted.
func (r *Recorder) Events() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.events)
}

// Client returns the client of the nth OnConnect, from 0, and waits for it.
func (r *Recorder) Client(t testing.TB, n int) *gateway.Client {
	t.Helper()
	r.await(t, fmt.Sprintf("client %d", n), func() bool { return len(r.clients) > n })
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.clients[n]
}

// Want fails the test unless exactly these events, in this order, are what is
// noted, now or soon.
func (r *Recorder) Want(t testing.TB, events ...string) {
	t.Helper()
	r.await(t, fmt.Sprintf("events %q", events), func() bool { return len(r.events) >= len(events) })
	if got := r.Events(); !slices.Equal(got, events) {
		t.Fatalf("events %q, want %q", got, events)
	}
}

func (r *Recorder) await(t testing.TB, what string, there func() bool) {
	t.Helper()
	timeout := time.NewTimer(Wait)
	defer timeout.Stop()
	for {
		r.mu.Lock()
		if there() {
			r.mu.Unlock()
			return
		}
		if r.changed == nil {
			r.changed = make(chan struct{})
		}
		changed := r.changed
		r.mu.Unlock()
		select {
		case <-changed:
		case <-timeout.C:
			t.Fatalf("waited %s for %s, have %q", Wait, what, r.Events())
		}
	}
}
