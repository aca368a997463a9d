package gateway

import (
	"context"
	"testing"
)

// BenchmarkClusterSend is what a message to a group costs this node for the others: to be
// told, without the broker's own work.
func BenchmarkClusterSend(b *testing.B) {
	l := &ledger{size: 1 << 20, forgets: true}
	g := benchGateway(b, l)
	l.to.Receive(append(appendHeader(nil, kindHello, "aaaaaaaa", 1), "{}"...)) // it is not alone
	m := Text(string(make([]byte, 90)))
	to := Groups("room:1234")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := g.Send(to, m); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkClusterAlone is a message to nobody, on a node without a broker and on one with a
// broker that no other node is on: the difference is what a broker costs while it is not
// needed.
func BenchmarkClusterAlone(b *testing.B) {
	for name, broker := range map[string]Broker{"without a broker": nil, "with a broker": &ledger{size: 1 << 20, forgets: true}} {
		b.Run(name, func(b *testing.B) {
			g := benchGateway(b, broker)
			m := Text(string(make([]byte, 90)))
			to := Users("1234")
			b.ReportAllocs()
			for b.Loop() {
				if _, err := g.Send(to, m); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkClusterReceive is what it costs to hear of one that nobody here is to get.
func BenchmarkClusterReceive(b *testing.B) {
	l := &ledger{size: 1 << 20, forgets: true}
	benchGateway(b, l)
	body, err := appendCommand(nil, 0, &Command{Send: &SendCommand{To: Groups("room:1234")}}, Text(string(make([]byte, 90))))
	if err != nil {
		b.Fatal(err)
	}
	number := uint64(0)
	var buf []byte
	b.ReportAllocs()
	for b.Loop() {
		number++
		buf = append(appendHeader(buf[:0], kindCommand, "aaaaaaaa", number), body...)
		l.to.Receive(buf)
	}
}

func benchGateway(b *testing.B, broker Broker) *Gateway {
	g, err := New(Options{Broker: broker})
	if err != nil {
		b.Fatal(err)
	}
	if err := g.Serve(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = g.Shutdown(context.Background()) })
	return g
}
