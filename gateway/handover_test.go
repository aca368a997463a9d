package gateway_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-websocket/caddy-websocket/gateway"
	"github.com/caddy-websocket/caddy-websocket/gateway/gatewaytest"
)

// road is a way to a broker: what is published, subscribed to and received passes on it in
// order, each time after a while.
type road struct {
	gateway.Broker

	out, in time.Duration
	hole    atomic.Bool // what is published is lost
}

// Attach is of gateway.Broker.
func (r *road) Attach(name, node string, to gateway.Receiver) (gateway.Link, error) {
	l := &roadLink{road: r, out: newLane(r.out), in: newLane(r.in), to: to}
	link, err := r.Broker.Attach(name, node, l)
	l.Link = link
	return l, err
}

// roadLink is both ends of a road.
type roadLink struct {
	gateway.Link

	road    *road
	out, in *lane
	to      gateway.Receiver
}

func (l *roadLink) Publish(subject string, data []byte) error {
	if l.road.hole.Load() {
		return nil
	}
	data = bytes.Clone(data)
	if !l.out.do(func() { _ = l.Link.Publish(subject, data) }) {
		return gateway.ErrLinkDown
	}
	return nil
}

func (l *roadLink) Subscribe(subject string) { l.out.do(func() { l.Link.Subscribe(subject) }) }

// Flush knows only of this end, as a server knows only what it has itself.
func (l *roadLink) Flush(done func(error)) {
	l.Link.Flush(func(err error) {
		if !l.in.do(func() { done(err) }) {
			done(err)
		}
	})
}

func (l *roadLink) Close() {
	l.out.close()
	l.Link.Close()
	l.in.close()
}

func (l *roadLink) Receive(data []byte) {
	data = bytes.Clone(data)
	l.in.do(func() { l.to.Receive(data) })
}
func (l *roadLink) Up()            { l.in.do(l.to.Up) }
func (l *roadLink) Down(why error) { l.in.do(func() { l.to.Down(why) }) }
func (l *roadLink) Missed(n int)   { l.in.do(func() { l.to.Missed(n) }) }

// lane does things in order, each a while after it was asked for.
type lane struct {
	takes time.Duration
	done  chan struct{}

	mu     sync.Mutex
	todo   chan func() // sent to with mu
	closed bool        // guarded by mu
}

func newLane(takes time.Duration) *lane {
	l := &lane{takes: takes, todo: make(chan func(), 10000), done: make(chan struct{})}
	go func() {
		defer close(l.done)
		for f := range l.todo {
			f()
		}
	}()
	return l
}

// do returns false if the lane is closed.
func (l *lane) do(f func()) bool {
	at := time.Now().Add(l.takes)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return false
	}
	l.todo <- func() {
		time.Sleep(time.Until(at))
		f()
	}
	return true
}

// close returns when all is done that was asked for.
func (l *lane) close() {
	l.mu.Lock()
	if !l.closed {
		l.closed = true
		close(l.todo)
	}
	l.mu.Unlock()
	<-l.done
}

// A reload that gives a node another broker, a NATS server that is nearer, say, is to lose
// nothing, whichever way is faster: clients notice nothing.
func TestAnotherBrokerLosesNothing(t *testing.T) {
	const near, far = time.Millisecond, 100 * time.Millisecond
	for _, tt := range []struct {
		name          string
		before, after *road
		who           int // gets another broker: 0 sends, 1 receives
	}{
		{"the sender's way gets shorter", &road{out: far}, &road{out: near}, 0},
		{"the sender's way gets longer", &road{out: near}, &road{out: far}, 0},
		{"the receiver's way gets shorter", &road{in: far}, &road{in: near}, 1},
		{"the receiver's way gets longer", &road{in: near}, &road{in: far}, 1},
		{"the receiver is known late", &road{in: near}, &road{in: near, out: far}, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				hub := memory(t)
				tt.before.Broker, tt.after.Broker = hub, hub
				brokers := []gateway.Broker{hub, hub}
				brokers[tt.who] = tt.before
				nodes := apart(t, brokers...)
				ann := nodes[1].Dial("/test?group=x")
				time.Sleep(time.Second)

				const messages, turns = 200, 100
				for i := range messages {
					if i == turns {
						reattach(t, nodes[tt.who], tt.after)
					}
					if _, err := nodes[0].Gateway.Send(gateway.Groups("x"), gateway.Text(fmt.Sprint(i))); err != nil {
						t.Fatal(err)
					}
					time.Sleep(5 * time.Millisecond)
				}
				for i := range messages {
					ann.Want(fmt.Sprint(i))
				}
				if n := nodes[1].Gateway.Stats().Cluster.Missed; n != 0 {
					t.Errorf("%d messages were missed", n)
				}
			})
		})
	}
}

// Machines are given their configurations at once, and another soon after.
func TestManyChangesOfBrokersLoseNothing(t *testing.T) {
	const messages, changes, longest = 600, 5, 150
	for seed := range uint64(25) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				random := rand.New(rand.NewPCG(seed, 0)) // the same each time
				hub := memory(t)
				some := func() *road {
					way := func() time.Duration { return time.Duration(1+random.IntN(longest)) * time.Millisecond }
					return &road{Broker: hub, out: way(), in: way()}
				}
				nodes := apart(t, some(), some(), some())
				ann := nodes[1].Dial("/test?group=x")
				time.Sleep(time.Second)
				changing := make(map[int]int) // who changes before which message
				for who := range nodes {
					for range changes {
						changing[random.IntN(messages)] = who
					}
				}
				for i := range messages {
					if who, ok := changing[i]; ok {
						reattach(t, nodes[who], some())
					}
					if _, err := nodes[0].Gateway.Send(gateway.Groups("x"), gateway.Text(fmt.Sprint(i))); err != nil {
						t.Fatal(err)
					}
					time.Sleep(5 * time.Millisecond)
				}
				for i := range messages {
					ann.Want(fmt.Sprint(i))
				}
			})
		})
	}
}

// A broker is changed because it is broken, too: what it has swallowed holds up what comes
// after it for a moment, and no more of it than fits.
func TestAnotherBrokerIsNotHeldUpByTheOneBefore(t *testing.T) {
	for _, tt := range []struct {
		name string
		size int
		most time.Duration
	}{
		{"a few", 10, 4 * time.Second},
		{"many bytes", 1 << 20, 100 * time.Millisecond},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				hub := memory(t)
				broken := &road{Broker: hub}
				nodes := apart(t, broken, hub)
				ann := nodes[1].Dial("/test?group=x")
				time.Sleep(time.Second)
				send := func(text string) {
					t.Helper()
					if _, err := nodes[0].Gateway.Send(gateway.Groups("x"), gateway.Text(text+strings.Repeat(".", tt.size))); err != nil {
						t.Fatal(err)
					}
				}
				broken.hole.Store(true)
				send("lost")
				reattach(t, nodes[0], &road{Broker: hub})
				began := time.Now()
				for i := range 5 {
					send(fmt.Sprint(i))
				}
				for i := range 5 {
					if got, want := ann.Receive(), fmt.Sprint(i); !strings.HasPrefix(got, want+".") {
						t.Fatalf("received %.20q, want %s", got, want)
					}
				}
				if took := time.Since(began); took > tt.most {
					t.Errorf("it took %s, want %s at most", took, tt.most)
				}
			})
		})
	}
}

// apart is members, each with a broker of its own.
func apart(t *testing.T, brokers ...gateway.Broker) []*member {
	t.Helper()
	nodes := make([]*member, len(brokers))
	for i, b := range brokers {
		nodes[i] = oneMore(t, b)
	}
	time.Sleep(time.Second)
	for _, n := range nodes {
		if known := n.Gateway.Nodes(); len(known) != len(brokers) {
			t.Fatalf("nodes are %+v", known)
		}
	}
	return nodes
}

// reattach gives a node another broker.
func reattach(t *testing.T, m *member, b gateway.Broker) {
	t.Helper()
	gen, err := m.Gateway.Prepare(gateway.Options{Logger: m.log.Logger(), Broker: b})
	if err != nil {
		t.Fatal(err)
	}
	if err := gen.Add(gatewaytest.Endpoint(t, "test", gateway.EndpointOptions{Logic: m, PingInterval: -1, SendBuffer: 16 << 20})); err != nil {
		t.Fatal(err)
	}
	if err := gen.Commit(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(gen.Close)
}
