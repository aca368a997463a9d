package gateway_test

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/caddy-websocket/caddy-websocket/gateway"
	"github.com/caddy-websocket/caddy-websocket/gateway/gatewaytest"
)

// town is a gateway with two endpoints and clients of known names.
type town struct {
	*gatewaytest.Server
	t     *testing.T
	conns map[string]*gatewaytest.Client
	ids   map[string]string
}

// newTown connects ann and bob (twice, as bob1 and bob2) to /a and cid to /b;
// ann and bob1 are in group x, bob2 and cid in group y.
func newTown(t *testing.T) *town {
	tn := &town{t: t, conns: make(map[string]*gatewaytest.Client), ids: make(map[string]string)}
	var mu sync.Mutex
	logic := &gatewaytest.Recorder{Connect: func(c *gateway.Client, r *http.Request) error {
		q := r.URL.Query()
		mu.Lock()
		tn.ids[q.Get("as")] = c.ID()
		mu.Unlock()
		if err := c.Bind(q.Get("user")); err != nil {
			return err
		}
		return c.Join(q.Get("group"))
	}}
	tn.Server = gatewaytest.Serve(t,
		gatewaytest.Endpoint(t, "a", gateway.EndpointOptions{Logic: logic}),
		gatewaytest.Endpoint(t, "b", gateway.EndpointOptions{Logic: logic}))
	for _, who := range []struct{ path, as, user, group string }{
		{"/a", "ann", "ann", "x"}, {"/a", "bob1", "bob", "x"}, {"/a", "bob2", "bob", "y"}, {"/b", "cid", "cid", "y"},
	} {
		tn.conns[who.as] = tn.Dial(fmt.Sprintf("%s?as=%s&user=%s&group=%s", who.path, who.as, who.user, who.group))
	}
	return tn
}

func (tn *town) id(who string) string { return tn.ids[who] }

// wantReached sends to a target and fails unless exactly these received it, once.
func (tn *town) wantReached(to gateway.Target, who ...string) {
	tn.t.Helper()
	n, err := tn.Gateway.Send(to, gateway.Text("hit"))
	if err != nil || n != len(who) {
		tn.t.Fatalf("sending to %+v reached %d (%v), want %d", to, n, err, len(who))
	}
	if _, err := tn.Gateway.Send(gateway.All(), gateway.Text("end")); err != nil {
		tn.t.Fatal(err)
	}
	for name, c := range tn.conns {
		if slices.Contains(who, name) {
			c.Want("hit")
		}
		c.Want("end")
	}
}

func TestTargetReachesEachClientOnce(t *testing.T) {
	for _, tt := range []struct {
		name string
		to   func(tn *town) gateway.Target
		want string
	}{
		{"all", func(*town) gateway.Target { return gateway.All() }, "ann bob1 bob2 cid"},
		{"all of an endpoint", func(*town) gateway.Target { return gateway.All().In("b") }, "cid"},
		{"a client", func(tn *town) gateway.Target { return gateway.Clients(tn.id("bob2")) }, "bob2"},
		{"a client named twice", func(tn *town) gateway.Target { return gateway.Clients(tn.id("ann"), tn.id("ann")) }, "ann"},
		{"a user", func(*town) gateway.Target { return gateway.Users("bob") }, "bob1 bob2"},
		{"a group", func(*town) gateway.Target { return gateway.Groups("y") }, "bob2 cid"},
		{"two groups", func(*town) gateway.Target { return gateway.Groups("x", "y") }, "ann bob1 bob2 cid"},
		{"a union that overlaps", func(tn *town) gateway.Target {
			return gateway.Target{Clients: []string{tn.id("bob1")}, Users: []string{"bob"}, Groups: []string{"x"}}
		}, "ann bob1 bob2"},
		{"except a client", func(tn *town) gateway.Target { return gateway.Groups("x").ExceptClients(tn.id("ann")) }, "bob1"},
		{"except a user", func(*town) gateway.Target { return gateway.All().ExceptUsers("bob", "cid") }, "ann"},
		{"narrowed and excepted", func(*town) gateway.Target { return gateway.Groups("y").In("a").ExceptUsers("cid") }, "bob2"},
		{"nobody has that name", func(*town) gateway.Target { return gateway.Users("zoe") }, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tn := newTown(t)
				tn.wantReached(tt.to(tn), strings.Fields(tt.want)...)
			})
		})
	}
}

// A program that computes its targets must not reach everybody by mistake.
func TestEmptyTargetIsAnErrorForEveryCommand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newTown(t).Gateway
		nobody := gateway.Target{Endpoints: []string{"a"}, Except: gateway.Except{Users: []string{"bob"}}}
		for name, command := range map[string]func() (int, error){
			"Send":          func() (int, error) { return g.Send(nobody, gateway.Text("x")) },
			"Close":         func() (int, error) { return g.Close(nobody, 1000, "") },
			"Join":          func() (int, error) { return g.Join(nobody, "g") },
			"Leave":         func() (int, error) { return g.Leave(nobody, "g") },
			"Bind":          func() (int, error) { return g.Bind(nobody, "u") },
			"Unbind":        func() (int, error) { return g.Unbind(nobody) },
			"SetSession":    func() (int, error) { return g.SetSession(nobody, nil) },
			"UpdateSession": func() (int, error) { return g.UpdateSession(nobody, nil) },
			"Count": func() (int, error) {
				reach, err := g.Count(t.Context(), nobody)
				return reach.Clients, err
			},
		} {
			if n, err := command(); n != 0 || !errors.Is(err, gateway.ErrEmptyTarget) {
				t.Errorf("%s reached %d with %v, want ErrEmptyTarget", name, n, err)
			}
		}
		if err := (gateway.Target{All: true, Users: []string{"bob"}}).Validate(); err == nil {
			t.Error("all beside users is taken")
		}
	})
}

func TestCommandsChangeWhoIsAddressed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tn := newTown(t)
		g := tn.Gateway
		reached := func(n int, err error) int {
			t.Helper()
			if err != nil {
				t.Error(err)
			}
			return n
		}
		if n := reached(g.Join(gateway.Users("bob"), "z", "x")); n != 2 {
			t.Errorf("Join reached %d, want 2", n)
		}
		tn.wantReached(gateway.Groups("z"), "bob1", "bob2")
		reached(g.Leave(gateway.Groups("z"), "x"))
		tn.wantReached(gateway.Groups("x"), "ann")
		reached(g.Bind(gateway.Clients(tn.id("bob2")), "ann"))
		tn.wantReached(gateway.Users("ann"), "ann", "bob2")
		reached(g.Unbind(gateway.Users("ann")))
		tn.wantReached(gateway.Users("ann"))
		wantCount(t, g, gateway.Users("bob"), 1)
		reached(g.SetSession(gateway.All(), map[string]any{"a": 1, "b": map[string]any{"c": true, "d": 2}}))
		reached(g.UpdateSession(gateway.Users("cid"), map[string]any{"a": nil, "b": map[string]any{"c": nil, "e": "x"}}))
		list, err := g.Clients(t.Context(), gateway.Query{User: "cid", Session: true})
		if err != nil || len(list.Clients) != 1 {
			t.Fatalf("listed %v (%v), want one client", list, err)
		}
		if got, want := fmt.Sprint(list.Clients[0].Session), `{"b":{"d":2,"e":"x"}}`; got != want {
			t.Errorf("session %s, want %s", got, want)
		}
		if n := reached(g.Close(gateway.Groups("y"), 4000, "out")); n != 2 {
			t.Errorf("Close reached %d, want 2", n)
		}
		wantCount(t, g, gateway.All(), 2) // at once, not when the peers have answered
		tn.conns["cid"].WantClose(4000)
		tn.conns["bob2"].WantClose(4000)
	})
}

func TestListsArePagedInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tn := newTown(t)
		g := tn.Gateway
		var seen []string
		for cursor, pages := "", 0; ; pages++ {
			list, err := g.Clients(t.Context(), gateway.Query{Page: gateway.Page{Limit: 3, Cursor: cursor}})
			if err != nil || pages > 1 {
				t.Fatalf("page %d: %v", pages, err)
			}
			for _, c := range list.Clients {
				seen = append(seen, c.ID)
			}
			if cursor = list.Next; cursor == "" {
				break
			}
		}
		if want := slices.Sorted(maps.Values(tn.ids)); !slices.Equal(seen, want) {
			t.Errorf("listed %v, want %v", seen, want)
		}
		groups, err := g.Groups(t.Context(), gateway.NameQuery{})
		if got := fmt.Sprint(groups.Names); err != nil || got != "[{x 2} {y 2}]" {
			t.Errorf("groups %s (%v)", got, err)
		}
		users, err := g.Users(t.Context(), gateway.NameQuery{Prefix: "b"})
		if got := fmt.Sprint(users.Names); err != nil || got != "[{bob 2}]" {
			t.Errorf("users %s (%v)", got, err)
		}
		within, err := g.Groups(t.Context(), gateway.NameQuery{Endpoints: []string{"b"}})
		if got := fmt.Sprint(within.Names); err != nil || got != "[{y 1}]" {
			t.Errorf("groups with clients of b: %s (%v)", got, err)
		}
		synctest.Wait() // the last one may just have been answered
		if st := g.Stats("b"); st.Clients != 1 || st.Users != 1 || st.Groups != 1 || len(st.Endpoints) != 1 {
			t.Errorf("stats of b are %+v", st)
		}
		if _, err := g.Groups(t.Context(), gateway.NameQuery{Page: gateway.Page{Limit: -1}}); err == nil {
			t.Error("a negative limit is taken")
		}
	})
}

func TestClientIDsNameTheirNodeAndFitAURL(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tn := newTown(t)
		for who, id := range tn.ids {
			node, rest, _ := strings.Cut(id, "-")
			if node != tn.Gateway.Node() || len(rest) < 26 || strings.Trim(id, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
				t.Errorf("client %s has id %q on node %q", who, id, tn.Gateway.Node())
			}
			if c := tn.Gateway.Client(id); c == nil || c.ID() != id {
				t.Errorf("client %s is not found by its id", who)
			}
		}
	})
}

// Order must hold however a client is addressed.
func TestOrderHoldsOverAnyMixtureOfTargets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tn := newTown(t)
		targets := []gateway.Target{
			gateway.All(), gateway.Users("ann"), gateway.Groups("x"), gateway.Clients(tn.id("ann")), gateway.Groups("x", "y"),
		}
		const messages = 500
		go func() {
			for i := range messages {
				if _, err := tn.Gateway.Send(targets[rand.IntN(len(targets))], gateway.Text(fmt.Sprint(i))); err != nil {
					t.Error(err)
				}
			}
		}()
		for i := range messages {
			tn.conns["ann"].Want(fmt.Sprint(i))
		}
	})
}

func TestNamesAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := gatewaytest.ServeLogic(t, nil)
		conn := c.Dial("/test")
		_ = conn
		id, err := c.Gateway.Clients(t.Context(), gateway.Query{})
		if err != nil {
			t.Fatal(err)
		}
		client := c.Gateway.Client(id.Clients[0].ID)
		for name, bad := range map[string]string{"empty": "", "long": strings.Repeat("x", gateway.MaxNameLength+1), "not UTF-8": "\xff"} {
			if client.Join(bad) == nil || client.Bind(bad) == nil || client.Session().Set(bad, 1) == nil {
				t.Errorf("a name that is %s is taken", name)
			}
		}
		if err := client.Join(strings.Repeat("x", gateway.MaxNameLength)); err != nil {
			t.Error(err)
		}
		many := make([]string, gateway.MaxGroupsPerClient)
		for i := range many {
			many[i] = fmt.Sprint("g", i)
		}
		if client.Join(many...) == nil {
			t.Error("more groups than allowed are joined")
		}
		if n := len(client.Groups()); n != 1 {
			t.Errorf("a refused Join left the client in %d groups, want 1", n)
		}
		if err := client.Join(many[1:]...); err != nil {
			t.Error(err)
		}
	})
}

func TestClientKnowsItsGroups(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tn := newTown(t)
		ann := tn.Gateway.Client(tn.id("ann"))
		if !ann.In("x") || ann.In("y") || !slices.Equal(ann.Groups(), []string{"x"}) {
			t.Errorf("ann is in %v, in x: %v, in y: %v", ann.Groups(), ann.In("x"), ann.In("y"))
		}
		if err := ann.SendJSON(map[string]int{"a": 1}); err != nil {
			t.Error(err)
		}
		tn.conns["ann"].Want(`{"a":1}`)
		if err := ann.SendJSON(func() {}); err == nil {
			t.Error("a function is taken for JSON")
		}
	})
}
