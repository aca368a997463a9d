// Package brokertest is the suite that every gateway.Broker passes.
//
//	func TestBroker(t *testing.T) {
//		brokertest.Run(t, func(t *testing.T) brokertest.Fleet {
//			return func(t testing.TB) brokertest.Peer { ... }
//		})
//	}
package brokertest

import (
	"testing"

	"github.com/caddy-websocket/caddy-websocket/gateway"
)

// Peer is the broker of one process.
type Peer struct {
	gateway.Broker

	// Close closes the broker. It is called more than once.
	Close func()

	// Buffer is how many bytes the broker keeps for a node that is held up, about.
	Buffer int

	// Cut makes the others unreachable for all nodes of this broker, soon after it
	// returns, and Heal undoes it. Both may be nil: then what is about it is skipped.
	Cut  func()
	Heal func()
}

// Fleet opens another broker that reaches those that it has opened before, and
// none of another fleet. What it opens, and all that it needs, is gone when the test ends.
type Fleet func(t testing.TB) Peer

// claim is what a broker owes.
type claim struct {
	name string
	test func(t *testing.T, open Fleet)
}

// Run tests a broker. open is called for every test, for a fleet of its own.
func Run(t *testing.T, open func(t *testing.T) Fleet) {
	for _, c := range linkClaims {
		t.Run(c.name, func(t *testing.T) { c.test(t, open(t)) })
	}
}

// peers opens some.
func peers(t testing.TB, open Fleet, n int) []Peer {
	t.Helper()
	ps := make([]Peer, n)
	for i := range ps {
		ps[i] = open(t)
	}
	return ps
}
