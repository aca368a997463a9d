package brokertest

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddy-websocket/caddy-websocket/gateway"
	"github.com/caddy-websocket/caddy-websocket/gateway/gatewaytest"
)

// cluster is a gateway of several nodes, each as if in a process of its own.
type cluster struct {
	t       *testing.T
	brokers []Peer
	nodes   []*member
	conns   map[string]*gatewaytest.Client
}

// node is one of them.
type member struct {
	*gatewaytest.Server
	logic *observer
}

// observer lets everybody in, as the query says, and notes what becomes of nodes.
type observer struct {
	gatewaytest.Recorder

	mu     sync.Mutex
	ids    map[string]string // guarded by mu; of clients, by name
	events []string          // guarded by mu
}

func (o *observer) OnConnect(c *gateway.Client, r *http.Request) error {
	q := r.URL.Query()
	o.mu.Lock()
	o.ids[q.Get("as")] = c.ID()
	o.mu.Unlock()
	if user := q.Get("user"); user != "" {
		if err := c.Bind(user); err != nil {
			return err
		}
	}
	for _, group := range q["group"] {
		if err := c.Join(group); err != nil {
			return err
		}
	}
	return c.Session().Set("as", q.Get("as"))
}

func (o *observer) OnNode(_ *gateway.Gateway, e gateway.NodeEvent) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.events = append(o.events, fmt.Sprintf("%s %s", e.ID, e.State))
}

func (o *observer) seen() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.events)
}

// newCluster serves the endpoints a and b on every broker, and returns when all nodes
// know each other.
func newCluster(t *testing.T, brokers []Peer) *cluster {
	t.Helper()
	c := &cluster{t: t, brokers: brokers, conns: make(map[string]*gatewaytest.Client)}
	for _, b := range brokers {
		c.add(b.Broker)
	}
	for _, n := range c.nodes {
		c.until("all nodes know each other", func() bool { return len(n.Gateway.Nodes()) == len(brokers) })
	}
	return c
}

// sendBuffer is what a client's queue holds: more than a message that a broker takes in
// parts.
const sendBuffer = 16 << 20

func (c *cluster) endpoints(logic gateway.Logic) []*gateway.Endpoint {
	o := gateway.EndpointOptions{Logic: logic, SendBuffer: sendBuffer}
	return []*gateway.Endpoint{gatewaytest.Endpoint(c.t, "a", o), gatewaytest.Endpoint(c.t, "b", o)}
}

func (c *cluster) add(b gateway.Broker) *member {
	c.t.Helper()
	logic := &observer{ids: make(map[string]string)}
	n := &member{
		Server: gatewaytest.ServeOptions(c.t, gateway.Options{Logger: gatewaytest.Logger(c.t), Broker: b}, c.endpoints(logic)...),
		logic:  logic,
	}
	c.nodes = append(c.nodes, n)
	return n
}

// dial connects somebody to the nth node.
func (c *cluster) dial(n int, as, path string) *gatewaytest.Client {
	c.t.Helper()
	conn := c.nodes[n].Dial(path + "&as=" + as)
	c.conns[as] = conn
	return conn
}

// populate spreads people over the first three nodes.
func (c *cluster) populate() {
	c.t.Helper()
	c.dial(0, "ann", "/a?user=ann&group=x")
	c.dial(0, "bob1", "/a?user=bob&group=x&group=y")
	c.dial(1, "bob2", "/b?user=bob&group=y")
	c.dial(1, "cid", "/a?user=cid")
	c.dial(2, "dan", "/b?user=dan&group=x&group=y")
	c.settle()
}

func (c *cluster) settle() {
	c.t.Helper()
	for _, n := range c.nodes {
		if err := n.Gateway.Settle(c.context()); err != nil {
			c.t.Fatalf("settling: %v", err)
		}
	}
}

func (c *cluster) context() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), wait)
	c.t.Cleanup(cancel)
	return ctx
}

// until fails the test if something does not become true.
func (c *cluster) until(what string, is func() bool) {
	c.t.Helper()
	for deadline := time.Now().Add(wait); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			c.t.Fatalf("not in %s: %s", wait, what)
		}
	}
}

// id returns somebody's client id.
func (c *cluster) id(as string) string {
	c.t.Helper()
	for _, n := range c.nodes {
		n.logic.mu.Lock()
		id := n.logic.ids[as]
		n.logic.mu.Unlock()
		if id != "" {
			return id
		}
	}
	c.t.Fatalf("%s is not connected", as)
	return ""
}

func (c *cluster) node(n int) string { return c.nodes[n].Gateway.Node() }

// who puts client ids in the place of names like @ann.
func (c *cluster) who(names ...string) []string {
	out := slices.Clone(names)
	for i, name := range out {
		if as, ok := strings.CutPrefix(name, "@"); ok {
			out[i] = c.id(as)
		}
	}
	return out
}

// wantReached fails unless exactly these received the text next, once. Who did not gets
// the mark that is sent after it.
func (c *cluster) wantReached(from int, text string, who ...string) {
	c.t.Helper()
	if _, err := c.nodes[from].Gateway.Send(gateway.All(), gateway.Text("mark")); err != nil {
		c.t.Fatal(err)
	}
	for name, conn := range c.conns {
		if slices.Contains(who, name) {
			conn.Want(text)
		}
		conn.Want("mark")
	}
}
