package gateway

import (
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/caddy-websocket/caddy-websocket/gateway/internal/inbox"
)

const (
	// MemoryBrokerBuffer is how many bytes may wait for each node of a MemoryBroker that
	// is held up; beyond it messages are dropped, and the node is told how many. A
	// message counts for 64 more than it has.
	MemoryBrokerBuffer = 16 << 20

	// MemoryBrokerMaxSize is how large a message of a MemoryBroker may be, in bytes:
	// what a NATS server takes, unless it is told otherwise.
	MemoryBrokerMaxSize = 1 << 20
)

// MemoryBroker is a Broker for nodes in one process: for tests, and for gateways of one
// program that are to be one. What is published on it is with the other nodes' queues
// when Publish returns; it never is ErrLinkFull. A node does not hear itself.
//
// Tests can cut nodes off and heal them. In a testing/synctest bubble it takes no time.
type MemoryBroker struct {
	mu     sync.Mutex
	links  map[string]map[*memoryLink]struct{} // guarded by mu; by gateway
	cut    map[string]struct{}                 // guarded by mu; nodes
	cutAll bool                                // guarded by mu
	closed bool                                // guarded by mu
}

// memoryLink is a node's. Its broker's mu guards it.
type memoryLink struct {
	broker   *MemoryBroker
	gateway  string
	node     string
	in       *inbox.Inbox
	subjects map[string]struct{}
	down     bool
	closed   bool
}

var errMemoryBrokerClosed = errors.New("the memory broker is closed")

// NewMemoryBroker returns a broker without nodes.
func NewMemoryBroker() *MemoryBroker {
	return &MemoryBroker{links: make(map[string]map[*memoryLink]struct{}), cut: make(map[string]struct{})}
}

// Attach is of Broker. An error says that the broker is closed.
func (b *MemoryBroker) Attach(gateway, node string, to Receiver) (Link, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return nil, errMemoryBrokerClosed
	}
	l := &memoryLink{
		broker: b, gateway: gateway, node: node,
		in:       inbox.New(MemoryBrokerBuffer, to),
		subjects: make(map[string]struct{}),
	}
	if b.links[gateway] == nil {
		b.links[gateway] = make(map[*memoryLink]struct{})
	}
	b.links[gateway][l] = struct{}{}
	b.match(l)
	return l, nil
}

// Cut takes nodes off the broker, in every gateway, also if they attach from now on,
// until they are healed. No nodes means all.
func (b *MemoryBroker) Cut(nodes ...string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.cutAll = b.cutAll || len(nodes) == 0
	for _, node := range nodes {
		b.cut[node] = struct{}{}
	}
	b.matchAll()
}

// Heal undoes Cut. No nodes means all; after Cut of all they can only be healed so.
func (b *MemoryBroker) Heal(nodes ...string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(nodes) == 0 {
		b.cutAll = false
		clear(b.cut)
	}
	for _, node := range nodes {
		delete(b.cut, node)
	}
	b.matchAll()
}

func (b *MemoryBroker) matchAll() {
	for _, links := range b.links {
		for l := range links {
			b.match(l)
		}
	}
}

// match tells a link whether it is up, if that has changed.
func (b *MemoryBroker) match(l *memoryLink) {
	_, cut := b.cut[l.node]
	cut = cut || b.cutAll
	switch {
	case cut && !l.down:
		l.in.Down(ErrLinkDown)
	case !cut && l.down:
		l.in.Up()
	}
	l.down = cut
}

// Close ends the broker and its links. When it returns no Receiver is called any more.
// Further calls do nothing. It must not be called by a Receiver.
func (b *MemoryBroker) Close() {
	b.mu.Lock()
	b.closed = true
	var links []*memoryLink
	for _, of := range b.links {
		for l := range of {
			if !l.down {
				l.in.Down(errMemoryBrokerClosed)
			}
			l.end()
			links = append(links, l)
		}
	}
	b.mu.Unlock()
	for _, l := range links {
		l.in.Close()
	}
}

// Publish is of Link.
func (l *memoryLink) Publish(subject string, data []byte) error {
	if len(data) > MemoryBrokerMaxSize {
		return fmt.Errorf("publishing %d bytes to the memory broker: allowed are %d", len(data), MemoryBrokerMaxSize)
	}
	l.broker.mu.Lock()
	defer l.broker.mu.Unlock()
	if l.down || l.closed {
		return ErrLinkDown
	}
	for other := range l.broker.links[l.gateway] {
		if _, hears := other.subjects[subject]; hears && other != l && !other.down {
			other.in.Put(slices.Clone(data))
		}
	}
	return nil
}

// Subscribe is of Link.
func (l *memoryLink) Subscribe(subject string) {
	l.broker.mu.Lock()
	defer l.broker.mu.Unlock()
	l.subjects[subject] = struct{}{}
}

// Unsubscribe is of Link.
func (l *memoryLink) Unsubscribe(subject string) {
	l.broker.mu.Lock()
	defer l.broker.mu.Unlock()
	delete(l.subjects, subject)
}

// Flush is of Link.
func (l *memoryLink) Flush(done func(error)) {
	l.broker.mu.Lock()
	defer l.broker.mu.Unlock()
	var err error
	if l.down || l.closed {
		err = ErrLinkDown
	}
	l.in.Done(done, err)
}

// MaxSize is of Link.
func (l *memoryLink) MaxSize() int { return MemoryBrokerMaxSize }

// Close is of Link.
func (l *memoryLink) Close() {
	l.broker.mu.Lock()
	l.end()
	l.broker.mu.Unlock()
	l.in.Close()
}

// end takes the link out of its gateway. The broker's mu is held.
func (l *memoryLink) end() {
	l.closed = true
	links := l.broker.links[l.gateway]
	delete(links, l)
	if len(links) == 0 {
		delete(l.broker.links, l.gateway)
	}
}
