package natsbroker

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/caddy-websocket/caddy-websocket/gateway"
	"github.com/caddy-websocket/caddy-websocket/gateway/natsbroker"
)

// wait is how long a test waits for what must come.
const wait = 30 * time.Second

// ear is a Receiver that keeps the latest of what it is told.
type ear struct {
	t testing.TB
	gateway.Link

	mu     sync.Mutex
	last   string // guarded by mu
	isDown bool   // guarded by mu
	downs  int    // guarded by mu
	ups    int    // guarded by mu
	why    error  // guarded by mu; of the last Down
}

// attach makes a node of the gateway that all tests have, which hears "all".
func attach(t testing.TB, broker *natsbroker.Broker) *ear {
	t.Helper()
	return attachTo(t, broker, "default")
}

// attachTo makes a node of another gateway.
func attachTo(t testing.TB, broker *natsbroker.Broker, gatewayName string) *ear {
	t.Helper()
	e := &ear{t: t}
	link, err := broker.Attach(gatewayName, "node", e)
	if err != nil {
		t.Fatal(err)
	}
	e.Link = link
	e.Subscribe("all")
	t.Cleanup(link.Close)
	return e
}

func (e *ear) Receive(data []byte) { e.note(func() { e.last = string(data) }) }
func (e *ear) Up()                 { e.note(func() { e.isDown = false; e.ups++ }) }
func (e *ear) Down(why error)      { e.note(func() { e.isDown = true; e.downs++; e.why = why }) }
func (e *ear) Missed(n int)        { e.t.Errorf("%d messages are missed", n) }

func (e *ear) note(f func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	f()
}

// await waits until there returns true, which is called with mu held.
func (e *ear) await(what string, there func() bool) {
	e.t.Helper()
	awaitThat(e.t, what, func() bool {
		e.mu.Lock()
		defer e.mu.Unlock()
		return there()
	})
}

func (e *ear) awaitDown() { e.t.Helper(); e.await("Down", func() bool { return e.isDown }) }
func (e *ear) awaitUp()   { e.t.Helper(); e.await("Up", func() bool { return !e.isDown }) }

// hears waits until what other publishes arrives.
func (e *ear) hears(other *ear, text string) {
	e.t.Helper()
	e.await(text, func() bool {
		// What other asks for is dropped while it is down, and while we are.
		_ = other.Publish("all", []byte(text))
		return e.last == text
	})
}

func awaitThat(t testing.TB, what string, there func() bool) {
	t.Helper()
	for end := time.Now().Add(wait); !there(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited %s for %s", wait, what)
		}
	}
}

// connect waits until a broker is connected.
func connect(t testing.TB, broker *natsbroker.Broker) error {
	t.Helper()
	return connectGateways(t, broker)
}

// connectGateways waits until these can use it, too.
func connectGateways(t testing.TB, broker *natsbroker.Broker, gateways ...string) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), wait)
	defer cancel()
	began := time.Now()
	err := broker.Connect(ctx, gateways...)
	if took := time.Since(began); took >= wait {
		t.Errorf("Connect took %s: %v", took, err)
	}
	return err
}

// serves tests that two brokers with these options reach each other.
func serves(t testing.TB, o natsbroker.Options) {
	t.Helper()
	a, b := open(t, o), open(t, o)
	for _, broker := range []*natsbroker.Broker{a, b} {
		if err := connect(t, broker); err != nil {
			t.Fatal(err)
		}
	}
	attach(t, a).hears(attach(t, b), "hello")
}
