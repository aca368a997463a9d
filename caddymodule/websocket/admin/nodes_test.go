package admin_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/caddy-websocket/caddy-websocket/caddymodule/websocket/admin"
	"github.com/caddy-websocket/caddy-websocket/gateway"
	"github.com/caddy-websocket/caddy-websocket/gateway/gatewaytest"
)

// machine is a process with two gateways, of which default is joined with that of other
// machines.
type machine struct {
	t       testing.TB
	server  *gatewaytest.Server // of the gateway default
	other   *gatewaytest.Server
	address string
	node    string
}

// machines are two processes that know each other. On each is one client, who has
// joined group g and is user west or east.
func machines(t *testing.T) (b *gateway.MemoryBroker, west, east *machine) {
	t.Helper()
	b = gateway.NewMemoryBroker()
	t.Cleanup(b.Close)
	start := func(user string) *machine {
		logic := &gatewaytest.Recorder{Connect: func(c *gateway.Client, _ *http.Request) error {
			if err := c.Bind(user); err != nil {
				return err
			}
			return c.Join("g")
		}}
		serve := func(o gateway.Options) *gatewaytest.Server {
			o.Logger = gatewaytest.Logger(t)
			return gatewaytest.ServeOptions(t, o, gatewaytest.Endpoint(t, "test", gateway.EndpointOptions{Logic: logic}))
		}
		m := &machine{t: t, server: serve(gateway.Options{Broker: b}), other: serve(gateway.Options{Name: "other"})}
		m.node = m.server.Gateway.Node()
		api := httptest.NewServer(admin.NewAPI(map[string]*gateway.Gateway{"default": m.server.Gateway, "other": m.other.Gateway}))
		t.Cleanup(api.Close)
		m.address = api.Listener.Addr().String()
		m.dial()
		return m
	}
	west, east = start("west"), start("east")
	know(t, west, east)
	return b, west, east
}

// know waits until they know each other.
func know(t *testing.T, machines ...*machine) {
	t.Helper()
	for _, m := range machines {
		waitFor(t, "the nodes to know each other", func() bool {
			return len(m.server.Gateway.Nodes()) == len(machines) && m.server.Gateway.Stats().Cluster.Connected
		})
	}
}

// dial connects a client, who answers a close.
func (m *machine) dial() {
	m.t.Helper()
	c := m.server.Dial("/test")
	go func() {
		for {
			if _, _, err := c.Conn.ReadMessage(); err != nil {
				c.Cut()
				return
			}
		}
	}()
	waitFor(m.t, "the client to be there", func() bool { return m.server.Gateway.Stats().Clients == 1 })
}

func (m *machine) run(args ...string) outcome {
	m.t.Helper()
	return runCommand(m.t, "", append(args, "--address", m.address)...)
}

func (m *machine) want(args ...string) string {
	m.t.Helper()
	got := m.run(args...)
	if got.code != 0 || got.errs != "" {
		m.t.Fatalf("caddy websocket %s: %s", strings.Join(args, " "), got)
	}
	return got.out
}

// Whoever has logged in to one machine looks after all of them from there.
func TestCommandsAreForAllNodesAndNarrowedByNode(t *testing.T) {
	_, west, east := machines(t)
	nodes := strings.Split(west.want("nodes"), "\n")
	if got := strings.Join(strings.Fields(nodes[0]), " "); got != "GATEWAY NODE HOST CLIENTS SINCE SELF DRAINING" || len(nodes) != 5 {
		t.Fatalf("nodes are %q", nodes)
	}
	for i, want := range []string{"default " + west.node + " yes", "default " + east.node + " -", "other " + west.other.Gateway.Node() + " yes"} {
		if cells := strings.Fields(nodes[i+1]); fmt.Sprint(cells[0], " ", cells[1], " ", cells[len(cells)-2]) != want || cells[len(cells)-1] != "-" {
			t.Errorf("node %d is %q, want %q", i, cells, want)
		}
	}
	if got := west.want("nodes", "--gateway", "other"); strings.Contains(got, "GATEWAY") || strings.Count(got, "\n") != 2 {
		t.Errorf("of one gateway: %s", got)
	}
	if got := objects(t, east.want("nodes", "--json")); len(got) != 3 || got[0]["gateway"] != "default" || got[0]["node"] != east.node || got[0]["self"] != true || got[1]["node"] != west.node {
		t.Errorf("as JSON: %v", got)
	}

	host := fmt.Sprint(objects(t, west.want("nodes", "--json"))[0]["host"])
	rows := strings.Split(west.want("list"), "\n")
	if strings.Fields(rows[0])[1] != "NODE" || len(rows) != 4 {
		t.Errorf("the list is %q", rows)
	}
	for _, row := range rows[1 : len(rows)-1] {
		cells := strings.Fields(row)
		if want := map[string]string{"west": west.node, "east": east.node}[cells[4]]; cells[1] != want || !strings.HasPrefix(cells[0], want+"-") {
			t.Errorf("the row is %q, want node %s", row, want)
		}
	}
	for args, want := range map[string]string{
		"list --json --node self":                 "west",
		"list --json --node " + east.node:         "east",
		"list users --json --node " + east.node:   "east",
		"show --json " + idOf(t, west, east.node): "east",
	} {
		got := objects(t, west.want(strings.Fields(args)...))
		if len(got) != 1 || got[0]["user"] != want && got[0]["name"] != want {
			t.Errorf("%s: %v, want %s", args, got, want)
		}
	}
	for _, all := range []string{"all", host} {
		if got := west.want("list", "--node", all); !strings.HasPrefix(got, "ID") || !strings.Contains(got, "NODE") || strings.Count(got, "\n") != 3 {
			t.Errorf("list --node %s: %s", all, got)
		}
	}
	if got := west.want("list", "--node", east.node); strings.Contains(got, "NODE") {
		t.Errorf("with one node there is a column for it: %s", got)
	}
	if got := west.want("list", "groups"); got != "GROUP  CLIENTS\ng      2\n" {
		t.Errorf("groups: %q", got)
	}

	for args, want := range map[string]string{
		"--all": "2", "--all --node all": "2", "--group g --node self": "1", "--user east": "1", "--all --node " + east.node + " --node " + west.node: "2",
	} {
		if got := west.want(append([]string{"send", "--json", "x"}, strings.Fields(args)...)...); got != `{"clients":`+want+"}\n" {
			t.Errorf("send %s: %s, want %s", args, got, want)
		}
	}
	for _, line := range []string{"send --all --node nosuch x", "close --all --node nosuch", "list --node nosuch", "stats --node nosuch", "drain --node nosuch"} {
		got := west.run(strings.Fields(line)...)
		if got.code != 1 || got.out != "" || !strings.Contains(got.errs, `no node "nosuch" is known: there are `+west.node+" on "+host+" (self), "+east.node+" on "+host+" of gateway default, ") ||
			!strings.HasSuffix(got.errs, ", and all\n") {
			t.Errorf("%s: %s", line, got)
		}
	}

	if got := west.want("stats"); strings.Count(got, "gateway default, node ") != 2 || strings.Count(got, "gateway other, node ") != 1 {
		t.Errorf("stats:\n%s", got)
	}
	for args, want := range map[string][]any{
		"--node self":                     {west.node, west.other.Gateway.Node()},
		"--node self --gateway default":   {west.node},
		"--node " + east.node:             {east.node},
		"--node self --node " + west.node: {west.node, west.other.Gateway.Node()},
		"--node all --gateway other":      {west.other.Gateway.Node()},
	} {
		var ids []any
		for _, o := range objects(t, west.want(append([]string{"stats", "--json"}, strings.Fields(args)...)...)) {
			ids = append(ids, o["node"])
		}
		if !slices.Equal(ids, want) {
			t.Errorf("stats %s: %v, want %v", args, ids, want)
		}
	}
	if got := east.want("close", "--user", "west"); got != "1 client reached\n" {
		t.Errorf("close: %q", got)
	}
	waitFor(t, "the client to be gone", func() bool { return west.server.Gateway.Stats().Clients == 0 })
}

// idOf returns the id of the client of a node.
func idOf(t testing.TB, m *machine, node string) string {
	t.Helper()
	return fmt.Sprint(objects(t, m.want("list", "--json", "--node", node))[0]["id"])
}

// A script must not take what it sees of a broken cluster for all there is.
func TestWhatIsNotOfAllNodesIsExitCode3(t *testing.T) {
	b, west, east := machines(t)
	id := idOf(t, west, east.node)
	for _, at := range []map[string]string{ // all of a map at once: each waits
		{
			"list --json":        `"user":"west"`,
			"list groups":        "g      1",
			"send --all hello":   "1 client reached",
			"send --user east x": "",
			"stats":              "gateway default, node " + west.node,
			"show " + id:         "",
		},
		{"close --all --json": `{"clients":1,"missing":["` + east.node + `"]}`},
	} {
		b.Cut(east.node) // who is known for some seconds
		var all sync.WaitGroup
		for line, want := range at {
			all.Go(func() {
				got := west.run(strings.Fields(line)...)
				if line == "show "+id {
					if got.code != 1 || !strings.Contains(got.errs, "did not answer in time: "+east.node) {
						t.Errorf("show: %s", got)
					}
				} else if got.code != 3 || !strings.Contains(got.out, want) || !strings.HasSuffix(got.errs, ": no answer from: "+east.node+"\n") {
					t.Errorf("%s: %s", line, got)
				}
			})
		}
		all.Wait()
		b.Heal()
		know(t, west, east)
	}

	b.Cut(east.node)
	waitFor(t, "the link to be down", func() bool { return !east.server.Gateway.Stats().Cluster.Connected })
	for line, want := range map[string]string{
		"send --all x":                          "1 client reached\n",
		"send --user west x":                    "0 clients reached\n",
		"send --all --node " + west.node + " x": "0 clients reached\n",
		"send --user west --json x":             `{"clients":0,"missing":["` + west.node + `"],"local_only":true}` + "\n",
		"list users":                            "USER  CLIENTS\neast  1\n",
		"list --json --node " + west.node:       "",
		"stats":                                 "on its own: the broker cannot be reached",
		"stats --node " + west.node:             "",
		"drain --node " + west.node:             "node " + west.node + " was not asked: the broker cannot be reached\n",
		"drain --resume --node all":             "gateway default, node " + east.node + " accepts handshakes, 1 client connected\n",
	} {
		got := east.run(strings.Fields(line)...)
		if got.code != 3 || !strings.Contains(got.out, want) || !strings.HasSuffix(got.errs, ": the broker cannot be reached: other nodes were not asked: "+west.node+"\n") {
			t.Errorf("%s: %s", line, got)
		}
	}
	if got := east.run("show", west.node+"-x"); got.code != 1 || !strings.HasSuffix(got.errs, ": node "+west.node+" was not asked: the broker cannot be reached\n") {
		t.Errorf("show: %s", got)
	}
	if got := east.run("nodes"); got.code != 3 || strings.Count(got.out, "\n") != 4 || !strings.Contains(got.errs, "the broker cannot be reached") {
		t.Errorf("nodes: %s", got)
	}
	if got := east.want("stats", "--node", "self"); !strings.Contains(got, "on its own: the broker cannot be reached") {
		t.Errorf("stats:\n%s", got)
	}
}

// A machine is emptied from another one; a slip must not empty them all.
func TestDrainIsForOneNodeUnlessOthersAreNamed(t *testing.T) {
	b, west, east := machines(t)
	if got := west.want("drain", "--node", east.node); got != "gateway default, node "+east.node+" refuses handshakes, 0 clients left\n" {
		t.Errorf("drain of one: %q", got)
	}
	if west.server.Gateway.Draining() || west.other.Gateway.Draining() || east.other.Gateway.Draining() || !east.server.Gateway.Draining() {
		t.Error("another is drained")
	}
	waitFor(t, "it to be known", func() bool {
		n := objects(t, west.want("nodes", "--json"))
		return n[0]["draining"] == nil && n[1]["node"] == east.node && n[1]["draining"] == true && n[2]["draining"] == nil
	})
	if got := strings.Split(west.want("nodes"), "\n")[2]; !strings.HasSuffix(got, "  -     yes") {
		t.Errorf("a node that is drained is shown as %q", got)
	}
	// What is printed can be copied, whichever node it is about.
	undo := regexp.MustCompile("draining: .* until `caddy websocket (.*)`\n").FindAllStringSubmatch(west.want("stats"), -1)
	if len(undo) != 1 {
		t.Fatalf("stats say %q of a drained node", undo)
	}
	west.want(strings.Fields(undo[0][1])...)
	if east.server.Gateway.Draining() {
		t.Errorf("%s has not resumed it", undo[0][1])
	}
	west.want("drain", "--node", east.node)
	if got := west.want("drain", "--resume", "--node", east.node, "--gateway", "default"); got != "gateway default, node "+east.node+" accepts handshakes, 0 clients connected\n" {
		t.Errorf("resumed: %q", got)
	}
	east.dial()
	if got := west.want("drain"); got != "gateway default refuses handshakes, 0 clients left\ngateway other refuses handshakes, 0 clients left\n" {
		t.Errorf("drain: %q", got)
	}
	if east.server.Gateway.Draining() {
		t.Error("without --node, others are drained")
	}
	all := objects(t, west.want("drain", "--node", "all", "--json"))
	if len(all) != 3 || all[0]["node"] == all[1]["node"] || all[2]["gateway"] != "other" || !east.server.Gateway.Draining() || east.other.Gateway.Draining() {
		t.Errorf("drain of all: %v", all)
	}
	if got := west.want("drain", "--resume", "--node", "all"); strings.Count(got, "accepts handshakes") != 3 {
		t.Errorf("resumed: %q", got)
	}
	// Where a process has several gateways, its host is the one name for all of them.
	if got := west.want("drain", "--node", fmt.Sprint(objects(t, west.want("nodes", "--json"))[0]["host"])); strings.Count(got, "refuses handshakes") != 3 {
		t.Errorf("drain of a host: %q", got)
	}
	west.want("drain", "--resume", "--node", "all")
	b.Cut(east.node)
	if got := west.run("drain", "--timeout", "300ms", "--node", "all"); got.code != 3 || strings.Count(got.out, "refuses handshakes") != 2 || !strings.Contains(got.errs, "no answer from: "+east.node) {
		t.Errorf("with one that does not answer: %s", got)
	}
}

// Who looks at all nodes is told when he does not any more.
func TestTailSaysThatItHearsOneNodeOnly(t *testing.T) {
	b, west, east := machines(t)
	out, errs := &output{t: t}, &output{t: t}
	ctx, interrupt := context.WithCancel(t.Context())
	ended := make(chan int, 1)
	go func() {
		ended <- command(ctx, strings.NewReader(""), out, errs, "tail", "--address", west.address)
	}()
	errs.wait(1, "Ctrl-C ends this.")
	b.Cut(west.node)
	errs.wait(1, "no longer heard: "+east.node+"; the broker cannot be reached: only clients of the node that answers are shown\n")
	b.Heal()
	errs.wait(1, "heard from now on: "+east.node+"\n")
	east.server.Dial("/test")
	out.wait(1, "  connect  test  "+east.node+"-")
	interrupt()
	if code := <-ended; code != 0 {
		t.Errorf("interrupted, the exit code is %d: %s", code, errs)
	}
}
