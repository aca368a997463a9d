package cluster

import (
	"fmt"
	"maps"
	"net/url"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/caddy-websocket/caddy-websocket/e2e/internal/natsserver"
	"github.com/caddy-websocket/caddy-websocket/gateway"
	"github.com/caddy-websocket/caddy-websocket/gateway/httpapi"
)

// town is everybody: servers, nodes, clients, senders.
type town struct {
	t       *testing.T
	crowd   crowd
	servers []*natsserver.Server
	proxies []*natsserver.Proxy // the nth is between node and server n
	nodes   []*node
	people  []*person
	dialing chan struct{} // a place in it is the permission to dial, so that a crowd does not time out
	senders []*sender
	named   int // senders, and messages of the command line, so far

	mu   sync.Mutex
	bad  int            // guarded by mu; what went wrong
	ends map[string]int // guarded by mu; connections that ended, by how, since the phase began
}

// found starts everything but the nodes.
func found(t *testing.T) *town {
	t.Helper()
	w := &town{t: t, crowd: crowd(*flagClients), dialing: make(chan struct{}, 32), ends: make(map[string]int)}
	w.servers = natsserver.StartCluster(t, nodes, natsserver.Hidden)
	for i, s := range w.servers {
		w.proxies = append(w.proxies, natsserver.NewProxy(t, s.Address()))
		w.nodes = append(w.nodes, newNode(t, i, w.proxies[i].URL()))
	}
	for i := range *flagClients {
		w.people = append(w.people, &person{book: newBook(w.crowd, i, w.wrong), town: w, home: w.nodes[i%nodes]})
	}
	return w
}

// open starts a node, lets its clients come, and senders begin.
func (w *town) open(n *node) {
	w.t.Helper()
	n.start()
	w.connect(n)
	for range 2 {
		w.named++
		w.senders = append(w.senders, &sender{town: w, node: n, id: w.named})
	}
}

// connect lets the clients of a node come.
func (w *town) connect(n *node) {
	w.t.Helper()
	var dialing sync.WaitGroup
	for _, p := range w.people {
		if p.home != n {
			continue
		}
		dialing.Go(func() {
			w.dialing <- struct{}{}
			defer func() { <-w.dialing }()
			if err := p.connect(); err != nil {
				w.wrong("connecting client %d to %s: %v", p.i, n, err)
			}
		})
	}
	dialing.Wait()
	w.must("everybody comes back")
}

// close lets everybody go. It comes before the nodes end.
func (w *town) close() {
	for _, n := range w.nodes {
		n.ending.Store(true)
	}
	for _, p := range w.people {
		p.hangUp()
	}
}

// wrong fails the test. It says what is wrong a few times, and may be called by anybody.
func (w *town) wrong(format string, args ...any) {
	const few = 20
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.bad++; w.bad <= few {
		w.t.Errorf(format, args...)
	} else {
		w.t.Fail()
	}
}

// must ends the test if something went wrong: what follows would say nothing new.
func (w *town) must(what string) {
	w.t.Helper()
	if w.t.Failed() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.t.Fatalf("%s: %d errors", what, w.bad)
	}
}

// ended notes the end of a connection.
func (w *town) ended(p *person, err error) {
	if !p.home.ending.Load() {
		w.wrong("client %d lost its connection to %s: %v", p.i, p.home, err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ends[ending(err)]++
}

// running returns the nodes that are up.
func (w *town) running() []*node {
	return slices.DeleteFunc(slices.Clone(w.nodes), func(n *node) bool { return !n.up })
}

// others returns the nodes that are up, but for one.
func (w *town) others(but *node) []*node {
	return slices.DeleteFunc(w.running(), func(n *node) bool { return n == but })
}

// connected returns who is.
func (w *town) connected() []*person {
	return slices.DeleteFunc(slices.Clone(w.people), func(p *person) bool { return p.now() == "" })
}

// await waits until check finds nothing wrong, and returns how long it took; if that is too
// long, what is wrong is an error.
func (w *town) await(within time.Duration, check func() string) time.Duration {
	w.t.Helper()
	began := time.Now()
	for {
		wrong := check()
		took := time.Since(began)
		if wrong == "" {
			return took
		}
		if took > within {
			w.t.Fatalf("after %s: %s", took.Round(time.Millisecond), wrong)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// counts tells what is wrong with what nodes say of how many clients there are.
func (w *town) counts(of []*node) string {
	want := len(w.connected())
	for _, n := range of {
		var got gateway.Reach
		if err := n.get("/count", &got); err != nil || got.Clients != want || len(got.Missing) > 0 {
			return fmt.Sprintf("%s counts %+v (%v), want %d", n, got, err, want)
		}
	}
	return ""
}

// agree waits until all nodes show the same clients and groups: those that there are.
func (w *town) agree() time.Duration {
	w.t.Helper()
	return w.await(patience, func() string {
		wrong := w.counts(w.running())
		for _, n := range w.running() {
			if wrong == "" {
				wrong = w.lists(n)
			}
		}
		return wrong
	})
}

// lists tells what is wrong with a node's lists, read page by page.
func (w *town) lists(n *node) string {
	groups, ids := make(map[string]int), make(map[string]bool)
	for _, p := range w.connected() {
		groups[groupName(w.crowd.group(p.i))]++
		groups[hallName(hall(p.i))]++
		ids[p.now()] = true
	}
	seen := make(map[string]int)
	for cursor := ""; ; {
		var page gateway.NameList
		if err := n.get("/groups?limit=10&cursor="+url.QueryEscape(cursor), &page); err != nil || len(page.Missing) > 0 {
			return fmt.Sprintf("%s lists groups without %v (%v)", n, page.Missing, err)
		}
		for _, g := range page.Names {
			if seen[g.Name] > 0 {
				return fmt.Sprintf("%s lists %s on two pages", n, g.Name)
			}
			seen[g.Name] = g.Clients
		}
		if cursor = page.Next; cursor == "" {
			break
		}
	}
	if !maps.Equal(seen, groups) {
		return fmt.Sprintf("%s lists the groups %v, want %v", n, seen, groups)
	}
	listed := 0
	for cursor := ""; ; {
		var page gateway.ClientList
		if err := n.get("/clients?limit=400&cursor="+url.QueryEscape(cursor), &page); err != nil || len(page.Missing) > 0 {
			return fmt.Sprintf("%s lists clients without %v (%v)", n, page.Missing, err)
		}
		for _, c := range page.Clients {
			if !ids[c.ID] {
				return fmt.Sprintf("%s lists %s twice, or nobody has that id", n, c.ID)
			}
			delete(ids, c.ID)
			listed++
		}
		if cursor = page.Next; cursor == "" {
			break
		}
	}
	if len(ids) > 0 {
		return fmt.Sprintf("%s lists %d clients and leaves out %d", n, listed, len(ids))
	}
	return ""
}

// recovered waits until messages of all senders reach everybody, and everybody is where the
// others believe.
func (w *town) recovered(within time.Duration) time.Duration {
	w.t.Helper()
	began := time.Now()
	var reaching sync.WaitGroup
	for _, s := range w.senders {
		reaching.Go(func() {
			if !s.reach(began.Add(within)) {
				w.wrong("messages through %s do not reach everybody after %s", s.node, time.Since(began).Round(time.Millisecond))
			}
		})
	}
	reaching.Wait()
	w.must("messages reach everybody")
	w.await(max(0, within-time.Since(began)), func() string { return w.counts(w.running()) })
	return time.Since(began)
}

// told has a node say what it knows of the others.
func (w *town) told(n *node) httpapi.Nodes {
	w.t.Helper()
	var known httpapi.Nodes
	if err := n.get("/nodes", &known); err != nil {
		w.t.Fatalf("%s: %v", n, err)
	}
	return known
}
