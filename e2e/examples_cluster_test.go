package e2e

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/gorilla/websocket"

	"github.com/caddy-websocket/caddy-websocket/e2e/internal/e2etest"
)

// exampleCluster is a running examples/cluster.
type exampleCluster struct {
	t     *testing.T
	cmd   *exec.Cmd
	keys  io.Writer
	lines chan string
	sites []string
	push  []string // the ports of the push APIs
	data  string
	logs  string // a folder

	killed bool // by the test
	once   sync.Once
}

// clusterPatience bounds every single step: a start of a Caddy with the race detector, or
// five seconds until a node counts as lost, on a busy machine.
const clusterPatience = time.Minute

const clusterToken = "0123456789abcdef0123456789abcdef"

// startCluster runs examples/cluster as its README does, on ports of the test's own.
func startCluster(t *testing.T) *exampleCluster {
	t.Helper()
	private, err := os.MkdirTemp("", "cluster") //nolint:usetesting // with a test name in it, the paths of the sockets may be too long
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(private) })
	c := &exampleCluster{t: t, lines: make(chan string, 1000), data: filepath.Join(private, "data"), logs: private}
	var admins []string
	for i := range 3 {
		c.sites = append(c.sites, fmt.Sprintf("localhost:%d", e2etest.ReservePort(t)))
		c.push = append(c.push, strconv.Itoa(e2etest.ReservePort(t)))
		admins = append(admins, fmt.Sprintf("unix/%s/admin-%d.sock", private, i+1))
	}
	c.cmd = exec.Command(e2etest.Module(t, "examples/cluster"), "-sites", strings.Join(c.sites, ","), "-admins", strings.Join(admins, ","),
		"-push", strings.Join(c.push, ","), "-logs", c.logs)
	c.cmd.Dir = filepath.Join(e2etest.RepoRoot(t), "examples/cluster")
	c.cmd.Env = append(os.Environ(), "HOME="+private, "XDG_DATA_HOME="+c.data, "XDG_CONFIG_HOME="+private, "NATS_PASSWORD=", "PUSH_TOKEN="+clusterToken)
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // as in a terminal
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	c.cmd.Stderr = c.cmd.Stdout
	if c.keys, err = c.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(c.lines)
		for s := bufio.NewScanner(out); s.Scan(); {
			c.lines <- s.Text()
		}
	}()
	t.Cleanup(c.end)
	c.await("Ctrl-C ends all.")
	return c
}

// await reads what the program prints, until a line has this in it, and returns the line.
func (c *exampleCluster) await(text string) string {
	c.t.Helper()
	var before []string
	for deadline := time.After(2 * clusterPatience); ; {
		select {
		case line, ok := <-c.lines:
			if !ok {
				c.t.Fatalf("the program has ended without printing %q, after:\n%s", text, strings.Join(before, "\n"))
			}
			before = append(before, line)
			if strings.Contains(line, text) {
				return line
			}
		case <-deadline:
			c.t.Fatalf("the program does not print %q, but:\n%s", text, strings.Join(before, "\n"))
		}
	}
}

// key types a line, and waits for what the program says then.
func (c *exampleCluster) key(line, want string) string {
	c.t.Helper()
	if _, err := fmt.Fprintln(c.keys, line); err != nil {
		c.t.Fatal(err)
	}
	return c.await(want)
}

// logged waits until a node has logged a line.
func (c *exampleCluster) logged(number int, message string) {
	c.t.Helper()
	want := fmt.Sprintf(`"msg":%q`, message)
	for deadline := time.Now().Add(clusterPatience); ; time.Sleep(50 * time.Millisecond) {
		log, err := os.ReadFile(filepath.Join(c.logs, fmt.Sprintf("node-%d.log", number)))
		if err != nil {
			c.t.Fatal(err)
		}
		if bytes.Contains(log, []byte(want)) {
			return
		}
		if time.Now().After(deadline) {
			c.t.Fatalf("node %d does not log %s, but:\n%s", number, want, log)
		}
	}
}

// curl makes the call of the README to a node, and returns the answer.
func (c *exampleCluster) curl(number int) string {
	c.t.Helper()
	readme, err := os.ReadFile(filepath.Join(e2etest.RepoRoot(c.t), "examples/cluster/README.md"))
	if err != nil {
		c.t.Fatal(err)
	}
	call := regexp.MustCompile(`(?s)-d '([^']*)'.*?'http://127.0.0.1:4481(/[^']*)'`).FindSubmatch(readme)
	if call == nil {
		c.t.Fatal("the README of examples/cluster has no call of the push API")
	}
	req, err := http.NewRequestWithContext(c.t.Context(), http.MethodPost, "http://127.0.0.1:"+c.push[number-1]+string(call[2]), bytes.NewReader(call[1]))
	if err != nil {
		c.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+clusterToken)
	req.Header.Set("Content-Type", "application/json")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		c.t.Fatal(err)
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	return strings.TrimSpace(string(answer))
}

// end is Ctrl-C, which a terminal sends to all processes of the group. All end as they
// should, and nobody listens any more.
func (c *exampleCluster) end() { c.once.Do(c.interrupt) }

func (c *exampleCluster) interrupt() {
	kill := time.AfterFunc(clusterPatience, func() { _ = c.cmd.Process.Kill() })
	defer kill.Stop()
	if !c.killed {
		if err := syscall.Kill(-c.cmd.Process.Pid, syscall.SIGINT); err != nil {
			c.t.Errorf("the program had ended: %v", err)
		}
	}
	for line := range c.lines { // until it closes its output
		if strings.Contains(line, "is killed") || strings.Contains(line, "has died") {
			c.t.Errorf("Ctrl-C: %s", line)
		}
	}
	if err := c.cmd.Wait(); err != nil && !c.killed {
		c.t.Errorf("Ctrl-C ends it with %v", err)
	}
	for deadline := time.Now().Add(clusterPatience); c.killed && c.listening() != "" && time.Now().Before(deadline); {
		time.Sleep(50 * time.Millisecond) // its nodes are not its business any more
	}
	if site := c.listening(); site != "" {
		c.t.Errorf("%s is still there", site)
	}
}

// listening returns a site where somebody answers, or "".
func (c *exampleCluster) listening() string {
	for _, site := range c.sites {
		if conn, err := net.DialTimeout("tcp", site, time.Second); err == nil {
			conn.Close()
			return site
		}
	}
	return ""
}

// clusterEvent is what the lobby sends.
type clusterEvent struct {
	Type, Client, Name, At, Text, Node, State string
	Nodes                                     []struct{ Node string }
	Members                                   []struct{ Name, At string }
	Connected                                 bool
}

// visitor is a client in the lobby.
type visitor struct {
	t      *testing.T
	name   string
	ws     *websocket.Conn
	client string
	node   string
	others int // nodes, at the welcome
}

// enter lets a visitor in at a node. All nodes have certificates of one authority.
func (c *exampleCluster) enter(number int, name string) *visitor {
	c.t.Helper()
	pem, err := os.ReadFile(filepath.Join(c.data, "caddy/pki/authorities/local/root.crt"))
	if err != nil {
		c.t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	dialer := websocket.Dialer{TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}, HandshakeTimeout: clusterPatience}
	ws, _, err := dialer.Dial("wss://"+c.sites[number-1]+"/lobby?name="+url.QueryEscape(name), nil)
	if err != nil {
		c.t.Fatalf("%s at node %d: %v", name, number, err)
	}
	c.t.Cleanup(func() { ws.Close() })
	v := &visitor{t: c.t, name: name, ws: ws}
	welcome := v.hears("a welcome", func(e clusterEvent) bool { return e.Type == "welcome" })
	v.client, v.node, v.others = welcome.Client, welcome.Node, len(welcome.Nodes)-1
	return v
}

// enterAmong is enter, when the node knows so many others.
func (c *exampleCluster) enterAmong(others, number int, name string) *visitor {
	c.t.Helper()
	for deadline := time.Now().Add(clusterPatience); ; {
		v := c.enter(number, name)
		if v.others == others {
			return v
		}
		v.ws.Close()
		if time.Now().After(deadline) {
			c.t.Fatalf("node %d knows %d others, want %d", number, v.others, others)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// hears reads until an event is what the test waits for.
func (v *visitor) hears(what string, is func(clusterEvent) bool) clusterEvent {
	v.t.Helper()
	_ = v.ws.SetReadDeadline(time.Now().Add(clusterPatience))
	var before []string
	for {
		_, data, err := v.ws.ReadMessage()
		if err != nil {
			v.t.Fatalf("%s waits for %s: %v, after %q", v.name, what, err, before)
		}
		var e clusterEvent
		if err := json.Unmarshal(data, &e); err != nil {
			v.t.Fatal(err)
		}
		if is(e) {
			return e
		}
		before = append(before, string(data))
	}
}

func (v *visitor) hearsSaid(text, name, at string) {
	v.t.Helper()
	v.hears(fmt.Sprintf("%q", text), func(e clusterEvent) bool {
		return e.Type == "said" && e.Text == text && e.Name == name && e.At == at
	})
}

// hearsOf waits for what becomes of a node.
func (v *visitor) hearsOf(node, state string) (id string) {
	v.t.Helper()
	return v.hears("a node "+state, func(e clusterEvent) bool {
		return e.Type == "node" && e.State == state && (node == "" || e.Node == node)
	}).Node
}

func (v *visitor) hearsOfBroker(connected bool) {
	v.t.Helper()
	v.hears(fmt.Sprintf("the broker to be connected: %v", connected), func(e clusterEvent) bool { return e.Type == "broker" && e.Connected == connected })
}

func (v *visitor) says(text string) {
	v.t.Helper()
	if err := v.ws.WriteJSON(map[string]string{"type": "say", "text": text}); err != nil {
		v.t.Fatal(err)
	}
}

// What the README of examples/cluster promises to who tries it: talk across nodes, a node
// that is stopped, one that dies, and a broker that does.
func TestClusterExampleDoesWhatItsReadmeSays(t *testing.T) {
	c := startCluster(t)
	ann := c.enterAmong(2, 1, "ann")
	bob := c.enterAmong(2, 2, "bob")
	cid := c.enterAmong(2, 3, "cid")
	cid.hears("everybody in the list", func(e clusterEvent) bool { return e.Type == "members" && len(e.Members) == 3 })
	if nodes := map[string]bool{ann.node: true, bob.node: true, cid.node: true}; len(nodes) != 3 {
		t.Fatalf("the nodes are %v", nodes)
	}
	if !strings.HasPrefix(bob.client, bob.node+"-") {
		t.Errorf("client id %s does not begin with its node %s", bob.client, bob.node)
	}
	ann.says("hello all")
	for _, v := range []*visitor{ann, bob, cid} {
		v.hearsSaid("hello all", "ann", "node 1")
	}
	cid.says("hello ann")
	ann.hearsSaid("hello ann", "cid", "node 3")
	if answer := c.curl(2); answer != `{"clients":3}` {
		t.Errorf("the push API answers %s", answer)
	}
	for _, v := range []*visitor{ann, bob, cid} {
		v.hearsSaid("hello", "curl", "terminal")
	}

	c.key("2", "node 2 has stopped")
	_ = bob.ws.SetReadDeadline(time.Now().Add(clusterPatience))
	for {
		if _, _, err := bob.ws.ReadMessage(); err != nil {
			if !websocket.IsCloseError(err, websocket.CloseGoingAway) {
				t.Errorf("bob is told %v, want 1001", err)
			}
			break
		}
	}
	ann.hears("bob to leave", func(e clusterEvent) bool { return e.Type == "left" && e.Client == bob.client })
	ann.hearsOf(bob.node, "left")
	was := bob.node
	c.key("2", "node 2 runs")
	again := ann.hearsOf("", "joined")
	bob = c.enterAmong(2, 2, "bob")
	if bob.node != again {
		t.Errorf("node %s has joined, bob is on %s; he was on %s, the others are %s and %s", again, bob.node, was, ann.node, cid.node)
	}
	bob.says("back again")
	ann.hearsSaid("back again", "bob", "node 2")

	c.key("kill 3", "node 3 is killed")
	ann.hearsOf(cid.node, "lost")
	bob.hearsOf(cid.node, "lost")
	c.logged(1, "node lost: it gives no sign of life")
	c.key("3", "node 3 runs")
	ann.hearsOf("", "joined")
	cid = c.enterAmong(2, 3, "cid")
	cid.says("alive")
	ann.hearsSaid("alive", "cid", "node 3")

	c.key("nats", "NATS has stopped")
	ann.hearsOfBroker(false)
	ann.says("to myself")
	ann.hearsSaid("to myself", "ann", "node 1")
	c.key("nats", "NATS runs")
	for _, v := range []*visitor{ann, bob, cid} {
		v.hearsOfBroker(true)
	}
	ann.says("all there?")
	for _, v := range []*visitor{bob, cid} {
		v.hearsSaid("all there?", "ann", "node 1")
	}
	c.key("help", "Ctrl-C ends all.")

	c.key("nats", "NATS has stopped")
	c.key("2", "node 2 has stopped")
	var pid int
	if _, err := fmt.Sscanf(c.key("2", "node 2 runs"), "node 2 runs: process %d", &pid); err != nil {
		t.Fatal(err)
	}
	if line := c.await("node 2 is on its own: NATS cannot be reached"); !strings.Contains(line, "connection refused") {
		t.Errorf("%q has no reason", line)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil { // from outside
		t.Fatal(err)
	}
	c.await("node 2 has died: signal: killed")
	c.key("kill 2", "node 2 does not run")

	c.end()
	_ = cid.ws.SetReadDeadline(time.Now().Add(clusterPatience))
	for {
		if _, _, err := cid.ws.ReadMessage(); err != nil {
			if !websocket.IsCloseError(err, websocket.CloseGoingAway) {
				t.Errorf("at Ctrl-C cid is told %v, want 1001", err)
			}
			return
		}
	}
}

// Who sees the page sees what the nodes know of each other.
func TestClusterPageShowsWhoIsOnWhichNode(t *testing.T) {
	c := startCluster(t)
	ann := e2etest.Chromium(t)
	open := func(number int, name string) {
		t.Helper()
		to := ann
		if number > 1 {
			to = tab(t, ann)
		}
		do(t, to, chromedp.EmulateViewport(900, 760), chromedp.Navigate("https://"+c.sites[number-1]+"/"))
		do(t, to, chromedp.SetValue("#name", name), chromedp.Click("#enter"))
		until(t, to, `document.getElementById('state').dataset.state === 'open'`)
		if number > 1 {
			do(t, to, chromedp.SetValue("#say-input", "hello from "+name+" <b>"), chromedp.Click("#say-send"))
		}
	}
	card := func(place, state string, names ...string) string {
		return fmt.Sprintf(`[...document.querySelectorAll('.node')].some(n => n.querySelector('h2 span').textContent === %q && n.dataset.state === %q &&
			[...n.querySelectorAll('.who')].map(w => w.textContent).join() === %q)`, place, state, strings.Join(names, ","))
	}
	open(1, "ann")
	open(2, "bob <b>")
	open(3, "cid")
	until(t, ann, card("node 1", "here", "ann"))
	until(t, ann, card("node 2", "there", "bob <b>"))
	until(t, ann, card("node 3", "there", "cid"))
	until(t, ann, `document.getElementById('messages').textContent.includes('hello from bob <b> <b>')`)
	screenshot(t, ann, "cluster")

	c.key("kill 3", "node 3 is killed")
	until(t, ann, card("node 3", "lost"))
	screenshot(t, ann, "cluster-lost")
	c.key("nats", "NATS has stopped")
	until(t, ann, `!document.getElementById('alone').hidden`)
	until(t, ann, card("node 2", "unknown", "bob <b>"))
	screenshot(t, ann, "cluster-alone")
	c.key("nats", "NATS runs")
	until(t, ann, `document.getElementById('alone').hidden`)
	until(t, ann, card("node 2", "there", "bob <b>"))
}

// A cluster that is killed leaves no Caddy behind, which would hold the ports.
func TestNodesOfTheClusterExampleEndWithIt(t *testing.T) {
	c := startCluster(t)
	v := c.enter(2, "ann")
	c.killed = true
	if err := c.cmd.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	_ = v.ws.SetReadDeadline(time.Now().Add(clusterPatience))
	for {
		if _, _, err := v.ws.ReadMessage(); err != nil {
			break
		}
	}
}
