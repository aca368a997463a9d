package gateway_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"github.com/caddy-websocket/caddy-websocket/gateway"
	"github.com/caddy-websocket/caddy-websocket/gateway/gatewaytest"
)

// modelClient is what a client should be like, kept by the one goroutine that
// changes it.
type modelClient struct {
	client  *gateway.Client
	conn    *gatewaytest.Client
	user    string
	groups  map[string]bool
	session map[string]any
	gone    bool
}

// step does one random thing to the client and to the model.
func (m *modelClient) step(t *testing.T, g *gateway.Gateway, r *rand.Rand) {
	pick := func(kind string) string { return fmt.Sprint(kind, r.IntN(5)) }
	me := gateway.Clients(m.client.ID())
	var n int
	var err error
	switch r.IntN(9) {
	case 0:
		group := pick("g")
		err = m.client.Join(group)
		m.groups[group] = true
	case 1:
		group := pick("g")
		n, err = g.Join(me, group)
		m.groups[group] = true
	case 2:
		group := pick("g")
		n, err = g.Leave(me, group)
		delete(m.groups, group)
	case 3:
		m.user = pick("u")
		err = m.client.Bind(m.user)
	case 4:
		m.user = pick("u")
		n, err = g.Bind(me, m.user)
	case 5:
		n, err = g.Unbind(me)
		m.user = ""
	case 6:
		key := pick("k")
		m.session[key] = float64(r.IntN(100))
		n, err = g.UpdateSession(me, map[string]any{key: m.session[key]})
	case 7:
		key := pick("k")
		delete(m.session, key)
		n, err = g.UpdateSession(me, map[string]any{key: nil})
	case 8:
		if r.IntN(20) > 0 {
			return
		}
		n, err = g.Close(me, 4000, "")
		m.gone = true
	}
	if err != nil || n > 1 {
		t.Errorf("reached %d, %v", n, err)
	}
}

// Random operations of many goroutines against a plain model of each client:
// nobody is lost, nobody is in a list that he should not be in, and a message to
// a group or a user reaches its members once.
func TestRegistryAgreesWithAPlainModel(t *testing.T) {
	const clients, steps = 40, 300
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	logic := &gatewaytest.Recorder{}
	s := gatewaytest.ServeLogic(t, logic)
	g := s.Gateway

	models := make([]*modelClient, clients)
	for i := range models {
		conn := s.Dial("/test")
		models[i] = &modelClient{
			conn: conn, client: logic.Client(t, i),
			groups: make(map[string]bool), session: make(map[string]any),
		}
	}
	var changing, reading sync.WaitGroup
	done := make(chan struct{})
	for range 2 { // readers see only what is possible, at any moment
		reading.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
					checkLists(t, g)
				}
			}
		})
	}
	for i, m := range models {
		changing.Go(func() {
			r := rand.New(rand.NewPCG(seed, uint64(i)))
			for range steps {
				if m.gone {
					return
				}
				m.step(t, g, r)
			}
		})
	}
	changing.Wait()
	close(done)
	reading.Wait()
	compare(t, g, models)
}

// checkLists fails if a list names a client twice.
func checkLists(t *testing.T, g *gateway.Gateway) {
	list, err := g.Clients(t.Context(), gateway.Query{Group: "g1", Session: true})
	if err != nil {
		t.Error(err)
	}
	seen := make(map[string]bool)
	for _, c := range list.Clients {
		if seen[c.ID] {
			t.Errorf("client %s is listed twice", c.ID)
		}
		seen[c.ID] = true
	}
	if _, err := g.Groups(t.Context(), gateway.NameQuery{}); err != nil {
		t.Error(err)
	}
	if _, err := g.Count(t.Context(), gateway.Groups("g1", "g2")); err != nil {
		t.Error(err)
	}
}

func compare(t *testing.T, g *gateway.Gateway, models []*modelClient) {
	t.Helper()
	users, groups := make(map[string]int), make(map[string]int)
	alive := 0
	for _, m := range models {
		if m.gone {
			if g.Client(m.client.ID()) != nil {
				t.Errorf("client %s is closed and is found", m.client.ID())
			}
			continue
		}
		alive++
		if m.user != "" {
			users[m.user]++
		}
		for group := range m.groups {
			groups[group]++
		}
		info := m.client.Info(true)
		if info.User != m.user || !slices.Equal(info.Groups, slices.Sorted(maps.Keys(m.groups))) || fmt.Sprint(m.client.Session().All()) != fmt.Sprint(m.session) {
			t.Errorf("client is %+v, want user %q, groups %v, session %v", info, m.user, m.groups, m.session)
		}
	}
	wantCount(t, g, gateway.All(), alive)
	for name, want := range map[string]struct {
		list   func() (gateway.NameList, error)
		counts map[string]int
	}{
		"users":  {func() (gateway.NameList, error) { return g.Users(t.Context(), gateway.NameQuery{}) }, users},
		"groups": {func() (gateway.NameList, error) { return g.Groups(t.Context(), gateway.NameQuery{}) }, groups},
	} {
		list, err := want.list()
		got := make(map[string]int)
		for _, n := range list.Names {
			got[n.Name] = n.Clients
		}
		if err != nil || !maps.Equal(got, want.counts) {
			t.Errorf("%s are %v (%v), want %v", name, got, err, want.counts)
		}
	}
	for group, n := range groups {
		if reached, err := g.Send(gateway.Groups(group), gateway.Text(group)); reached != n || err != nil {
			t.Errorf("a message to %s reached %d (%v), want %d", group, reached, err, n)
		}
	}
	for _, m := range models {
		if m.gone {
			continue
		}
		got := make(map[string]bool)
		for range m.groups {
			message := m.conn.Receive()
			if got[message] {
				t.Errorf("received %s twice", message)
			}
			got[message] = true
		}
		if !maps.Equal(got, m.groups) {
			t.Errorf("received %v, want %v", got, m.groups)
		}
	}
}
