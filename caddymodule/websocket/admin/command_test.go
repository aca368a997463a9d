package admin_test

import (
	"context"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"
)

// A script that makes no sense must be told so at once, with a code of its own, and
// before anybody is closed.
func TestWrongUsageIsExitCode2(t *testing.T) {
	for _, tt := range []struct{ line, want string }{
		{"lst", `unknown command "lst": there are close, connect, drain, list, nodes, send, show, stats, tail`},
		{"list --nobody", "unknown flag: --nobody"},
		{"list people", "allowed are clients, users, groups"},
		{"list clients users", "allowed are clients, users, groups"},
		{"list users --ip 192.0.2.1", "list users knows no --ip"},
		{"list --prefix a", "list clients knows no --prefix"},
		{"list --limit -1", "--limit -1: allowed are"},
		{"list --limit many", "invalid argument"},
		{"list --address localhost:1-5", "allowed are host:port and unix//path"},
		{"show", "show needs one client id"},
		{"show a b", "show needs one client id"},
		{"stats all", `unexpected argument "all"`},
		{"send hello", "nobody is named: use --all, or --client, --user, --group"},
		{"send --endpoint /chat hello", "nobody is named"},
		{"send --all --user 7 hello", "name one or the other"},
		{"send --all", "found 0 arguments"},
		{"send --all hello world", "found 2 arguments"},
		{"send --all \xff", "not UTF-8"},
		{"close", "nobody is named"},
		{"close --all now", `unexpected argument "now"`},
		{"close --all --code 0", "--code 0: allowed are"},
		{"close --all --reason \xff", "not UTF-8"},
		{"tail /chat", `unexpected argument "/chat"`},
		{"tail --payload -1", "--payload -1"},
		{"drain --node all --node self", "--node all stands alone"},
		{"list --node all --node self", "--node all stands alone"},
		{"send --all --node all --node self hello", "--node all stands alone"},
		{"nodes all", `unexpected argument "all"`},
		{"list --node=", "--node: the name is empty"},
		{"stats --node=", "--node: the name is empty"},
		{"send --all --node= hello", "--node: the name is empty"},
		{"close --node self", "nobody is named"},
		{"close --all --endpoint=", "--endpoint: the name is empty"},
		{"close --all --except-user= --except-user 7", "--except-user: the name is empty"},
		{"send --user= hello", "--user: the name is empty"},
		{"list --endpoint=", "--endpoint: the name is empty"},
		{"drain now", `unexpected argument "now"`},
		{"drain --resume --restart", "--resume stands alone"},
		{"drain --resume --timeout 1s", "--resume stands alone"},
		{"drain --timeout 2h", "--timeout 2h0m0s: allowed are durations up to 1h"},
		{"connect", "needs one URL"},
		{"connect a b", "needs one URL"},
		{"connect example.com", "allowed are ws://host/path and wss://host/path"},
		{"connect ftp://example.com", "allowed are ws://host/path and wss://host/path"},
		{"connect ws:///chat", "names no host"},
		{"connect --raw --json ws://a", "name one or the other"},
		{"connect --ping -1s ws://a", "--ping -1s"},
		{"connect -H nonsense ws://a", "the form is 'Name: value'"},
		{"connect -H Upgrade:h2c ws://a", "the handshake has its own"},
		{"connect -H Sec-WebSocket-Key:a ws", "allowed are ws://host/path"},
		{"connect -H sec-websocket-protocol:a ws://a", "use --subprotocol"},
	} {
		got := runCommand(t, "", strings.Fields(tt.line)...)
		if got.code != 2 || got.out != "" || !strings.Contains(got.errs, tt.want) || !strings.Contains(got.errs, "\nTry: caddy websocket") {
			t.Errorf("caddy websocket %q: %s\nwant %s", tt.line, got, tt.want)
		}
	}
}

// Help is where people look first: each command has some, with examples.
func TestEachCommandHasHelpWithExamples(t *testing.T) {
	for _, name := range []string{"", "list", "show", "stats", "nodes", "send", "close", "tail", "drain", "connect"} {
		got := runCommand(t, "", slices.DeleteFunc([]string{name, "--help"}, func(s string) bool { return s == "" })...)
		if got.code != 0 || !strings.Contains(got.out, "Examples:\n  $ caddy websocket") || got.errs != "" {
			t.Errorf("caddy websocket %s --help: %s", name, got)
		}
	}
}

// What an operator sees first: who is there.
func TestListShowsClientsAsATable(t *testing.T) {
	s := start(t, twoGateways)
	if got := s.want("list"); !strings.HasPrefix(got, "ID  ENDPOINT  IP") || strings.Count(got, "\n") != 1 {
		t.Errorf("with nobody connected: %s", got)
	}
	s.dial("/echo?group=a&user=" + url.QueryEscape(unsafe))
	s.dial("/echo?user=tom")
	rows := strings.Split(s.want("list"), "\n")
	if len(rows) != 4 || rows[3] != "" {
		t.Fatalf("listed are %q", rows)
	}
	header := strings.Fields(rows[0])
	if want := []string{"ID", "ENDPOINT", "IP", "USER", "CONNECTED", "IN", "OUT", "QUEUE"}; !slices.Equal(header, want) {
		t.Errorf("the columns are %q, want %q", header, want)
	}
	all := objects(t, s.want("list", "--json"))
	for i, row := range rows[1:3] {
		cells := strings.Fields(row)
		user := map[any]string{"tom": "tom", unsafe: `\x1b[2J\u009b31m\r\nroot\u202e\u2028\x7f\x00`}[all[i]["user"]]
		if len(cells) != 9 || cells[0] != all[i]["id"] || cells[1] != "/echo" || cells[2] != "192.0.2.1" || cells[3] != user ||
			cells[5] != "1" || cells[6] != "1" || cells[7] != "0" {
			t.Errorf("the row is %q, the object %v", cells, all[i])
		}
	}
	for args, want := range map[string]int{
		"--user tom": 1, "--group a": 1, "--ip 192.0.2.1": 2, "--ip 192.0.2.2": 0, "--endpoint /echo": 2, "--endpoint /none": 0,
		"--gateway other": 0, "--limit 1": 1, "--limit 2": 2,
	} {
		got := s.run(append([]string{"list", "--json"}, strings.Fields(args)...)...)
		if n := len(objects(t, got.out)); n != want || got.code != 0 {
			t.Errorf("list %s: %d clients, want %d: %s", args, n, want, got)
		}
		if more := strings.Contains(got.errs, "There are more clients than --limit 1."); more != (args == "--limit 1") {
			t.Errorf("list %s says %q", args, got.errs)
		}
	}
	if got := s.want("list", "users", "--prefix", "t"); got != "USER  CLIENTS\ntom   1\n" {
		t.Errorf("users: %q", got)
	}
	if got := s.want("list", "groups", "--json"); got != `{"name":"a","clients":1}`+"\n" {
		t.Errorf("groups: %q", got)
	}
	if got := s.run("list", "--gateway", "none"); got.code != 1 || !strings.Contains(got.errs, "there are default, other") {
		t.Errorf("of a gateway that is not there: %s", got)
	}
	if got := s.run("list", "--ip", "tom"); got.code != 1 || !strings.Contains(got.errs, `"tom" is no IP address`) {
		t.Errorf("of no address: %s", got)
	}
}

// "Somebody says that he gets no messages" begins with this one client.
func TestShowTellsAllOfOneClient(t *testing.T) {
	s := start(t, twoGateways)
	s.dial("/echo?user=tom&group=a")
	id := fmt.Sprint(objects(t, s.want("list", "--json"))[0]["id"])
	got := make(map[string]string)
	for row := range strings.Lines(s.want("show", id)) {
		name, value, _ := strings.Cut(strings.TrimSpace(row), " ")
		got[name] = strings.TrimSpace(value)
	}
	for name, want := range map[string]string{
		"id": id, "endpoint": "/echo", "client_ip": "192.0.2.1", "user": "tom", "groups": "a",
		"received": "1 message in 11 B", "sent": "1 message in 7 B", "waiting": "0 B", "dropped": "0", "ping": "not answered yet",
	} {
		if got[name] != want {
			t.Errorf("%s is %q, want %q", name, got[name], want)
		}
	}
	if o := objects(t, s.want("show", "--json", id)); len(o) != 1 || o[0]["user"] != "tom" {
		t.Errorf("as JSON: %v", o)
	}
	for _, unknown := range []string{"nobody", "a/b", "../stats", "%2e%2e", unsafe} {
		if got := s.run("show", unknown); got.code != 1 || got.out != "" || strings.ContainsAny(got.errs, "\x1b\u009b") {
			t.Errorf("show %q: %s", unknown, got)
		}
	}
}

// Counting must agree with what has happened, and with the list.
func TestStatsShowWhatHasHappened(t *testing.T) {
	s := start(t, twoGateways)
	s.dial("/echo?user=tom")
	_ = s.dial("/echo").Close()
	s.dial("/other")
	waitFor(t, "the one that is lost to be counted", func() bool { return strings.Contains(s.want("stats"), "1006") })
	got := s.want("stats")
	for _, want := range []string{
		"gateway default, node ", "1 client, 1 user, 0 groups", "101: 2", "1006: 1 by the client", "gateway other, node ", "1 client, 0 users, 0 groups", "101: 1",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("there is no %q in\n%s", want, got)
		}
	}
	if got := s.want("stats", "--gateway", "other"); strings.Contains(got, "default") {
		t.Errorf("of one gateway:\n%s", got)
	}
	all := objects(t, s.want("stats", "--json"))
	if len(all) != 2 || all[0]["gateway"] != "default" || all[0]["clients"] != 1.0 || len(objects(t, s.want("list", "--json"))) != 1 {
		t.Errorf("as JSON: %v", all)
	}
}

// A script has to know whether anybody got it.
func TestSendSaysHowManyItReached(t *testing.T) {
	s := start(t, twoGateways)
	ann, bob := s.dial("/echo?user=ann&group=g"), s.dial("/echo?user=bob&group=g")
	if got := s.want("send", "--group", "g", "--except-user", "bob", "--endpoint", "/echo", "to ann"); got != "1 client reached\n" {
		t.Errorf("send: %q", got)
	}
	if got := s.want("send", "--user", "ann", "--user", "bob", "--json", unsafe); got != `{"clients":2}`+"\n" {
		t.Errorf("send: %q", got)
	}
	ann.want("to ann")
	ann.want(unsafe)
	bob.want(unsafe)
	for _, args := range [][]string{{"--user", "eve"}, {"--all", "--endpoint", "/other"}, {"--all", "--gateway", "other"}} {
		if got := s.run(append([]string{"send", "nobody"}, args...)...); got.code != 1 || got.out != "" || !strings.Contains(got.errs, "nobody was reached") {
			t.Errorf("send %q: %s", args, got)
		}
	}
	if got := s.run("send", "--user", "eve", "--json", "x"); got.code != 1 || got.out != `{"clients":0}`+"\n" {
		t.Errorf("send to nobody as JSON: %s", got)
	}
	stdin := func(text string, args ...string) {
		t.Helper()
		got := runCommand(t, text, append([]string{"send", "-", "--user", "ann", "--address", "unix/" + s.path("admin")}, args...)...)
		if got.code != 0 {
			t.Errorf("send %q -: %s", args, got)
		}
	}
	stdin("two\nlines\n")
	ann.want("two\nlines\n")
	stdin("\xff\x00", "--binary")
	ann.want("\xff\x00")
}

// Somebody is to be thrown out, and told why.
func TestCloseSendsTheCodeAndTheReason(t *testing.T) {
	s := start(t, twoGateways)
	ann, bob := s.dial("/echo?user=ann"), s.dial("/echo?user=bob")
	if got := s.want("close", "--user", "ann", "--code", "4001", "--reason", "account locked"); got != "1 client reached\n" {
		t.Errorf("close: %q", got)
	}
	ann.wantClose(4001, "account locked")
	for _, args := range [][]string{{"--code", "1005"}, {"--code", "99"}, {"--reason", strings.Repeat("x", 124)}} {
		if got := s.run(append([]string{"close", "--all"}, args...)...); got.code != 1 || !strings.Contains(got.errs, "close ") {
			t.Errorf("close %q: %s", args, got)
		}
	}
	s.want("close", "--all")
	bob.wantClose(1000, "")
	waitFor(t, "nobody to be left", func() bool { return s.run("close", "--all").code == 1 })
}

// The tail that one looks at while one reloads must go on, without help.
func TestTailGoesOnAfterReloads(t *testing.T) {
	s := start(t, twoGateways)
	out, errs := &output{t: t}, &output{t: t}
	ctx, interrupt := context.WithCancel(t.Context())
	ended := make(chan int, 1)
	go func() {
		ended <- command(ctx, strings.NewReader(""), out, errs, "tail", "--messages", "--endpoint", "/echo", "--address", "unix/"+s.path("admin"))
	}()
	errs.wait(1, "Ctrl-C ends this.")
	c := s.dial("/echo?user=" + url.QueryEscape(unsafe))
	s.dial("/other")
	out.wait(1, "  connect  /echo  ", "  message  /echo  ", "  send     /echo  ", "  192.0.2.1  ", `user \x1b[2J\u009b31m`, "text, 5 bytes\n")
	if err := s.load("close_rate 100", twoGateways); err != nil {
		t.Fatal(err)
	}
	errs.wait(1, "Connected again.")
	if err := s.loadFailing(twoGateways); err == nil {
		t.Fatal("the reload did not fail")
	}
	errs.wait(2, "Connected again.")
	s.want("close", "--all", "--reason", "a \"reason\"")
	c.wantClose(1000, `a "reason"`)
	out.wait(1, `  close    /echo  `, `1000 "a \"reason\""`+"\n")
	interrupt()
	if code := <-ended; code != 0 {
		t.Errorf("interrupted, the exit code is %d: %s", code, errs)
	}
	if strings.Contains(out.String(), "/other") || strings.ContainsAny(out.String(), "\x1b\u009b") {
		t.Errorf("printed was %q", out)
	}
}

// A tail that is refused says what would allow it.
func TestTailIsRefusedWithAReason(t *testing.T) {
	s := start(t, twoGateways)
	for args, want := range map[string]string{
		"--payload 10":   "websocket { admin_tail payload 10 } would allow it",
		"--gateway none": "there are default, other",
	} {
		if got := s.run(append([]string{"tail"}, strings.Fields(args)...)...); got.code != 1 || !strings.Contains(got.errs, want) {
			t.Errorf("tail %s: %s", args, got)
		}
	}
}

// A rolling restart waits for this command, and must not go on when somebody is left.
func TestDrainWaitsUntilAllAreGone(t *testing.T) {
	s := start(t, twoGateways)
	c := s.dial("/echo")
	got := s.run("drain", "--restart", "--timeout", "100ms") // c does not answer the close before it reads
	if got.code != 1 || !strings.Contains(got.out, "gateway default refuses handshakes, 1 client left") || !strings.Contains(got.errs, "1 client is left after 100ms") {
		t.Errorf("with somebody left: %s", got)
	}
	c.wantClose(1012, "server is restarting")
	if got := s.want("drain", "--json"); got != `{"gateway":"default","draining":true,"clients":0}`+"\n"+`{"gateway":"other","draining":true,"clients":0}`+"\n" {
		t.Errorf("with nobody left: %q", got)
	}
	if got := s.want("stats"); strings.Count(got, "draining: handshakes are refused") != 2 {
		t.Errorf("stats:\n%s", got)
	}
	if got := s.want("drain", "--resume", "--gateway", "other"); got != "gateway other accepts handshakes, 0 clients connected\n" {
		t.Errorf("resumed: %q", got)
	}
	s.dial("/other")
	if _, _, err := s.tryDial("/echo"); err == nil {
		t.Error("the other gateway accepts handshakes, too")
	}
}
