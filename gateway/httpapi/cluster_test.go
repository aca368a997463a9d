package httpapi_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-websocket/caddy-websocket/gateway"
	"github.com/caddy-websocket/caddy-websocket/gateway/gatewaytest"
	"github.com/caddy-websocket/caddy-websocket/gateway/httpapi"
)

// towns are two nodes of one gateway, each with its API.
type towns struct {
	t          testing.TB
	broker     *gateway.MemoryBroker
	west, east *town
}

// newTowns has the people of newTown in the west. In the east is cyd, who is user 7,
// too, at /chat and in room:1, and dan, user 9, at /other and in secret.
func newTowns(t testing.TB, o httpapi.Options) *towns {
	t.Helper()
	b := gateway.NewMemoryBroker()
	t.Cleanup(b.Close)
	of := gateway.Options{Logger: gatewaytest.Logger(t), Broker: b}
	ts := &towns{t, b, emptyTown(t, of, o), emptyTown(t, of, o)}
	ts.west.populate()
	ts.east.connect("/chat?as=cyd&user=7&group=room:1")
	ts.east.connect("/other?as=dan&user=9&group=secret")
	synctest.Wait()
	ids := maps.Clone(ts.west.ids)
	maps.Copy(ids, ts.east.ids)
	ids["west"], ids["east"] = ts.west.Gateway.Node(), ts.east.Gateway.Node()
	ts.west.ids, ts.east.ids = ids, maps.Clone(ids)
	return ts
}

// took fails unless f takes so long.
func took(t testing.TB, want time.Duration, f func()) {
	t.Helper()
	start := time.Now()
	f()
	if d := time.Since(start); d != want {
		t.Errorf("it took %s, want %s", d, want)
	}
}

// host returns what nodes are told of this machine.
func host(t testing.TB) string {
	t.Helper()
	name, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	return name
}

// Ids are random and change with each restart: whoever looks after a machine knows its name.
func TestNodesAreNamedByIdOrByHost(t *testing.T) {
	nodes := []gateway.Node{{ID: "aaaaaaaa", Host: "ws1", Self: true}, {ID: "bbbbbbbb", Host: "ws2"}, {ID: "cccccccc", Host: "ws2"}, {ID: "dddddddd", Host: "aaaaaaaa"}, {ID: "eeeeeeee"}, {ID: "ffffffff", Host: "self"}}
	for name, want := range map[string]string{
		"self": "aaaaaaaa", "bbbbbbbb": "bbbbbbbb", "ws1": "aaaaaaaa", "ws2": "bbbbbbbb cccccccc",
		"aaaaaaaa": "aaaaaaaa", // an id comes before a host
		"all":      "aaaaaaaa bbbbbbbb cccccccc dddddddd eeeeeeee ffffffff",
		"":         "", "ws": "", "WS2": "",
	} {
		if got := strings.Join(httpapi.NodesNamed(nodes, name), " "); got != want {
			t.Errorf("%q is %q, want %q", name, got, want)
		}
	}
}

// A program talks to whichever node answers, and means everybody.
func TestEachNodeAnswersForAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ts := newTowns(t, httpapi.Options{})
		for _, tn := range []*town{ts.west, ts.east} {
			tn.listed("/clients", "ann", "bob1", "bob2", "eve", "cyd", "dan")
			tn.listed("/clients?user=7", "ann", "cyd")
			tn.listed("/clients?node={east}", "cyd", "dan")
			tn.listed("/clients?node={east}&node={west}&endpoint=other", "eve", "dan")
			for path, want := range map[string]string{
				"/users":                         `{"names": [{"name": "7", "clients": 2}, {"name": "8", "clients": 2}, {"name": "9", "clients": 1}, {"name": "eve", "clients": 1}]}`,
				"/users?node={east}":             `{"names": [{"name": "7", "clients": 1}, {"name": "9", "clients": 1}]}`,
				"/groups?limit=1":                `{"names": [{"name": "room:1", "clients": 4}], "next": "room:1"}`,
				"/groups?prefix=r&node={east}":   `{"names": [{"name": "room:1", "clients": 1}]}`,
				"/count":                         `{"clients": 6}`,
				"/count?node={west}":             `{"clients": 4}`,
				"/count?user=7&node={east}":      `{"clients": 1}`,
				"/count?client={cyd}":            `{"clients": 1}`,
				"/count?node={west}&node={east}": `{"clients": 6}`,
				"/count?node=all":                `{"clients": 6}`,
				"/count?node=" + host(t):         `{"clients": 6}`,
			} {
				tn.want(http.MethodGet, path, "", want)
			}
			for _, who := range []string{"ann", "cyd"} {
				var info gateway.ClientInfo
				got := tn.ask(http.MethodGet, "/clients/{"+who+"}", "")
				if err := json.Unmarshal([]byte(got.body), &info); err != nil || info.User != "7" || info.Session.Text("as") != who {
					t.Errorf("%s is %d %s (%v)", who, got.status, got.body, err)
				}
			}
			for _, several := range []string{"all", host(t)} {
				tn.listed("/clients?node="+several, "ann", "bob1", "bob2", "eve", "cyd", "dan")
				tn.want(http.MethodPost, "/send?wait=1s", `{"to": {"users": ["7"], "nodes": ["`+several+`"]}, "text": "hit"}`, `{"clients": 2}`)
				tn.refused(tn.ask(http.MethodGet, "/stats?node="+several, ""), http.StatusBadRequest, httpapi.CodeInvalidQuery, "is 2 nodes, and this is about one: allowed are ")
			}
			tn.refused(tn.ask(http.MethodGet, "/clients/{east}-x", ""), http.StatusNotFound, httpapi.CodeUnknownClient, "no client")
			for _, node := range []string{"west", "east"} {
				var s gateway.Stats
				got := tn.ask(http.MethodGet, "/stats?node={"+node+"}", "")
				if err := json.Unmarshal([]byte(got.body), &s); err != nil || s.Node != tn.id(node) || s.Clients != map[string]int{"west": 4, "east": 2}[node] {
					t.Errorf("the stats of %s are %d %s (%v)", node, got.status, got.body, err)
				}
			}
		}
		if a, b := ts.east.ask(http.MethodGet, "/clients?node=self", "").body, ts.east.ask(http.MethodGet, "/clients?node={east}", "").body; a != b {
			t.Errorf("self is %s, want %s", a, b)
		}
	})
}

// Without wait the number is that of the node that is asked, at once; with it, of all.
// Everybody is reached either way.
func TestCommandsReachAllNodesAndCountThemWithWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ts := newTowns(t, httpapi.Options{})
		for _, tt := range []struct{ path, to, want, west, east string }{
			{"/send", `{"all": true}`, `{"clients": 4}`, "ann bob1 bob2 eve", "cyd dan"},
			{"/send?wait=1s", `{"all": true}`, `{"clients": 6}`, "ann bob1 bob2 eve", "cyd dan"},
			{"/send?wait=1s", `{"users": ["7"]}`, `{"clients": 2}`, "ann", "cyd"},
			{"/send?wait=30s", `{"groups": ["room:1"], "except": {"clients": ["{cyd}", "{ann}"]}}`, `{"clients": 2}`, "bob1 eve", ""},
			{"/send?wait=1s", `{"clients": ["{dan}"]}`, `{"clients": 1}`, "", "dan"},
			{"/send", `{"clients": ["{dan}"]}`, `{"clients": 0}`, "", "dan"},
			{"/send?wait=1ms", `{"all": true, "nodes": ["{east}"]}`, `{"clients": 2}`, "", "cyd dan"},
			{"/send?wait=1s", `{"all": true, "nodes": ["self"], "endpoints": ["chat"]}`, `{"clients": 3}`, "ann bob1 bob2", ""},
			{"/send?wait=1s", `{"users": ["nobody"]}`, `{"clients": 0}`, "", ""},
		} {
			took(t, 0, func() { ts.west.want(http.MethodPost, tt.path, `{"to": `+tt.to+`, "text": "hit"}`, tt.want) })
			synctest.Wait()
			ts.west.wantReceived("hit", strings.Fields(tt.west)...)
			ts.east.wantReceived("hit", strings.Fields(tt.east)...)
		}
		ts.west.want(http.MethodPost, "/batch?wait=1s", `{"commands": [
			{"join": {"to": {"users": ["7"]}, "groups": ["new"]}},
			{"send": {"to": {"groups": ["new"]}, "text": "hit"}},
			{"update_session": {"to": {"users": ["7"], "nodes": ["nowhere"]}, "session": {"a": 1}}}]}`,
			`{"results": [{"clients": 2}, {"clients": 2}, {"error": {"code": "unknown_node", "message": "no node \"nowhere\" is known: there are {west} on `+host(t)+` (self), {east} on `+host(t)+` of gateway default, and all"}}]}`)
		ts.west.wantReceived("hit", "ann")
		ts.east.wantReceived("hit", "cyd")
	})
}

// Who pushes to a machine that has just died is told which one, no later than he
// said; and whatever is known is shown.
func TestNodesThatDoNotAnswerAreNamed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ts := newTowns(t, httpapi.Options{})
		ts.broker.Cut(ts.east.Gateway.Node())
		synctest.Wait()
		missing := ts.west.fill(`"missing": ["{east}"]}`)
		took(t, 500*time.Millisecond, func() {
			ts.west.want(http.MethodPost, "/send?wait=500ms", `{"to": {"all": true}, "text": "a"}`, `{"clients": 4, `+missing)
		})
		took(t, 100*time.Millisecond, func() { // one deadline for all, and all are done
			ts.west.want(http.MethodPost, "/batch?wait=100ms", `{"commands": [{"join": {"to": {"all": true}, "groups": ["b"]}}, {"leave": {"to": {"all": true}, "groups": ["b"]}}]}`,
				`{"results": [{"clients": 4, `+missing+`, {"clients": 4, `+missing+`]}`)
		})
		took(t, 0, func() {
			ts.west.want(http.MethodPost, "/send?wait=1s", `{"to": {"clients": ["{ann}"]}, "text": "a"}`, `{"clients": 1}`)
			ts.west.want(http.MethodPost, "/send", `{"to": {"all": true}, "text": "a"}`, `{"clients": 4}`)
			ts.west.want(http.MethodGet, "/count?node=self", "", `{"clients": 4}`)
		})
		took(t, gateway.AnswerTimeout, func() { ts.west.want(http.MethodGet, "/count", "", `{"clients": 4, `+missing) })
		ts.broker.Heal()
		synctest.Wait()
		ts.broker.Cut(ts.east.Gateway.Node())
		ts.west.listed("/clients", "ann", "bob1", "bob2", "eve")
		if got := ts.west.ask(http.MethodGet, "/clients", ""); !strings.Contains(got.body, `"missing":["`+ts.east.Gateway.Node()) {
			t.Errorf("the list does not say who is missing: %s", got.body)
		}
		ts.broker.Heal()
		synctest.Wait()
		ts.broker.Cut(ts.east.Gateway.Node())
		for _, path := range []string{"/clients/{cyd}", "/stats?node={east}"} {
			took(t, gateway.AnswerTimeout, func() {
				ts.west.refused(ts.west.ask(http.MethodGet, path, ""), http.StatusGatewayTimeout, httpapi.CodeNoAnswer, ts.east.Gateway.Node())
			})
		}
	})
}

// A program must not repeat what was done, and may want to know that it was not
// done everywhere.
func TestNodeThatIsCutOffSaysThatItWasAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ts := newTowns(t, httpapi.Options{Replay: httpapi.NewReplay(httpapi.ReplayOptions{})})
		ts.broker.Cut(ts.east.Gateway.Node())
		synctest.Wait()
		ts.east.want(http.MethodPost, "/send", `{"to": {"all": true}, "text": "a"}`, `{"clients": 2, "local_only": true}`)
		ts.east.wantReceived("a", "cyd", "dan")
		took(t, 0, func() {
			ts.east.want(http.MethodPost, "/send?wait=9s", `{"to": {"all": true}, "text": "b"}`, `{"clients": 2, "missing": ["{west}"], "local_only": true}`)
		})
		ts.east.wantReceived("b", "cyd", "dan")
		ts.east.want(http.MethodPost, "/batch", `{"commands": [{"join": {"to": {"all": true}, "groups": ["x"]}}, {"join": {"to": {"clients": ["{cyd}"]}, "groups": ["x"]}}]}`,
			`{"results": [{"clients": 2, "local_only": true}, {"clients": 1}]}`)
		for _, path := range []string{"/send", "/send?wait=1s"} { // who is here is not done less
			ts.east.want(http.MethodPost, path, `{"to": {"clients": ["{dan}"]}, "text": "c"}`, `{"clients": 1}`)
			ts.east.wantReceived("c", "dan")
		}
		for range 2 {
			got := ts.east.ask(http.MethodPost, "/unbind", `{"to": {"users": ["9"]}}`, "Idempotency-Key: k")
			if got.body != `{"clients":1,"local_only":true}`+"\n" {
				t.Errorf("with a key: %d %s", got.status, got.body)
			}
		}
		ts.broker.Heal()
		synctest.Wait()
		ts.east.want(http.MethodPost, "/send?wait=1s", `{"to": {"all": true}, "text": "d"}`, `{"clients": 6}`)
	})
}

// A list that is not all must not be taken for one that is, and nobody blames a node that
// was never asked.
func TestListsOfANodeThatIsCutOffSaySo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ts := newTowns(t, httpapi.Options{Operator: true})
		ts.broker.Cut()
		synctest.Wait()
		tn := ts.east
		const alone = `"missing": ["{west}"], "local_only": true}`
		took(t, 0, func() {
			for path, want := range map[string]string{
				"/users":               `{"names": [{"name": "7", "clients": 1}, {"name": "9", "clients": 1}], ` + alone,
				"/groups?node={west}":  `{"names": [], ` + alone,
				"/clients?node={west}": `{"clients": [], ` + alone,
				"/count":               `{"clients": 2, ` + alone,
				"/count?client={ann}":  `{"clients": 0, ` + alone,
				"/count?client={cyd}":  `{"clients": 1}`,
				"/count?node=self":     `{"clients": 2}`,
				"/groups?node=self":    `{"names": [{"name": "room:1", "clients": 1}, {"name": "secret", "clients": 1}]}`,
			} {
				tn.want(http.MethodGet, path, "", tn.fill(want))
			}
			const notAsked = "node {west} was not asked: the broker cannot be reached"
			for _, path := range []string{"/clients/{ann}", "/stats?node={west}"} {
				tn.refused(tn.ask(http.MethodGet, path, ""), http.StatusGatewayTimeout, httpapi.CodeNoAnswer, tn.fill(notAsked))
			}
			tn.want(http.MethodPost, "/resume?node={west}", "", tn.fill(`{"nodes": [{"node": "{west}", "draining": false, "clients": 0, "error": {"code": "no_answer", "message": "`+notAsked+`"}}], "local_only": true}`))
			tn.want(http.MethodPost, "/resume?node=self", "", tn.fill(`{"nodes": [{"node": "{east}", "draining": false, "clients": 2}]}`))
		})
		lonely := emptyTown(t, gateway.Options{Logger: gatewaytest.Logger(t), Broker: ts.broker}, httpapi.Options{Operator: true})
		synctest.Wait()
		lonely.want(http.MethodGet, "/count", "", `{"clients": 0, "local_only": true}`)
		lonely.want(http.MethodGet, "/users", "", `{"names": [], "local_only": true}`)
		lonely.want(http.MethodPost, "/resume?node=all", "", `{"nodes": [{"node": "`+lonely.Gateway.Node()+`", "draining": false, "clients": 0}], "local_only": true}`)
	})
}

// A limit holds on whatever node the client is, and who asked is told with wait, also
// if something else went wrong on the way.
func TestLimitsOfOtherNodesAreConflicts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ts := newTowns(t, httpapi.Options{})
		fill := func(c *gateway.Client) {
			for i := len(c.Groups()); i < gateway.MaxGroupsPerClient; i++ {
				if err := c.Join(fmt.Sprint("g", i)); err != nil {
					t.Fatal(err)
				}
			}
		}
		fill(ts.east.client("cyd"))
		const join = `{"to": {"users": ["7"]}, "groups": ["one more"]}`
		ts.west.want(http.MethodPost, "/join", join, `{"clients": 1}`)
		got := ts.west.ask(http.MethodPost, "/join?wait=1s", join)
		ts.west.refused(got, http.StatusConflict, httpapi.CodeLimitExceeded, "node "+ts.east.Gateway.Node()+": ")
		if !strings.Contains(got.body, `"clients":1`) {
			t.Errorf("how many were reached is not in %s", got.body)
		}
		fill(ts.west.client("ann"))
		ts.broker.Cut(ts.west.Gateway.Node())
		synctest.Wait()
		for _, query := range []string{"", "?wait=1s"} {
			got = ts.west.ask(http.MethodPost, "/join"+query, `{"to": {"users": ["7", "8"]}, "groups": ["another"]}`)
			ts.west.refused(got, http.StatusConflict, httpapi.CodeLimitExceeded, "1000")
			if !strings.Contains(got.body, `"clients":2`) || !strings.Contains(got.body, `"local_only":true`) || strings.Contains(got.body, "this node only") {
				t.Errorf("cut off: %s", got.body)
			}
		}
	})
}

// An answer that is remembered is that of the same question.
func TestWaitBelongsToWhatAKeyIsFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ts := newTowns(t, httpapi.Options{Replay: httpapi.NewReplay(httpapi.ReplayOptions{})})
		for range 2 {
			got := ts.west.ask(http.MethodPost, "/send?wait=1s", toAnn, "Idempotency-Key: k")
			if got.body != "{\"clients\":2}\n" {
				t.Errorf("answered %d %s", got.status, got.body)
			}
		}
		for _, path := range []string{"/send", "/send?wait=2s"} {
			ts.west.refused(ts.west.ask(http.MethodPost, path, toAnn, "Idempotency-Key: k"), http.StatusUnprocessableEntity, httpapi.CodeKeyReused, "another request")
		}
		synctest.Wait()
		ts.west.wantReceived("once", "ann")
		ts.east.wantReceived("once", "cyd")
	})
}

// Who may reach one endpoint learns nothing of others, on whatever node they are.
func TestAllowedEndpointsHoldOnAllNodes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ts := newTowns(t, httpapi.Options{Endpoints: []string{"chat"}})
		tn := ts.west
		tn.listed("/clients", "ann", "bob1", "bob2", "cyd")
		tn.listed("/clients?endpoint=other")
		tn.listed("/clients?node={east}", "cyd")
		tn.want(http.MethodGet, "/count", "", `{"clients": 4}`)
		tn.want(http.MethodGet, "/count?client={dan}", "", `{"clients": 0}`)
		tn.want(http.MethodGet, "/groups?node={east}", "", `{"names": [{"name": "room:1", "clients": 1}]}`)
		tn.want(http.MethodGet, "/users?prefix=9", "", `{"names": []}`)
		tn.refused(tn.ask(http.MethodGet, "/clients/{dan}", ""), http.StatusNotFound, httpapi.CodeUnknownClient, "no client")
		tn.want(http.MethodPost, "/send?wait=1s", `{"to": {"all": true, "nodes": ["{east}"]}, "text": "hit"}`, `{"clients": 1}`)
		tn.want(http.MethodPost, "/close?wait=1s", `{"to": {"clients": ["{dan}"]}}`, `{"clients": 0}`)
		tn.want(http.MethodPost, "/join?wait=1s", `{"to": {"groups": ["secret"], "endpoints": ["other"]}, "groups": ["x"]}`, `{"clients": 0}`)
		ts.east.wantReceived("hit", "cyd")
		var s gateway.Stats
		got := tn.ask(http.MethodGet, "/stats?node={east}", "")
		if err := json.Unmarshal([]byte(got.body), &s); err != nil || len(s.Endpoints) != 1 || s.Clients != 1 || s.Users != 1 || s.Groups != 1 {
			t.Errorf("stats are %s (%v)", got.body, err)
		}
		if got := tn.ask(http.MethodGet, "/nodes", ""); strings.Contains(got.body, "clients") || !strings.Contains(got.body, tn.id("east")) {
			t.Errorf("nodes are %s", got.body)
		}
	})
}

// An operator sees which machines there are, and whether they see each other.
func TestNodesAreListed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, err := document()
		if err != nil {
			t.Fatal(err)
		}
		nodes := func(tn *town) httpapi.Nodes {
			t.Helper()
			var n httpapi.Nodes
			got := tn.ask(http.MethodGet, "/nodes", "")
			wantSchema(t, got.body, under(t, d, "components", "schemas", "Nodes"), "GET /nodes")
			if err := json.Unmarshal([]byte(got.body), &n); err != nil {
				t.Fatal(err)
			}
			return n
		}
		if n := nodes(newTown(t, httpapi.Options{})); len(n.Nodes) != 1 || n.Connected != nil || *n.Nodes[0].Clients != 4 || !n.Nodes[0].Self {
			t.Errorf("without a broker: %+v", n)
		}
		ts := newTowns(t, httpapi.Options{})
		time.Sleep(1500 * time.Millisecond)
		n := nodes(ts.east)
		if len(n.Nodes) != 2 || n.Nodes[0].ID != ts.east.Gateway.Node() || !n.Nodes[0].Self || *n.Nodes[0].Clients != 2 ||
			n.Nodes[1].ID != ts.west.Gateway.Node() || n.Nodes[1].Self || *n.Nodes[1].Clients != 4 || n.Nodes[1].Since.IsZero() || !*n.Connected {
			t.Errorf("in the east: %+v", n)
		}
		ts.broker.Cut()
		time.Sleep(time.Minute)
		if n := nodes(ts.west); len(n.Nodes) != 2 || *n.Connected {
			t.Errorf("cut off: %+v", n)
		}
		if _, err := ts.west.Gateway.Send(gateway.All(), gateway.Text("x")); err == nil {
			t.Error("nothing was cut")
		}
	})
}

// Whoever follows one client, or all, should not have to know on which machine it is.
func TestTailShowsWhatHappensOnOtherNodes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ts := newTowns(t, httpapi.Options{Operator: true})
		c := ts.west.overHTTP()
		all, _ := ts.west.tail(c, "?messages=true")
		west, _ := ts.west.tail(c, "?node=self")
		cyd, _ := ts.west.tail(c, "?client={cyd}&messages=true")
		synctest.Wait()
		ts.east.conns["cyd"].Send("hello")
		all.want("message chat text 5 <nil> <nil> <nil>")
		cyd.want("message chat text 5 <nil> <nil> <nil>")
		ts.east.connect("/other?as=new")
		all.want("connect other <nil> <nil> <nil> <nil> <nil>")
		ts.west.connect("/chat?as=newer")
		west.want("connect chat <nil> <nil> <nil> <nil> <nil>")
		if _, resp := ts.west.tail(c, "?node=nowhere"); resp.StatusCode != http.StatusNotFound {
			t.Errorf("the tail of no node is answered with %s", resp.Status)
		}
	})
}

// A tail of all nodes that has lost one shows nothing of it, and looks as if nothing happened
// there.
func TestTailSaysWhichNodesItHearsNoMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ts := newTowns(t, httpapi.Options{Operator: true})
		c, east := ts.west.overHTTP(), ts.east.Gateway.Node()
		all, _ := ts.west.tail(c, "")
		cyd, _ := ts.west.tail(c, "?client={cyd}")
		dan, _ := ts.west.tail(c, "?node={east}&client={dan}")
		here, _ := ts.west.tail(c, "?node=self")
		ann, _ := ts.west.tail(c, "?client={ann}")
		others := []*tail{all, cyd, dan}
		want := func(l *tail, want string) {
			t.Helper()
			if got := fmt.Sprint(l.next()); got != want {
				t.Errorf("the line is %s, want %s", got, want)
			}
		}
		ts.broker.Cut(ts.west.Gateway.Node())
		for _, l := range others {
			want(l, "map[local_only:true missing:["+east+"]]")
		}
		late, _ := ts.west.tail(c, "")
		want(late, "map[local_only:true missing:["+east+"]]") // what it is for it does not hear
		late.hang()
		ts.broker.Heal()
		for _, l := range others {
			want(l, "map[joined:["+east+"]]")
		}
		ts.broker.Cut(ts.east.Gateway.Node()) // the broker still answers here: five seconds later it is lost
		for _, l := range others {
			want(l, "map[missing:["+east+"]]")
		}
		for _, l := range []*tail{here, ann} {
			if v := l.next(); v["heartbeat"] == nil {
				t.Errorf("a tail of this node says %v", v)
			}
		}
	})
}
