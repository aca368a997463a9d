package gateway_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/caddy-websocket/caddy-websocket/gateway"
)

// These tests back the table of docs/gatewayworker.md about the functions of Gateway:: and
// GatewayClient.

// Whoever ports a chat needs every way to send, and to know where the old program's
// assumptions end: how often a member of two groups hears it, and what a number means.
func TestGatewayWorkerSends(t *testing.T) {
	hit := gateway.Text("hit")
	send := func(to func(tn *town) gateway.Target) func(*town) (int, error) {
		return func(tn *town) (int, error) { return tn.Gateway.Send(to(tn), hit) }
	}
	carryOut(t, []order{
		{
			theirs: "sendToAll", want: 4, check: hears("ann", "bob1", "bob2", "cid"),
			inGo: send(func(*town) gateway.Target { return gateway.All() }),
			call: `POST /send {"to": {"all": true}, "text": "hit"}`,
		},
		{
			theirs: "sendToAll, a list", want: 2, check: hears("ann", "cid"),
			inGo: send(func(tn *town) gateway.Target { return gateway.Clients(tn.id("ann"), tn.id("cid")) }),
			call: `POST /send {"to": {"clients": ["{ann}", "{cid}"]}, "text": "hit"}`,
		},
		{
			theirs: "sendToAll, but some", want: 2, check: hears("bob1", "bob2"),
			inGo: send(func(tn *town) gateway.Target { return gateway.All().ExceptClients(tn.id("ann"), tn.id("cid")) }),
			call: `POST /send {"to": {"all": true, "except": {"clients": ["{ann}", "{cid}"]}}, "text": "hit"}`,
		},
		{
			theirs: "sendToClient", want: 1, check: hears("bob2"),
			inGo: send(func(tn *town) gateway.Target { return gateway.Clients(tn.id("bob2")) }),
			call: `POST /send {"to": {"clients": ["{bob2}"]}, "text": "hit"}`,
		},
		{ // fire and forget there, a number here
			theirs: "sendToClient, who is gone", want: 0, check: hears(),
			inGo: send(func(*town) gateway.Target { return gateway.Clients("7f000001326400000001") }),
			call: `POST /send {"to": {"clients": ["7f000001326400000001"]}, "text": "hit"}`,
		},
		{
			theirs: "sendToCurrentClient", want: 1, check: hears("ann"),
			inGo: func(tn *town) (int, error) { return 1, tn.Gateway.Client(tn.id("ann")).Send(hit) },
			call: `POST /send {"to": {"clients": ["{ann}"]}, "text": "hit"}`,
		},
		{
			theirs: "sendToUid", want: 2, check: hears("bob1", "bob2"),
			inGo: send(func(*town) gateway.Target { return gateway.Users("bob") }),
			call: `POST /send {"to": {"users": ["bob"]}, "text": "hit"}`,
		},
		{
			theirs: "sendToUid, several", want: 3, check: hears("bob1", "bob2", "cid"),
			inGo: send(func(*town) gateway.Target { return gateway.Users("bob", "cid") }),
			call: `POST /send {"to": {"users": ["bob", "cid"]}, "text": "hit"}`,
		},
		{
			theirs: "sendToGroup", want: 2, check: hears("ann", "bob1"),
			inGo: send(func(*town) gateway.Target { return gateway.Groups("x") }),
			call: `POST /send {"to": {"groups": ["x"]}, "text": "hit"}`,
		},
		{ // bob1 is in both, and GatewayWorker would tell him twice
			theirs: "sendToGroup, several", want: 4, check: hears("ann", "bob1", "bob2", "cid"),
			before: func(tn *town) {
				if err := tn.Gateway.Client(tn.id("bob1")).Join("y"); err != nil {
					tn.t.Fatal(err)
				}
			},
			inGo: send(func(*town) gateway.Target { return gateway.Groups("x", "y") }),
			call: `POST /send {"to": {"groups": ["x", "y"]}, "text": "hit"}`,
		},
		{
			theirs: "sendToGroup, but some", want: 1, check: hears("bob1"),
			inGo: send(func(tn *town) gateway.Target { return gateway.Groups("x").ExceptClients(tn.id("ann")) }),
			call: `POST /send {"to": {"groups": ["x"], "except": {"clients": ["{ann}"]}}, "text": "hit"}`,
		},
	})
}

// A client that was closed must learn why, after what was sent to it, and be gone for
// everybody else at once.
func TestGatewayWorkerCloses(t *testing.T) {
	gone := func(messages ...string) func(*town) {
		return func(tn *town) {
			tn.t.Helper()
			if tn.Gateway.Client(tn.id("ann")) != nil { // although its browser has not answered yet
				tn.t.Error("ann is still there")
			}
			wantCount(tn.t, tn.Gateway, gateway.All(), 3)
			tn.conns["ann"].Want(messages...)
			if reason := tn.conns["ann"].WantClose(gateway.CloseNormal); reason != "bye" {
				tn.t.Errorf("closed with %q", reason)
			}
		}
	}
	to := func(tn *town) gateway.Target { return gateway.Clients(tn.id("ann")) }
	closing := func(tn *town) (int, error) { return tn.Gateway.Close(to(tn), gateway.CloseNormal, "bye") }
	const call = `POST /close {"to": {"clients": ["{ann}"]}, "reason": "bye"}`
	carryOut(t, []order{
		{theirs: "closeClient", want: 1, inGo: closing, call: call, check: gone()},
		{
			theirs: "closeClient, with a message", want: 1, check: gone("hit"),
			inGo: func(tn *town) (int, error) {
				if _, err := tn.Gateway.Send(to(tn), gateway.Text("hit")); err != nil {
					return 0, err
				}
				return closing(tn)
			},
			call: `POST /batch {"commands": [{"send": {"to": {"clients": ["{ann}"]}, "text": "hit"}},
				{"close": {"to": {"clients": ["{ann}"]}, "reason": "bye"}}]}`,
		},
		{
			theirs: "closeCurrentClient", want: 1, check: gone(), call: call,
			inGo: func(tn *town) (int, error) {
				return 1, tn.Gateway.Client(tn.id("ann")).Close(gateway.CloseNormal, "bye")
			},
		},
		{theirs: "destoryClient", want: 1, inGo: closing, call: call, check: gone()},
	})
}

// Who is there decides whether a program sends now or keeps it for later.
func TestGatewayWorkerPresence(t *testing.T) {
	putQuestions(t, []question{
		ask("isOnline", infoOf("{ann}"), `GET /clients/{ann}`,
			func(tn *town, c gateway.ClientInfo) any { return c.ID == tn.id("ann") }, true),
		ask("isOnline, in one number", func(tn *town, g *gateway.Gateway) (count, error) {
			return countOf(gateway.Clients(tn.id("ann"), "nobody"))(tn, g)
		}, `GET /count?client={ann}&client=nobody`, func(_ *town, n count) any { return n.Clients }, 1),
		ask("isUidOnline", countOf(gateway.Users("bob")), `GET /count?user=bob`,
			func(_ *town, n count) any { return n.Clients }, 2),
		ask("isUidOnline, who is not", countOf(gateway.Users("zoe")), `GET /count?user=zoe`,
			func(_ *town, n count) any { return n.Clients }, 0),
		ask("isUidsOnline", usersOf, `GET /users`, func(_ *town, list gateway.NameList) any {
			names := namesOf(list)
			return []bool{slices.Contains(names, "ann"), slices.Contains(names, "zoe")}
		}, []bool{true, false}),
	})
	for way, do := range map[string]func(*town) error{
		"Go":   func(tn *town) error { _, err := infoOf("nobody")(tn, tn.Gateway); return err },
		"HTTP": func(tn *town) error { return tn.push(`GET /clients/nobody`, &struct{}{}) },
	} {
		const theirs = "isOnline, who is not"
		t.Run(theirs+"/"+way, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				if err := do(newTown(t)); !errors.Is(err, errUnknown) {
					t.Errorf("answered %v", err)
				}
			})
		})
	}
}

// A user is the same person on the phone and at the desk; a client has one user.
func TestGatewayWorkerUsers(t *testing.T) {
	is := func(who, user string, ofUser ...string) func(*town) {
		return func(tn *town) {
			tn.t.Helper()
			if got := tn.Gateway.Client(tn.id(who)).User(); got != user {
				tn.t.Errorf("%s is %q, want %q", who, got, user)
			}
			list, err := tn.Gateway.Clients(tn.t.Context(), gateway.Query{User: "bob"})
			if got := tn.whoAre(list); got != strings.Join(ofUser, " ") || err != nil {
				tn.t.Errorf("bob is %q (%v), want %q", got, err, ofUser)
			}
		}
	}
	carryOut(t, []order{
		{ // in place of the user that she was
			theirs: "bindUid", want: 1, check: is("ann", "bob", "ann", "bob1", "bob2"),
			inGo: func(tn *town) (int, error) { return tn.Gateway.Bind(gateway.Clients(tn.id("ann")), "bob") },
			call: `POST /bind {"to": {"clients": ["{ann}"]}, "user": "bob"}`,
		},
		{
			theirs: "unbindUid", want: 1, check: is("bob1", "", "bob2"),
			inGo: func(tn *town) (int, error) { return tn.Gateway.Unbind(gateway.Clients(tn.id("bob1"))) },
			call: `POST /unbind {"to": {"clients": ["{bob1}"]}}`,
		},
	})
	who := func(tn *town, list gateway.ClientList) any { return tn.whoAre(list) }
	putQuestions(t, []question{
		ask("getClientIdByUid", listOf(gateway.Query{User: "bob"}), `GET /clients?user=bob`, who, "bob1 bob2"),
		ask("batchGetClientIdByUid", listOf(gateway.Query{}), `GET /clients`, func(tn *town, list gateway.ClientList) any {
			ids := make(map[string][]string)
			for _, c := range list.Clients {
				ids[c.User] = append(ids[c.User], c.ID)
			}
			return []string{tn.whos(ids["bob"]), tn.whos(ids["cid"])}
		}, []string{"bob1 bob2", "cid"}),
		ask("getUidByClientId", infoOf("{bob2}"), `GET /clients/{bob2}`, func(_ *town, c gateway.ClientInfo) any { return c.User }, "bob"),
		ask("getAllUidList", usersOf, `GET /users`, func(_ *town, list gateway.NameList) any { return namesOf(list) }, []string{"ann", "bob", "cid"}),
		ask("getAllUidCount", usersOf, `GET /users`, func(_ *town, list gateway.NameList) any { return len(list.Names) }, 3),
		ask("getAllUidCount, without the names", func(_ *town, g *gateway.Gateway) (gateway.Stats, error) { return g.Stats(), nil },
			`GET /stats`, func(_ *town, s gateway.Stats) any { return s.Users }, 3),
	})
}

// Rooms are groups.
func TestGatewayWorkerGroups(t *testing.T) {
	members := func(group string, who ...string) func(*town) {
		return func(tn *town) {
			tn.t.Helper()
			list, err := tn.Gateway.Clients(tn.t.Context(), gateway.Query{Group: group})
			if got := tn.whoAre(list); got != strings.Join(who, " ") || err != nil {
				tn.t.Errorf("in %s are %q (%v), want %q", group, got, err, who)
			}
		}
	}
	carryOut(t, []order{
		{
			theirs: "joinGroup", want: 1, check: members("0", "ann"), // a name like any other here
			inGo: func(tn *town) (int, error) { return tn.Gateway.Join(gateway.Clients(tn.id("ann")), "0") },
			call: `POST /join {"to": {"clients": ["{ann}"]}, "groups": ["0"]}`,
		},
		{
			theirs: "leaveGroup", want: 1, check: members("x", "bob1"),
			inGo: func(tn *town) (int, error) { return tn.Gateway.Leave(gateway.Clients(tn.id("ann")), "x") },
			call: `POST /leave {"to": {"clients": ["{ann}"]}, "groups": ["x"]}`,
		},
		{
			theirs: "ungroup", want: 2, check: members("x"),
			inGo: func(tn *town) (int, error) { return tn.Gateway.Leave(gateway.Groups("x"), "x") },
			call: `POST /leave {"to": {"groups": ["x"]}, "groups": ["x"]}`,
		},
	})
	const inX, all = `GET /clients?group=x`, `GET /clients`
	x, everybody := listOf(gateway.Query{Group: "x"}), listOf(gateway.Query{})
	user := func(c gateway.ClientInfo) string { return c.User }
	id := func(tn *town) func(gateway.ClientInfo) string {
		return func(c gateway.ClientInfo) string { return tn.whos([]string{c.ID}) }
	}
	withSessions := ask("getClientSessionsByGroup", listOf(gateway.Query{Group: "x", Session: true}), `GET /clients?group=x&fields=session`, sessions,
		map[string]string{"ann": `{"name":"Ann"}`, "bob1": "{}"})
	withSessions.before = setName
	putQuestions(t, []question{
		withSessions,
		ask("getClientIdListByGroup", x, inX, func(tn *town, list gateway.ClientList) any { return tn.whoAre(list) }, "ann bob1"),
		ask("getClientIdCountByGroup", countOf(gateway.Groups("x")), `GET /count?group=x`, func(_ *town, n count) any { return n.Clients }, 2),
		ask("batchGetClientIdCountByGroup", groupsOf, `GET /groups`, func(_ *town, list gateway.NameList) any { return list.Names },
			[]gateway.NameCount{{Name: "x", Clients: 2}, {Name: "y", Clients: 2}}),
		ask("getUidListByGroup", x, inX, func(_ *town, list gateway.ClientList) any { return users(list) }, []string{"ann", "bob"}),
		ask("getUidCountByGroup", x, inX, func(_ *town, list gateway.ClientList) any { return len(users(list)) }, 2),
		ask("getAllGroupIdList", groupsOf, `GET /groups`, func(_ *town, list gateway.NameList) any { return namesOf(list) }, []string{"x", "y"}),
		ask("getAllGroupUidList", everybody, all, func(_ *town, list gateway.ClientList) any { return byGroup(list, user) },
			map[string][]string{"x": {"ann", "bob"}, "y": {"bob", "cid"}}),
		ask("getAllGroupUidCount", everybody, all, func(_ *town, list gateway.ClientList) any { return counts(byGroup(list, user)) },
			map[string]int{"x": 2, "y": 2}),
		ask("getAllGroupClientIdList", everybody, all, func(tn *town, list gateway.ClientList) any { return byGroup(list, id(tn)) },
			map[string][]string{"x": {"ann", "bob1"}, "y": {"bob2", "cid"}}),
		ask("getAllGroupClientIdCount", groupsOf, `GET /groups`, func(_ *town, list gateway.NameList) any { return list.Names },
			[]gateway.NameCount{{Name: "x", Clients: 2}, {Name: "y", Clients: 2}}),
	})
}

// setName gives ann a session.
func setName(tn *town) {
	if err := tn.Gateway.Client(tn.id("ann")).Session().Set("name", "Ann"); err != nil {
		tn.t.Fatal(err)
	}
}

// sessions returns the sessions of a list, by name.
func sessions(tn *town, list gateway.ClientList) any {
	all := make(map[string]string)
	for _, c := range list.Clients {
		all[tn.whos([]string{c.ID})] = fmt.Sprint(c.Session)
	}
	return all
}

// A list of everybody is what a status page shows.
func TestGatewayWorkerLists(t *testing.T) {
	withSessions := ask("getAllClientSessions", listOf(gateway.Query{Session: true}), `GET /clients?fields=session`, sessions,
		map[string]string{"ann": `{"name":"Ann"}`, "bob1": "{}", "bob2": "{}", "cid": "{}"})
	withSessions.before = setName
	putQuestions(t, []question{
		withSessions,
		ask("getAllClientIdList", listOf(gateway.Query{}), `GET /clients`, func(tn *town, list gateway.ClientList) any { return tn.whoAre(list) }, "ann bob1 bob2 cid"),
		ask("getAllClientIdCount", countOf(gateway.All()), `GET /count`, func(_ *town, n count) any { return n.Clients }, 4),
	})
}

// A session that two programs write must not lose what one of them wrote, and a list in
// it is replaced, which array_replace_recursive does not do.
func TestGatewayWorkerSessions(t *testing.T) {
	has := func(want string) func(*town) {
		return func(tn *town) {
			tn.t.Helper()
			if got := fmt.Sprint(tn.Gateway.Client(tn.id("ann")).Session().All()); got != want {
				tn.t.Errorf("the session is %s, want %s", got, want)
			}
		}
	}
	start := func(tn *town) {
		if err := tn.Gateway.Client(tn.id("ann")).Session().Replace(map[string]any{
			"name": "Ann", "cart": map[string]any{"apples": 1, "pears": 2}, "tags": []string{"a", "b"},
		}); err != nil {
			tn.t.Fatal(err)
		}
	}
	ann := func(tn *town) gateway.Target { return gateway.Clients(tn.id("ann")) }
	carryOut(t, []order{
		{
			theirs: "setSession", before: start, want: 1, check: has("map[level:3]"),
			inGo: func(tn *town) (int, error) { return tn.Gateway.SetSession(ann(tn), map[string]any{"level": 3}) },
			call: `PUT /session {"to": {"clients": ["{ann}"]}, "session": {"level": 3}}`,
		},
		{
			theirs: "updateSession", before: start, want: 1, check: has("map[cart:map[apples:3] tags:[c]]"),
			inGo: func(tn *town) (int, error) {
				return tn.Gateway.UpdateSession(ann(tn), map[string]any{
					"name": nil, "cart": map[string]any{"apples": 3, "pears": nil}, "tags": []string{"c"},
				})
			},
			call: `PATCH /session {"to": {"clients": ["{ann}"]}, "session": {"name": null, "cart": {"apples": 3, "pears": null}, "tags": ["c"]}}`,
		},
		{ // another program writes one entry while the logic writes another
			theirs: "$_SESSION", want: 1, check: has("map[level:3 name:Ann]"),
			before: func(tn *town) {
				c := tn.Gateway.Client(tn.id("ann"))
				go func() { _ = c.Session().Set("name", "Ann") }()
				synctest.Wait()
			},
			inGo: func(tn *town) (int, error) { return 1, tn.Gateway.Client(tn.id("ann")).Session().Set("level", 3) },
			call: `PATCH /session {"to": {"clients": ["{ann}"]}, "session": {"level": 3}}`,
		},
	})
	read := ask("getSession", infoOf("{ann}"), `GET /clients/{ann}`, func(_ *town, c gateway.ClientInfo) any { return fmt.Sprint(c.Session) }, `{"name":"Ann"}`)
	read.before = setName
	putQuestions(t, []question{read})
}
