package gateway_test

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/caddy-websocket/caddy-websocket/gateway"
	"github.com/caddy-websocket/caddy-websocket/gateway/brokertest"
)

// What is tested on the memory broker is to be true on the others.
func TestMemoryBrokerPassesTheSuite(t *testing.T) {
	brokertest.Run(t, func(t *testing.T) brokertest.Fleet {
		broker := gateway.NewMemoryBroker()
		t.Cleanup(broker.Close)
		return func(testing.TB) brokertest.Peer { return memoryPeer(broker) }
	})
}

// memoryPeer is one process's part of a memory broker.
func memoryPeer(broker *gateway.MemoryBroker) brokertest.Peer {
	part := &memoryPart{MemoryBroker: broker}
	return brokertest.Peer{
		Broker: part,
		Close:  broker.Close,
		Buffer: gateway.MemoryBrokerBuffer,
		Cut:    func() { part.cut(true) },
		Heal:   func() { part.cut(false) },
	}
}

// memoryPart knows the nodes of one process.
type memoryPart struct {
	*gateway.MemoryBroker

	mu    sync.Mutex
	isCut bool     // guarded by mu
	nodes []string // guarded by mu
}

func (p *memoryPart) Attach(gatewayName, node string, to gateway.Receiver) (gateway.Link, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.nodes = append(p.nodes, node)
	if p.isCut {
		p.Cut(node)
	}
	return p.MemoryBroker.Attach(gatewayName, node, to)
}

func (p *memoryPart) cut(cut bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.isCut = cut
	if cut {
		p.Cut(p.nodes...)
	} else {
		p.Heal(p.nodes...)
	}
}

// diary is a Receiver that writes down what it is told. In a bubble nothing else runs
// when it is read.
type diary struct {
	mu      sync.Mutex
	entries []string // guarded by mu
}

func (d *diary) note(entry string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.entries = append(d.entries, entry)
}

func (d *diary) Receive(data []byte) { d.note(string(data)) }
func (d *diary) Up()                 { d.note("up") }
func (d *diary) Down(error)          { d.note("down") }
func (d *diary) Missed(n int)        { d.note(fmt.Sprint("missed ", n)) }

func (d *diary) want(t *testing.T, entries ...string) {
	t.Helper()
	synctest.Wait()
	d.mu.Lock()
	defer d.mu.Unlock()
	if !slices.Equal(d.entries, entries) {
		t.Errorf("was told %q, want %q", d.entries, entries)
	}
}

// Tests of what takes hours are run in a bubble of fake time, brokers included.
func TestMemoryBrokerWorksInABubble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broker := gateway.NewMemoryBroker()
		defer broker.Close()
		var one, two, late diary
		attach := func(node string, d *diary) gateway.Link {
			link, err := broker.Attach("default", node, d)
			if err != nil {
				t.Fatal(err)
			}
			link.Subscribe("all")
			return link
		}
		a, b := attach("one", &one), attach("two", &two)
		defer b.Close()

		if err := a.Publish("all", []byte("hello")); err != nil {
			t.Fatal(err)
		}
		two.want(t, "hello")

		broker.Cut()
		attach("late", &late)
		late.want(t, "down")
		if err := a.Publish("all", []byte("lost")); !errors.Is(err, gateway.ErrLinkDown) {
			t.Errorf("Publish while all are cut: %v, want ErrLinkDown", err)
		}
		broker.Heal()
		broker.Cut("two", "three")
		if err := a.Publish("all", []byte("again")); err != nil {
			t.Fatal(err)
		}
		late.want(t, "down", "up", "again")
		broker.Heal("two")
		two.want(t, "hello", "down", "up", "down", "up")

		a.Close()
		broker.Close()
		one.want(t, "down", "up")
		two.want(t, "hello", "down", "up", "down", "up", "down")
	})
}

// hurdle is a Receiver that is held up.
type hurdle struct {
	diary

	gate chan struct{}
}

func (h *hurdle) Receive(data []byte) {
	<-h.gate
	h.note(string(data[:1]))
}

// The bound is what the documentation says, and the loss is told at its place.
func TestMemoryBrokerDropsBeyondItsBuffer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broker := gateway.NewMemoryBroker()
		defer broker.Close()
		slow := hurdle{gate: make(chan struct{})}
		from, err := broker.Attach("default", "one", new(diary))
		if err != nil {
			t.Fatal(err)
		}
		to, err := broker.Attach("default", "two", &slow)
		if err != nil {
			t.Fatal(err)
		}
		to.Subscribe("all")
		const fit = gateway.MemoryBrokerBuffer/gateway.MemoryBrokerMaxSize - 1 // what each counts beside
		data := make([]byte, gateway.MemoryBrokerMaxSize)
		data[0] = 'x'
		var want []string
		for range fit {
			want = append(want, "x")
		}
		for range fit + 3 {
			if err := from.Publish("all", data); err != nil {
				t.Fatal(err)
			}
		}
		close(slow.gate)
		slow.want(t, append(want, "missed 3")...)
		if err := from.Publish("all", []byte("y")); err != nil {
			t.Fatal(err)
		}
		slow.want(t, append(want, "missed 3", "y")...)
	})
}
