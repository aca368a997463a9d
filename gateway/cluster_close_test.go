package gateway_test

import (
	"slices"
	"sync"
	"testing"

	"github.com/caddy-websocket/caddy-websocket/gateway"
)

// watchedBroker notes which gateways are attached to it.
type watchedBroker struct {
	*gateway.MemoryBroker

	mu    sync.Mutex
	links []*watchedLink // guarded by mu; open ones
	ever  int            // guarded by mu
}

type watchedLink struct {
	gateway.Link
	broker *watchedBroker
}

func (b *watchedBroker) Attach(name, node string, to gateway.Receiver) (gateway.Link, error) {
	link, err := b.MemoryBroker.Attach(name, node, to)
	if err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	l := &watchedLink{link, b}
	b.links = append(b.links, l)
	b.ever++
	return l, nil
}

func (l *watchedLink) Close() {
	l.Link.Close()
	l.broker.mu.Lock()
	defer l.broker.mu.Unlock()
	l.broker.links = slices.DeleteFunc(l.broker.links, func(other *watchedLink) bool { return other == l })
}

func (b *watchedBroker) want(t *testing.T, open, ever int) {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.links) != open || b.ever != ever {
		t.Errorf("%d links are open and %d were made, want %d and %d", len(b.links), b.ever, open, ever)
	}
}

// A configuration that is only looked at must not dial, nor be seen by other nodes; and who
// closes a generation of a gateway that has ended, as Caddy does, must not bring it back.
func TestClosingAGenerationAttachesNoBroker(t *testing.T) {
	b := &watchedBroker{MemoryBroker: memory(t)}
	o := gateway.Options{Broker: b}
	g, err := gateway.New(o)
	if err != nil {
		t.Fatal(err)
	}
	prepare := func() *gateway.Generation {
		t.Helper()
		gen, err := g.Prepare(o)
		if err != nil {
			t.Fatal(err)
		}
		return gen
	}
	prepare().Close()
	b.want(t, 0, 0)
	gen := prepare()
	if err := gen.Commit(); err != nil {
		t.Fatal(err)
	}
	b.want(t, 1, 1)
	if err := g.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.want(t, 0, 1)
	gen.Close()
	b.want(t, 0, 1)
}
