package main

import (
	"testing"
	"time"

	"github.com/caddy-websocket/caddy-websocket/gateway"
	"github.com/caddy-websocket/caddy-websocket/gateway/gatewaytest"
	"github.com/caddy-websocket/caddy-websocket/gateway/natsbroker"
)

// joined returns a gateway that is joined to others by a connection of its own to NATS.
func joined(t testing.TB, n *natsServer, password string, endpoints ...*gateway.Endpoint) *gatewaytest.Server {
	t.Helper()
	b, err := natsbroker.New(natsbroker.Options{URLs: []string{n.url()}, User: "node", Password: password})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	if err := b.Connect(t.Context()); err != nil {
		t.Fatal(err)
	}
	return gatewaytest.ServeOptions(t, gateway.Options{Broker: b}, endpoints...)
}

// until waits for what other processes need a moment for.
func until(t testing.TB, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(gatewaytest.Wait); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

type member struct{ gateway.NopLogic }

// BenchmarkMessageToAnotherNode is a message of 90 bytes to a group whose one member is on
// another node: this node, NATS, the other node and the member are all in this process.
func BenchmarkMessageToAnotherNode(b *testing.B) {
	const password, inFlight = "password-of-the-benchmark", 1000
	n, err := newNATS(password)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(n.stop)
	here := joined(b, n, password)
	there := joined(b, n, password, gatewaytest.Endpoint(b, "test", gateway.EndpointOptions{Logic: member{}}))
	c := there.Dial("/test")
	until(b, "two nodes", func() bool { return len(here.Gateway.Nodes()) == 2 && len(there.Gateway.Nodes()) == 2 })
	if _, err := there.Gateway.Join(gateway.All(), "group"); err != nil {
		b.Fatal(err)
	}
	if err := there.Gateway.Settle(b.Context()); err != nil {
		b.Fatal(err)
	}
	m := gateway.Text(string(make([]byte, 90)))
	room := make(chan struct{}, inFlight)
	done := make(chan struct{})
	b.ResetTimer()
	go func() {
		defer close(done)
		for range b.N {
			if _, _, err := c.Conn.ReadMessage(); err != nil {
				b.Error(err)
				return
			}
			<-room
		}
	}()
	for range b.N {
		room <- struct{}{}
		if _, err := here.Gateway.Send(gateway.Groups("group"), m); err != nil {
			b.Fatal(err)
		}
	}
	<-done
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "messages/s")
}
