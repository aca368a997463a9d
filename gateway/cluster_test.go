package gateway_test

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-websocket/caddy-websocket/gateway"
	"github.com/caddy-websocket/caddy-websocket/gateway/brokertest"
	"github.com/caddy-websocket/caddy-websocket/gateway/gatewaytest"
)

// Whatever gateways do together they do over the simplest broker.
func TestGatewaysAreOneOverMemory(t *testing.T) {
	brokertest.RunGateways(t, synctest.Test, func(t *testing.T) brokertest.Fleet {
		b := memory(t)
		return func(testing.TB) brokertest.Peer { return brokertest.Peer{Broker: b} }
	})
}

// member is a node of a cluster over memory.
type member struct {
	*gatewaytest.Server
	*gatewaytest.Recorder
	log gatewaytest.Log

	mu     sync.Mutex
	events []string // guarded by mu
}

// OnNode notes what becomes of nodes.
func (m *member) OnNode(_ *gateway.Gateway, e gateway.NodeEvent) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.events = append(m.events, e.ID+" "+string(e.State))
}

func (m *member) seen() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.events)
}

// members serves an endpoint called test on so many nodes, who know each other.
func members(t *testing.T, b gateway.Broker, n int) []*member {
	t.Helper()
	all := make([]*member, n)
	for i := range all {
		all[i] = oneMore(t, b)
	}
	synctest.Wait()
	for _, m := range all {
		if nodes := m.Gateway.Nodes(); len(nodes) != n || !nodes[0].Self || nodes[0].ID != m.Gateway.Node() {
			t.Fatalf("nodes are %+v", nodes)
		}
	}
	return all
}

// oneMore serves the endpoint on one more node.
func oneMore(t *testing.T, b gateway.Broker) *member {
	t.Helper()
	m := &member{Recorder: &gatewaytest.Recorder{Connect: func(c *gateway.Client, r *http.Request) error {
		return c.Join(r.URL.Query()["group"]...)
	}}}
	m.Server = gatewaytest.ServeOptions(t, gateway.Options{Logger: m.log.Logger(), Broker: b},
		gatewaytest.Endpoint(t, "test", gateway.EndpointOptions{Logic: m, PingInterval: -1, SendBuffer: 16 << 20}))
	return m
}

func memory(t *testing.T) *gateway.MemoryBroker {
	b := gateway.NewMemoryBroker()
	t.Cleanup(b.Close)
	return b
}

// While the broker is gone a chat goes on for those who are on one node, logic is not
// punished for it, and nobody reads the same line a thousand times.
func TestWithoutItsBrokerANodeGoesOnAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := memory(t)
		nodes := members(t, b, 2)
		here, there := nodes[0], nodes[1]
		one, other := here.Dial("/test?group=x"), there.Dial("/test?group=x")
		here.Message = func(c *gateway.Client, m gateway.Message) error {
			_, err := c.Gateway().Send(gateway.Groups("x"), m)
			return err
		}
		one.Send("together")
		one.Want("together")
		other.Want("together")

		b.Cut()
		synctest.Wait()
		for range 3 {
			one.Send("alone")
			one.Want("alone")
		}
		n, err := here.Gateway.Send(gateway.Groups("x"), gateway.Text("alone"))
		if n != 1 || !errors.Is(err, gateway.ErrLocalOnly) || !errors.Is(err, gateway.ErrLinkDown) {
			t.Errorf("sending reached %d (%v), want 1 and ErrLocalOnly", n, err)
		}
		one.Want("alone")
		if n, err := here.Gateway.Send(gateway.Clients(here.Client(t, 0).ID()), gateway.Text("hers")); n != 1 || err != nil {
			t.Errorf("sending to a client of this node reached %d (%v)", n, err)
		}
		one.Want("hers")
		reach, err := here.Gateway.DoWait(t.Context(), &gateway.Command{Join: &gateway.GroupsCommand{To: gateway.All(), Groups: []string{"y"}}})
		if reach.Clients != 1 || !slices.Equal(reach.Missing, []string{there.Gateway.Node()}) || !errors.Is(err, gateway.ErrLocalOnly) {
			t.Errorf("joining reached %+v (%v)", reach, err)
		}
		list, err := here.Gateway.Clients(t.Context(), gateway.Query{})
		if len(list.Clients) != 1 || !slices.Equal(list.Missing, []string{there.Gateway.Node()}) || err != nil {
			t.Errorf("listed %+v (%v)", list, err)
		}
		if err := here.Gateway.Settle(t.Context()); !errors.Is(err, gateway.ErrLocalOnly) {
			t.Errorf("settling: %v", err)
		}
		stats := here.Gateway.Stats().Cluster
		if stats.Connected || stats.Unsent < 4 || stats.Nodes != 1 {
			t.Errorf("stats are %+v", stats)
		}
		time.Sleep(10 * time.Minute) // nobody is lost whom nobody could hear
		if got := len(here.log.Find("the broker cannot be reached: this node is on its own")); got != 1 {
			t.Errorf("the log says %d times that the node is on its own", got)
		}

		b.Heal()
		synctest.Wait()
		one.Send("together again")
		one.Want("together again")
		other.Want("together again")
		if got := here.seen(); len(got) != 1 {
			t.Errorf("events are %v, want one", got)
		}
		if len(here.log.Find("the broker can be reached: this node is no longer on its own")) != 1 {
			t.Error("the log does not say that the node is back")
		}
	})
}

// Who is told that a node is on its own waits for the line that says that it is over, also
// if what mends it is a reload with other settings of the broker.
func TestAnotherBrokerEndsBeingOnItsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := memory(t)
		m := oneMore(t, b)
		b.Cut()
		time.Sleep(3 * time.Second)
		reload := func(b gateway.Broker) {
			t.Helper()
			gen, err := m.Gateway.Prepare(gateway.Options{Logger: m.log.Logger(), Broker: b})
			if err != nil {
				t.Fatal(err)
			}
			if err := gen.Add(gatewaytest.Endpoint(t, "test", gateway.EndpointOptions{Logic: m})); err != nil {
				t.Fatal(err)
			}
			if err := gen.Commit(); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { gen.Close() })
			time.Sleep(10 * time.Second)
		}
		said := func() [2]int {
			return [2]int{
				len(m.log.Find("the broker cannot be reached: this node is on its own")),
				len(m.log.Find("the broker can be reached: this node is no longer on its own")),
			}
		}
		if got := said(); got != [2]int{1, 0} {
			t.Errorf("cut off, the log says %v times that it is on its own and no longer, want once and never", got)
		}
		reload(memory(t))
		if got := said(); got != [2]int{1, 1} {
			t.Errorf("with another broker the log says %v times that it is on its own and no longer, want once each", got)
		}
	})
}

// Who is to be woken when messages do not reach other nodes must not be woken by every
// start.
func TestStartLeavesNothingUnsent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := memory(t)
		b.Cut() // a connection takes a moment
		m := oneMore(t, b)
		time.Sleep(time.Minute)
		b.Heal()
		time.Sleep(time.Minute)
		if stats := m.Gateway.Stats().Cluster; stats.Unsent != 0 || stats.Published == 0 {
			t.Errorf("stats are %+v, want nothing unsent", stats)
		}
	})
}

// Groups that came into being while the broker was gone are heard afterwards.
func TestWhatWasJoinedWhileCutOffIsHeardAfterwards(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := memory(t)
		nodes := members(t, b, 2)
		b.Cut(nodes[1].Gateway.Node())
		conn := nodes[1].Dial("/test?group=new")
		b.Heal(nodes[1].Gateway.Node())
		synctest.Wait()
		if _, err := nodes[0].Gateway.Send(gateway.Groups("new"), gateway.Text("hello")); err != nil {
			t.Fatal(err)
		}
		conn.Want("hello")
	})
}

// A machine that dies takes its clients with it: the others must not count them, nor wait
// for it, and logic must be able to tell their friends.
func TestADeadNodeIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := memory(t)
		nodes := members(t, b, 3)
		dead := nodes[2].Gateway.Node()
		for _, m := range nodes {
			m.Dial("/test?group=x")
		}
		b.Cut(dead)
		reach, err := nodes[0].Gateway.Count(t.Context(), gateway.Groups("x"))
		if reach.Clients != 2 || !slices.Equal(reach.Missing, []string{dead}) || err != nil {
			t.Errorf("before it is known: %+v (%v)", reach, err)
		}
		time.Sleep(6 * time.Second)
		start := time.Now()
		for _, m := range nodes[:2] {
			reach, err := m.Gateway.Count(t.Context(), gateway.Groups("x"))
			if reach.Clients != 2 || reach.Missing != nil || err != nil {
				t.Errorf("counted %+v (%v)", reach, err)
			}
			if got := m.seen(); len(got) != 3 || got[2] != dead+" lost" {
				t.Errorf("events are %v", got)
			}
			if len(m.log.Find("node lost: it gives no sign of life")) != 1 {
				t.Error("the log does not say it")
			}
			if _, err := m.Gateway.ClientInfo(t.Context(), nodes[2].Client(t, 0).ID(), false); !errors.Is(err, gateway.ErrUnknownClient) {
				t.Errorf("its client: %v", err)
			}
		}
		if took := time.Since(start); took != 0 {
			t.Errorf("the answers took %s", took)
		}
		b.Heal()
		time.Sleep(2 * time.Second)
		if got := nodes[0].seen(); got[len(got)-1] != dead+" joined" || len(nodes[0].Gateway.Nodes()) != 3 {
			t.Errorf("events are %v", got)
		}
	})
}

// A node that is asked and dies must not hold up who asks for the whole time-out, and one
// that only is slow is named.
func TestAnswersDoNotWaitForTheDead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := memory(t)
		nodes := members(t, b, 2)
		dead := nodes[1].Gateway.Node()
		b.Cut(dead)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		start := time.Now()
		reach, err := nodes[0].Gateway.Count(ctx, gateway.All())
		if took := time.Since(start); took > 7*time.Second || reach.Missing != nil || err != nil {
			t.Errorf("counted %+v (%v) in %s", reach, err, took)
		}
		b.Heal()
		time.Sleep(2 * time.Second)
		b.Cut(dead)
		start = time.Now()
		reach, err = nodes[0].Gateway.Count(t.Context(), gateway.All())
		if took := time.Since(start); took != gateway.AnswerTimeout || !slices.Equal(reach.Missing, []string{dead}) || err != nil {
			t.Errorf("without a deadline it counted %+v (%v) in %s", reach, err, took)
		}
	})
}

// A callback that hangs is its own client's trouble, not another node's.
func TestLogicThatBlocksHoldsUpNoOtherNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nodes := members(t, memory(t), 2)
		conn := nodes[1].Dial("/test?group=x")
		release := make(chan struct{})
		nodes[1].Message = func(*gateway.Client, gateway.Message) error {
			<-release
			return nil
		}
		conn.Send("block")
		synctest.Wait()
		time.Sleep(time.Minute)
		if _, err := nodes[0].Gateway.Send(gateway.Groups("x"), gateway.Text("through")); err != nil {
			t.Fatal(err)
		}
		conn.Want("through")
		close(release)
		if got := nodes[0].seen(); len(got) != 1 {
			t.Errorf("events are %v", got)
		}
	})
}

// Whoever has no other node pays for none: nothing is published but signs of life.
func TestAloneNothingIsPublished(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := members(t, memory(t), 1)[0]
		conn := m.Dial("/test?group=x")
		before := m.Gateway.Stats().Cluster.Published
		for range 100 {
			if n, err := m.Gateway.Send(gateway.Groups("x"), gateway.Text("x")); n != 1 || err != nil {
				t.Fatalf("sent to %d (%v)", n, err)
			}
			conn.Want("x")
		}
		if after := m.Gateway.Stats().Cluster.Published; after != before {
			t.Errorf("%d messages were published", after-before)
		}
	})
}

// Drain and Resume of another node are for who empties one machine from another.
func TestAnotherNodeIsDrained(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nodes := members(t, memory(t), 2)
		conn := nodes[1].Dial("/test")
		go conn.WantClose(gateway.CloseServiceRestart)
		if err := nodes[0].Gateway.DrainNode(t.Context(), nodes[1].Gateway.Node(), true); err != nil {
			t.Fatal(err)
		}
		nodes[1].Refused(http.StatusServiceUnavailable, "/test")
		nodes[0].Dial("/test")
		if err := nodes[0].Gateway.ResumeNode(t.Context(), nodes[1].Gateway.Node()); err != nil {
			t.Fatal(err)
		}
		nodes[1].Dial("/test")
		if err := nodes[0].Gateway.ResumeNode(t.Context(), "nowhere1"); !errors.Is(err, gateway.ErrUnknownNode) {
			t.Errorf("resuming nowhere: %v", err)
		}
	})
}

// When a thousand people enter a room at once each is told how many there are.
func TestABurstOfQuestionsIsAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nodes := members(t, memory(t), 3)
		for _, m := range nodes {
			m.Dial("/test?group=x")
		}
		var all sync.WaitGroup
		for range 1000 {
			all.Go(func() {
				if reach, err := nodes[0].Gateway.Count(t.Context(), gateway.Groups("x")); err != nil || reach.Clients != 3 || reach.Missing != nil {
					t.Errorf("counted %+v (%v)", reach, err)
				}
			})
		}
		all.Wait()
	})
}
