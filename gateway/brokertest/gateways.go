package brokertest

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddy-websocket/caddy-websocket/gateway"
	"github.com/caddy-websocket/caddy-websocket/gateway/gatewaytest"
)

// RunGateways shows that gateways are one over a broker: commands, questions, order and the
// lives of nodes. open is called for every test, for a fleet of its own. in calls the body
// of a test; nil just calls it. In a testing/synctest bubble time-outs take no time. Brokers
// must keep more than 4 MiB for a node that is held up, the parts of the longest message.
func RunGateways(t *testing.T, in func(*testing.T, func(*testing.T)), open func(t *testing.T) Fleet) {
	if in == nil {
		in = func(t *testing.T, body func(*testing.T)) { body(t) }
	}
	for _, tt := range gatewayTests {
		t.Run(tt.name, func(t *testing.T) {
			in(t, func(t *testing.T) { tt.test(newCluster(t, peers(t, open(t), tt.nodes))) })
		})
	}
}

// gatewayTests are what gateways do together over any broker.
var gatewayTests = []struct {
	name  string
	nodes int
	test  func(c *cluster)
}{
	{"EveryTargetReachesEachRecipientOnce", 3, targetsReachEachOnce},
	{"CommandsReachClientsOfOtherNodes", 3, commandsReachOtherNodes},
	{"QuestionsGatherFromAllNodes", 3, questionsGather},
	{"ListsArePagedOverAllNodes", 3, listsArePaged},
	{"MessagesOfOneSenderStayInOrder", 3, ordered},
	{"LongMessagesArriveWholeAndInOrder", 2, longMessages},
	{"JoinWaitLeavesNoGap", 2, joinWaitLeavesNoGap},
	{"ErrorsOfOtherNodesComeBack", 2, errorsComeBack},
	{"ANodeThatShutsDownLeaves", 3, nodeLeaves},
	{"AnotherBrokerTakesOver", 2, anotherBrokerTakesOver},
}

func targetsReachEachOnce(c *cluster) {
	c.populate()
	targets := []struct {
		name string
		to   gateway.Target
		want string
	}{
		{"all", gateway.All(), "ann bob1 bob2 cid dan"},
		{"all of an endpoint", gateway.All().In("b"), "bob2 dan"},
		{"a user on two nodes", gateway.Users("bob"), "bob1 bob2"},
		{"a group on two nodes", gateway.Groups("x"), "ann bob1 dan"},
		{"two groups with the same members", gateway.Groups("x", "y"), "ann bob1 bob2 dan"},
		{"a user and his group", gateway.Target{Users: []string{"bob", "cid"}, Groups: []string{"y"}}, "bob1 bob2 cid dan"},
		{"a client", gateway.Clients(c.who("@cid")...), "cid"},
		{"clients on all nodes", gateway.Clients(c.who("@ann", "@cid", "@dan", "@dan")...), "ann cid dan"},
		{"all but a client", gateway.All().ExceptClients(c.who("@cid")...), "ann bob1 bob2 dan"},
		{"a group but a user", gateway.Groups("y").ExceptUsers("bob"), "dan"},
		{"all on a node", gateway.All().OnNodes(c.node(1)), "bob2 cid"},
		{"a group on two of three nodes", gateway.Groups("x").OnNodes(c.node(0), c.node(2)), "ann bob1 dan"},
		{"nobody", gateway.Users("nobody"), ""},
		{"an id of no node", gateway.Clients("nonsense", "aaaaaaaa-bbbb", "*.>-x"), ""},
	}
	for i, tt := range targets {
		for from := range c.nodes {
			text := fmt.Sprintf("%d from %d", i, from)
			if _, err := c.nodes[from].Gateway.Send(tt.to, gateway.Text(text)); err != nil {
				c.t.Fatalf("%s: %v", tt.name, err)
			}
			c.wantReached(from, text, strings.Fields(tt.want)...)
			reach, err := c.nodes[from].Gateway.Count(c.context(), tt.to)
			if want := len(strings.Fields(tt.want)); err != nil || reach.Clients != want || reach.Missing != nil {
				c.t.Errorf("%s from node %d: counted %+v (%v), want %d", tt.name, from, reach, err, want)
			}
		}
	}
}

// doAll does a command, and fails unless it reaches so many clients on all nodes.
func (c *cluster) doAll(from int, command gateway.Command, want int) {
	c.t.Helper()
	reach, err := c.nodes[from].Gateway.DoWait(c.context(), &command)
	if err != nil || reach.Clients != want || reach.Missing != nil {
		c.t.Errorf("%+v reached %+v (%v), want %d", command, reach, err, want)
	}
}

func commandsReachOtherNodes(c *cluster) {
	c.populate()
	info := func(as string) gateway.ClientInfo {
		c.t.Helper()
		got, err := c.nodes[0].Gateway.ClientInfo(c.context(), c.id(as), true)
		if err != nil {
			c.t.Fatalf("asking for %s: %v", as, err)
		}
		return got
	}
	c.doAll(0, gateway.Command{Join: &gateway.GroupsCommand{To: gateway.Users("bob", "dan"), Groups: []string{"new", "newer"}}}, 3)
	if got := info("dan").Groups; !slices.Equal(got, []string{"new", "newer", "x", "y"}) {
		c.t.Errorf("dan is in %v", got)
	}
	c.doAll(1, gateway.Command{Leave: &gateway.GroupsCommand{To: gateway.Groups("newer"), Groups: []string{"newer"}}}, 3)
	c.doAll(2, gateway.Command{Send: &gateway.SendCommand{To: gateway.Groups("new"), JSON: []byte(`{"a":1}`)}}, 3)
	c.wantReached(2, `{"a":1}`, "bob1", "bob2", "dan")
	c.doAll(2, gateway.Command{Bind: &gateway.BindCommand{To: gateway.Clients(c.who("@cid")...), User: "eve"}}, 1)
	if got := info("cid").User; got != "eve" {
		c.t.Errorf("cid is user %q", got)
	}
	c.doAll(0, gateway.Command{Unbind: &gateway.UnbindCommand{To: gateway.Users("eve")}}, 1)
	c.doAll(0, gateway.Command{UpdateSession: &gateway.SessionCommand{To: gateway.Users("dan"), Session: map[string]any{"n": uint64(9007199254740993), "as": nil}}}, 1)
	if got := info("dan").Session.String(); got != `{"n":9007199254740993}` {
		c.t.Errorf("dan's session is %s", got)
	}
	c.doAll(1, gateway.Command{SetSession: &gateway.SessionCommand{To: gateway.All(), Session: map[string]any{}}}, 5)
	if got := info("bob2"); len(got.Session) != 0 || got.User != "bob" || got.Endpoint != "b" {
		c.t.Errorf("bob2 is %+v", got)
	}
	if n, err := c.nodes[0].Gateway.Close(gateway.Clients(c.who("@dan", "@ann")...), 4001, "enough"); n != 1 || err != nil {
		c.t.Errorf("closing reached %d here (%v), want 1", n, err)
	}
	for _, as := range []string{"ann", "dan"} {
		if reason := c.conns[as].WantClose(4001); reason != "enough" {
			c.t.Errorf("%s was told %q", as, reason)
		}
		c.until(as+" is gone", func() bool {
			_, err := c.nodes[1].Gateway.ClientInfo(c.context(), c.id(as), false)
			return errors.Is(err, gateway.ErrUnknownClient)
		})
	}
}

func questionsGather(c *cluster) {
	c.populate()
	for from, n := range c.nodes {
		groups, err := n.Gateway.Groups(c.context(), gateway.NameQuery{})
		if got, want := fmt.Sprint(groups.Names), "[{x 3} {y 3}]"; err != nil || got != want || groups.Missing != nil {
			c.t.Errorf("node %d: groups are %v %v (%v), want %v", from, got, groups.Missing, err, want)
		}
		users, err := n.Gateway.Users(c.context(), gateway.NameQuery{Endpoints: []string{"a"}})
		if got, want := fmt.Sprint(users.Names), "[{ann 1} {bob 1} {cid 1}]"; err != nil || got != want {
			c.t.Errorf("node %d: users of a are %v (%v), want %v", from, got, err, want)
		}
		list, err := n.Gateway.Clients(c.context(), gateway.Query{User: "bob", Session: true})
		var names []string
		for _, client := range list.Clients {
			names = append(names, client.Session.Text("as"))
		}
		slices.Sort(names)
		if got := strings.Join(names, " "); err != nil || got != "bob1 bob2" || list.Next != "" {
			c.t.Errorf("node %d: bob is %s, next %q (%v)", from, got, list.Next, err)
		}
		list, err = n.Gateway.Clients(c.context(), gateway.Query{Group: "x", Nodes: []string{c.node(2)}})
		if err != nil || len(list.Clients) != 1 || list.Clients[0].ID != c.id("dan") {
			c.t.Errorf("node %d: of x, on node 2 are %+v (%v)", from, list, err)
		}
		c.until(fmt.Sprintf("node %d: the figures of all nodes have all clients", from), func() bool {
			// Who has just been let in is counted a moment later.
			all, missing, err := n.Gateway.AllStats(c.context(), nil)
			total := 0
			for _, s := range all {
				total += s.Clients
			}
			return err == nil && missing == nil && len(all) == len(c.nodes) && total == len(c.conns)
		})
		// Somebody typed a node wrong, or it is gone.
		reach, err := n.Gateway.Count(c.context(), gateway.All().OnNodes("nowhere1"))
		if err != nil || reach.Clients != 0 || !slices.Equal(reach.Missing, []string{"nowhere1"}) {
			c.t.Errorf("node %d: on no node are %+v (%v)", from, reach, err)
		}
	}
}

func listsArePaged(c *cluster) {
	const each = 7
	for n := range c.nodes {
		for i := range each {
			c.dial(n, fmt.Sprintf("c%d-%d", n, i), fmt.Sprintf("/a?group=g%d&group=all", i))
		}
	}
	c.settle()
	var ids []string
	for cursor := ""; ; {
		list, err := c.nodes[1].Gateway.Clients(c.context(), gateway.Query{Page: gateway.Page{Limit: 4, Cursor: cursor}})
		if err != nil || len(list.Clients) > 4 {
			c.t.Fatalf("a page has %d entries (%v)", len(list.Clients), err)
		}
		for _, client := range list.Clients {
			ids = append(ids, client.ID)
		}
		if cursor = list.Next; cursor == "" {
			break
		}
	}
	if len(ids) != each*len(c.nodes) || !slices.IsSorted(ids) || len(slices.Compact(ids)) != each*len(c.nodes) {
		c.t.Errorf("%d of %d were listed: %v", len(ids), each*len(c.nodes), ids)
	}
	var names []string
	for cursor := ""; ; {
		list, err := c.nodes[2].Gateway.Groups(c.context(), gateway.NameQuery{Prefix: "g", Page: gateway.Page{Limit: 2, Cursor: cursor}})
		if err != nil {
			c.t.Fatal(err)
		}
		for _, name := range list.Names {
			names = append(names, fmt.Sprintf("%s:%d", name.Name, name.Clients))
		}
		if cursor = list.Next; cursor == "" {
			break
		}
	}
	if got, want := strings.Join(names, " "), "g0:3 g1:3 g2:3 g3:3 g4:3 g5:3 g6:3"; got != want {
		c.t.Errorf("groups are %s, want %s", got, want)
	}
}

func ordered(c *cluster) {
	c.populate()
	targets := []gateway.Target{
		gateway.All(), gateway.Users("bob"), gateway.Groups("y"), gateway.Groups("x", "y"), gateway.Clients(c.who("@bob2")...),
		gateway.All().OnNodes(c.node(1)), gateway.Users("bob", "dan"), gateway.All().In("b"),
	}
	const rounds = 50
	for i := range rounds * len(targets) {
		if _, err := c.nodes[0].Gateway.Send(targets[i%len(targets)], gateway.Text(fmt.Sprint(i))); err != nil {
			c.t.Fatal(err)
		}
	}
	for i := range rounds * len(targets) { // he is meant by every one of them
		c.conns["bob2"].Want(fmt.Sprint(i))
	}
}

func longMessages(c *cluster) {
	c.dial(1, "ann", "/a?user=ann")
	c.settle()
	for _, size := range []int{1 << 10, 900 << 10, 1 << 20, 3<<20 + 1} {
		long := strings.Repeat("x", size)
		for _, text := range []string{long, "after"} {
			if _, err := c.nodes[0].Gateway.Send(gateway.Users("ann"), gateway.Text(text)); err != nil {
				c.t.Fatal(err)
			}
		}
		if got := c.conns["ann"].Receive(); got != long {
			c.t.Fatalf("of %d bytes %d came", size, len(got))
		}
		c.conns["ann"].Want("after")
	}
}

func joinWaitLeavesNoGap(c *cluster) {
	c.dial(1, "ann", "/a?user=ann")
	ann := c.nodes[1].Gateway.Client(c.id("ann"))
	for i := range 20 {
		group := fmt.Sprintf("group %d", i)
		if err := ann.JoinWait(c.context(), group); err != nil {
			c.t.Fatal(err)
		}
		if _, err := c.nodes[0].Gateway.Send(gateway.Groups(group), gateway.Text(group)); err != nil {
			c.t.Fatal(err)
		}
		c.conns["ann"].Want(group)
	}
}

func errorsComeBack(c *cluster) {
	c.dial(1, "ann", "/a?user=ann")
	c.settle()
	large := map[string]any{"x": strings.Repeat("x", gateway.MaxSessionSize)}
	reach, err := c.nodes[0].Gateway.DoWait(c.context(), &gateway.Command{UpdateSession: &gateway.SessionCommand{To: gateway.Users("ann"), Session: large}})
	if err == nil || !strings.Contains(err.Error(), "node "+c.node(1)) || reach.Clients != 0 {
		c.t.Errorf("a session that is too large reached %+v (%v), want an error of node %s", reach, err, c.node(1))
	}
	if _, err := c.nodes[0].Gateway.Clients(c.context(), gateway.Query{Page: gateway.Page{Limit: -1}}); err == nil {
		c.t.Error("a page of -1 is no error")
	}
}

func nodeLeaves(c *cluster) {
	c.populate()
	leaves := c.node(2)
	ended := make(chan error, 1)
	go func() { ended <- c.nodes[2].Gateway.Shutdown(c.context()) }()
	c.conns["dan"].WantClose(gateway.CloseGoingAway) // and answered, or it would be waited for
	if err := <-ended; err != nil {
		c.t.Fatal(err)
	}
	for _, n := range c.nodes[:2] {
		c.until("the node has left", func() bool { return slices.Contains(n.logic.seen(), leaves+" left") })
		if len(n.Gateway.Nodes()) != 2 {
			c.t.Errorf("nodes are %+v", n.Gateway.Nodes())
		}
		reach, err := n.Gateway.Count(c.context(), gateway.All())
		if err != nil || reach.Clients != 4 || reach.Missing != nil {
			c.t.Errorf("counted %+v (%v), want 4", reach, err)
		}
	}
}

// another is a broker with other settings that lead to the same place.
type another struct{ gateway.Broker }

func anotherBrokerTakesOver(c *cluster) {
	c.dial(1, "ann", "/a?user=ann&group=x")
	c.settle()
	n := c.nodes[1]
	stop := make(chan struct{})
	sent := make(chan int)
	go func() { // messages go on while the broker is changed
		i := 0
		for ; ; i++ {
			select {
			case <-stop:
				sent <- i
				return
			case <-time.After(time.Millisecond):
			}
			if _, err := c.nodes[0].Gateway.Send(gateway.Users("ann"), gateway.Text(fmt.Sprint(i))); err != nil {
				c.t.Errorf("sending %d: %v", i, err)
			}
		}
	}()
	for range 3 {
		time.Sleep(20 * time.Millisecond) // some are sent
		gen, err := n.Gateway.Prepare(gateway.Options{Logger: gatewaytest.Logger(c.t), Broker: &another{c.brokers[1].Broker}})
		if err != nil {
			c.t.Fatal(err)
		}
		for _, e := range c.endpoints(n.logic) {
			if err := gen.Add(e); err != nil {
				c.t.Fatal(err)
			}
		}
		if err := gen.Commit(); err != nil {
			c.t.Fatal(err)
		}
		defer gen.Close()
		if err := n.Gateway.Settle(c.context()); err != nil {
			c.t.Fatal(err)
		}
	}
	close(stop)
	total := <-sent
	if _, err := c.nodes[0].Gateway.Send(gateway.Users("ann"), gateway.Text("end")); err != nil {
		c.t.Fatal(err)
	}
	for last := -1; ; {
		text := c.conns["ann"].Receive()
		if text == "end" {
			if last != total-1 {
				c.t.Errorf("the last that came is %d of %d", last, total)
			}
			return
		}
		var i int
		if _, err := fmt.Sscan(text, &i); err != nil || i != last+1 {
			c.t.Fatalf("%q came after %d", text, last)
		}
		last = i
	}
}
