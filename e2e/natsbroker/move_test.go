package natsbroker

import (
	"context"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/caddy-websocket/caddy-websocket/gateway"
	"github.com/caddy-websocket/caddy-websocket/gateway/gatewaytest"
	"github.com/caddy-websocket/caddy-websocket/gateway/natsbroker"
)

// mover is a node that changes brokers.
type mover struct {
	*gatewaytest.Server
	brokers    []*natsbroker.Broker // one at each server
	generation *gateway.Generation  // nil before the first move
}

// leaving is a broker whose links take their time to close, as one does that is closed
// with its last link. Each is another broker to the gateway.
type leaving struct{ gateway.Broker }

type leavingLink struct{ gateway.Link }

func (b *leaving) Attach(name, node string, to gateway.Receiver) (gateway.Link, error) {
	l, err := b.Broker.Attach(name, node, to)
	return leavingLink{l}, err
}

func (l leavingLink) Close() {
	l.Link.Close()
	time.Sleep(300 * time.Millisecond)
}

// joiner puts everybody into all groups.
type joiner struct{ groups []string }

func (j joiner) OnConnect(c *gateway.Client, _ *http.Request) error { return c.Join(j.groups...) }
func (joiner) OnMessage(*gateway.Client, gateway.Message) error     { return nil }
func (joiner) OnClose(*gateway.Client, gateway.CloseReason)         {}
func (j joiner) endpoint(t testing.TB) *gateway.Endpoint {
	return gatewaytest.Endpoint(t, "a", gateway.EndpointOptions{Logic: j, SendBuffer: 16 << 20})
}

// move gives the node the broker at another server.
func (m *mover) move(t testing.TB, logic joiner, server int) {
	t.Helper()
	next, err := m.Gateway.Prepare(gateway.Options{Logger: gatewaytest.Logger(t), Broker: &leaving{m.brokers[server]}})
	if err == nil {
		err = next.Add(logic.endpoint(t))
	}
	if err == nil {
		err = next.Commit()
	}
	if err != nil {
		t.Fatal(err)
	}
	if m.generation != nil {
		m.generation.Close()
	}
	m.generation = next
}

// A deployment gives all machines their new configuration at once, and the one before
// again when somebody is not content with it: no message may be lost over that, nor in the
// moments after it.
func TestNodesThatMoveAtOnceMissNothing(t *testing.T) {
	const rounds, groups = 6, 60
	servers := startCluster(t)
	var logic joiner
	for i := range groups {
		logic.groups = append(logic.groups, fmt.Sprint("group ", i))
	}
	nodes := make([]*mover, len(servers))
	for i := range nodes {
		m := new(mover)
		for _, s := range servers {
			m.brokers = append(m.brokers, open(t, natsbroker.Options{URLs: []string{s.URL()}}))
		}
		m.Server = gatewaytest.ServeOptions(t, gateway.Options{Logger: gatewaytest.Logger(t), Broker: &leaving{m.brokers[i]}}, logic.endpoint(t))
		nodes[i] = m
	}
	settle := func() {
		for _, m := range nodes {
			awaitThat(t, "all nodes to know each other", func() bool { return len(m.Gateway.Nodes()) == len(nodes) })
			if err := m.Gateway.Settle(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, m := range nodes {
		conn := m.Dial("/a")
		go func() {
			for {
				if _, _, err := conn.Conn.NextReader(); err != nil {
					return
				}
			}
		}()
	}
	settle()
	for round := range rounds {
		for i, m := range nodes {
			m.move(t, logic, (i+1)%len(servers))
		}
		time.Sleep(time.Duration(round) * 250 * time.Millisecond) // in whatever state it finds them
		for i, m := range nodes {
			m.move(t, logic, i)
		}
		settle()
		for i, m := range nodes {
			for _, group := range logic.groups {
				ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
				reach, err := m.Gateway.DoWait(ctx, &gateway.Command{Send: &gateway.SendCommand{To: gateway.Groups(group), Text: new("hello")}})
				cancel()
				if err != nil || reach.Clients != len(nodes) {
					t.Fatalf("round %d: a message of node %d to %q has reached %+v (%v), want one client at each node", round, i, group, reach, err)
				}
			}
		}
	}
}
