package brokertest

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-websocket/caddy-websocket/gateway"
)

const (
	// wait is how long a test waits for what must come.
	wait = 30 * time.Second

	// pause is how long it waits before it looks or asks again.
	pause = 5 * time.Millisecond

	// probe begins messages that only find out whether somebody hears.
	probe = "probe "

	// someGateway is a gateway's name.
	someGateway = "default"
)

var nodes atomic.Int64

// node is a gateway's node as the broker sees it: a Receiver that notes what it is told.
type node struct {
	t    testing.TB
	link gateway.Link
	busy atomic.Bool
	// closed is set when Close has returned: from then on nothing may be told.
	closed atomic.Bool

	mu      sync.Mutex
	heard   []string        // guarded by mu; without probes
	counts  map[string]int  // guarded by mu; of heard, by the first word
	probes  map[string]bool // guarded by mu
	events  []string        // guarded by mu; up and down
	missed  int             // guarded by mu
	down    bool            // guarded by mu
	gate    chan struct{}   // guarded by mu; if not nil, Receive waits for it
	changed chan struct{}   // guarded by mu; made by who waits
}

// attach makes a node that is up.
func attach(t testing.TB, p Peer, gatewayName string) *node {
	t.Helper()
	n := attachDown(t, p, gatewayName)
	n.await("the link to come up", func() bool { return !n.down })
	for {
		if err := n.flush(); err == nil {
			return n
		}
		n.await("the link to come up", func() bool { return !n.down })
	}
}

// attachDown makes a node that need not be up.
func attachDown(t testing.TB, p Peer, gatewayName string) *node {
	t.Helper()
	n := &node{t: t, probes: make(map[string]bool), counts: make(map[string]int)}
	link, err := p.Attach(gatewayName, fmt.Sprint("n", nodes.Add(1)), n)
	if err != nil {
		t.Fatal(err)
	}
	n.link = link
	t.Cleanup(n.close)
	return n
}

// close closes the link, after which nothing may be told.
func (n *node) close() {
	n.link.Close()
	n.closed.Store(true)
}

// called is the beginning of every method that a broker calls.
func (n *node) called(what string) (leave func()) {
	if n.busy.Swap(true) {
		n.t.Errorf("%s: the Receiver is called while it is being called", what)
	}
	if n.closed.Load() {
		n.t.Errorf("%s: the Receiver is called after Close", what)
	}
	n.mu.Lock()
	return func() {
		if n.changed != nil {
			close(n.changed)
			n.changed = nil
		}
		n.mu.Unlock()
		n.busy.Store(false)
	}
}

// Receive is of gateway.Receiver.
func (n *node) Receive(data []byte) {
	text := string(data)
	leave := n.called("Receive")
	if gate := n.gate; gate != nil {
		n.mu.Unlock()
		<-gate
		n.mu.Lock()
	}
	if strings.HasPrefix(text, probe) {
		n.probes[text] = true
	} else {
		from, _, _ := strings.Cut(text, " ")
		n.counts[from]++
		n.heard = append(n.heard, text)
	}
	leave()
}

// Up is of gateway.Receiver.
func (n *node) Up() {
	leave := n.called("Up")
	if !n.down {
		n.t.Error("Up is called when the link is up")
	}
	n.down = false
	n.events = append(n.events, "up")
	leave()
}

// Down is of gateway.Receiver.
func (n *node) Down(why error) {
	leave := n.called("Down")
	if why == nil {
		n.t.Error("Down is called without a reason")
	}
	if !n.down { // else it is another reason
		n.events = append(n.events, "down")
	}
	n.down = true
	leave()
}

// Missed is of gateway.Receiver.
func (n *node) Missed(missed int) {
	leave := n.called("Missed")
	if missed <= 0 {
		n.t.Errorf("Missed is called with %d", missed)
	}
	n.missed += missed
	leave()
}

// await waits until there returns true, which is called with mu held.
func (n *node) await(what string, there func() bool) {
	n.t.Helper()
	timeout := time.NewTimer(wait)
	defer timeout.Stop()
	for {
		n.mu.Lock()
		if there() {
			n.mu.Unlock()
			return
		}
		if n.changed == nil {
			n.changed = make(chan struct{})
		}
		changed := n.changed
		n.mu.Unlock()
		select {
		case <-changed:
		case <-timeout.C:
			n.mu.Lock()
			defer n.mu.Unlock()
			n.t.Fatalf("waited %s for %s; heard %d messages, the last are %.300q; missed %d; events %q",
				wait, what, len(n.heard), n.heard[max(0, len(n.heard)-5):], n.missed, n.events)
		}
	}
}

// flush waits until what was asked for is in effect.
func (n *node) flush() error {
	n.t.Helper()
	done := make(chan error, 2)
	closed := n.closed.Load()
	n.link.Flush(func(err error) {
		if !closed {
			n.called("done")()
		}
		done <- err
	})
	select {
	case err := <-done:
		return err
	case <-time.After(wait):
		n.t.Fatalf("waited %s for Flush", wait)
		return nil
	}
}

// subscribe begins to hear subjects, and waits until what the others publish arrives.
func (n *node) subscribe(others []*node, subjects ...string) {
	n.t.Helper()
	for _, subject := range subjects {
		n.link.Subscribe(subject)
	}
	n.reached(others, subjects...)
}

// reached waits until what others publish on the subjects arrives here. Nodes know of
// each other's subscriptions some time after those are in force where they were made.
func (n *node) reached(others []*node, subjects ...string) {
	n.t.Helper()
	missing := make(map[string]func() error)
	for i, other := range others {
		for _, subject := range subjects {
			text := fmt.Sprint(probe, nodes.Add(1), " ", i, " ", subject)
			missing[text] = func() error { return other.link.Publish(subject, []byte(text)) }
		}
	}
	for end := time.Now().Add(wait); len(missing) > 0; {
		for _, publish := range missing {
			if err := publish(); err != nil && !errors.Is(err, gateway.ErrLinkFull) {
				n.t.Fatalf("publishing: %v", err)
			}
		}
		// One look at what has come, and then at what is still to come.
		for look := 0; look < 10 && len(missing) > 0; look++ {
			time.Sleep(pause)
			n.mu.Lock()
			for text := range missing {
				if n.probes[text] {
					delete(missing, text)
				}
			}
			n.mu.Unlock()
		}
		if time.Now().After(end) {
			n.t.Fatalf("waited %s for what was published: %d of %d subjects of others are not heard", wait, len(missing), len(others)*len(subjects))
		}
	}
}

// publish publishes, and waits while too much waits.
func (n *node) publish(subject, text string) {
	n.t.Helper()
	for end := time.Now().Add(wait); ; time.Sleep(pause) {
		err := n.link.Publish(subject, []byte(text))
		if err == nil {
			return
		}
		if !errors.Is(err, gateway.ErrLinkFull) || time.Now().After(end) {
			n.t.Fatalf("publishing on %s: %v", subject, err)
		}
	}
}

// want waits for exactly these messages, in this order, beside probes.
func (n *node) want(texts ...string) {
	n.t.Helper()
	n.await(fmt.Sprintf("%d messages", len(texts)), func() bool { return len(n.heard) >= len(texts) })
	if got := n.texts(); !slices.Equal(got, texts) {
		n.t.Fatalf("heard %d messages, want %d\nheard %.1000q\nwant  %.1000q", len(got), len(texts), got, texts)
	}
}

func (n *node) texts() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.heard)
}

// forget empties what was heard.
func (n *node) forget() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.heard = nil
	clear(n.counts)
}

// hold makes Receive wait until release is called.
func (n *node) hold() (release func()) {
	gate := make(chan struct{})
	n.mu.Lock()
	defer n.mu.Unlock()
	n.gate = gate
	return sync.OnceFunc(func() {
		n.mu.Lock()
		n.gate = nil
		n.mu.Unlock()
		close(gate)
	})
}
