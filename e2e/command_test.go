package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/caddy-websocket/caddy-websocket/e2e/internal/e2etest"
)

// commandTimeout is for a command that does not wait for anything.
const commandTimeout = 30 * time.Second

// result is what `caddy websocket` printed, and its exit code.
type result struct {
	out, errs string
	code      int
}

func (r result) String() string { return fmt.Sprintf("exit code %d\n%s\n%s", r.code, r.out, r.errs) }

// runWebsocket runs `caddy websocket` beside a running Caddy.
func runWebsocket(t *testing.T, caddy *e2etest.Caddy, stdin string, args ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), commandTimeout)
	defer cancel()
	cmd := caddy.Command(ctx, append([]string{"websocket"}, args...)...)
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &errs
	err := cmd.Run()
	if _, exited := errors.AsType[*exec.ExitError](err); err != nil && !exited {
		t.Fatalf("caddy websocket %s: %v", strings.Join(args, " "), err)
	}
	return result{out.String(), errs.String(), cmd.ProcessState.ExitCode()}
}

// mustRun is runWebsocket for a command that must succeed; it returns what was printed.
func mustRun(t *testing.T, caddy *e2etest.Caddy, args ...string) string {
	t.Helper()
	got := runWebsocket(t, caddy, "", args...)
	if got.code != 0 {
		t.Fatalf("caddy websocket %s: %s", strings.Join(args, " "), got)
	}
	return got.out
}

// parse reads what a command has printed with --json.
func parse(t *testing.T, text string) (all []map[string]any) {
	t.Helper()
	for line := range strings.Lines(text) {
		var object map[string]any
		if err := json.Unmarshal([]byte(line), &object); err != nil {
			t.Fatalf("the line %q: %v", line, err)
		}
		all = append(all, object)
	}
	return all
}

// printed is what a command prints while it runs.
type printed struct {
	mu sync.Mutex
	b  bytes.Buffer // guarded by mu
}

func (p *printed) Write(text []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.b.Write(text)
}

func (p *printed) String() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.b.String()
}

// wait waits until this has been printed.
func (p *printed) wait(t *testing.T, text string) {
	t.Helper()
	for deadline := time.Now().Add(commandTimeout); !strings.Contains(p.String(), text); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited %s for %q to be printed:\n%s", commandTimeout, text, p)
		}
	}
}

// running is a command that goes on until it is interrupted.
type running struct {
	t         *testing.T
	cmd       *exec.Cmd
	stdin     io.WriteCloser
	out, errs printed
}

func startWebsocket(t *testing.T, caddy *e2etest.Caddy, args ...string) *running {
	t.Helper()
	r := &running{t: t, cmd: caddy.Command(t.Context(), append([]string{"websocket"}, args...)...)}
	var err error
	if r.stdin, err = r.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	r.cmd.Stdout, r.cmd.Stderr = &r.out, &r.errs
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if r.cmd.ProcessState == nil {
			_ = r.cmd.Process.Kill()
			_ = r.cmd.Wait()
		}
	})
	return r
}

// interrupt is Ctrl-C. It returns the exit code.
func (r *running) interrupt() int {
	r.t.Helper()
	if err := r.cmd.Process.Signal(os.Interrupt); err != nil {
		r.t.Fatal(err)
	}
	return r.wait()
}

func (r *running) wait() int {
	r.t.Helper()
	_ = r.cmd.Wait() // says the exit code
	return r.cmd.ProcessState.ExitCode()
}

// What the README promises of the example: one command to talk to it, and others to see
// who does.
func TestCommandsShowTheExamplesClients(t *testing.T) {
	caddy, site := startExample(t)
	for _, trust := range [][]string{{"--ca", caddy.RootFile()}, {"--insecure"}} {
		got := runWebsocket(t, caddy, "tom\n", append([]string{"connect", "wss://" + site + "/"}, trust...)...)
		if got.code != 0 || got.out != "127.0.0.1\n" || got.errs != "closed: 1000\n" {
			t.Errorf("tom, with %s: %s", trust, got)
		}
	}
	if got := runWebsocket(t, caddy, "tom\n", "connect", "wss://"+site+"/"); got.code != 1 || got.out != "" || !strings.Contains(got.errs, "--insecure") {
		t.Errorf("with a certificate that nobody knows: %s", got)
	}
	if got := runWebsocket(t, caddy, "", "connect", "--insecure", "--origin", "https://example.com", "wss://"+site+"/"); got.code != 1 || !strings.Contains(got.errs, "403 Forbidden") {
		t.Errorf("from a page elsewhere: %s", got)
	}

	ann := startWebsocket(t, caddy, "connect", "-v", "--insecure", "wss://"+site+"/chat?user=ann&room=7")
	ann.errs.wait(t, "connected to 127.0.0.1:")
	caddy.Dial("wss://"+site+"/chat?user=bob&room=7", nil)
	all := parse(t, mustRun(t, caddy, "list", "--json"))
	if len(all) != 2 {
		t.Fatalf("listed are %v", all)
	}
	table := strings.Split(strings.TrimSpace(mustRun(t, caddy, "list")), "\n")
	for i, row := range table[1:] {
		cells := strings.Fields(row)
		if cells[0] != all[i]["id"] || cells[1] != "/chat" || cells[2] != "127.0.0.1" || cells[3] != all[i]["user"] {
			t.Errorf("the row is %q, the object %v", row, all[i])
		}
	}
	if got := mustRun(t, caddy, "list", "groups"); got != "GROUP   CLIENTS\nroom:7  2\n" {
		t.Errorf("groups: %q", got)
	}
	id := fmt.Sprint(parse(t, mustRun(t, caddy, "list", "--user", "ann", "--json"))[0]["id"])
	if got := mustRun(t, caddy, "show", id); !strings.Contains(got, "room:7") || !strings.Contains(got, "127.0.0.1") {
		t.Errorf("show:\n%s", got)
	}
	if got := mustRun(t, caddy, "send", "--group", "room:7", "--except-user", "bob", "hello ann"); got != "1 client reached\n" {
		t.Errorf("send: %q", got)
	}
	ann.out.wait(t, "hello ann\n")
	mustRun(t, caddy, "close", "--client", id, "--code", "4000", "--reason", "enough")
	if code := ann.wait(); code != 1 || !strings.Contains(ann.errs.String(), `closed by the server: 4000 "enough"`) {
		t.Errorf("closed: exit code %d, %s", code, &ann.errs)
	}
	caddy.WaitLog(func(entry map[string]any) bool { return entry["msg"] == "client gone" && entry["client"] == id })
}

// An operator compares them: the list, the figures and the log must tell one story.
func TestListStatsAndLogAgree(t *testing.T) {
	caddy, addr := startTrial(t, "", "websocket /ws {\n\tlogic trial\n\t}")
	const clients, messages = 3, 4
	var conns []*websocket.Conn
	for i := range clients {
		ws := caddy.Dial("ws://"+addr+"/ws", nil)
		conns = append(conns, ws)
		for n := range messages + i {
			if got := exchange(t, ws, fmt.Sprint("message ", n)); got != fmt.Sprint("message ", n) {
				t.Fatalf("answer %q", got)
			}
		}
	}
	figures := []string{"messages_in", "messages_out", "bytes_in", "bytes_out"}
	sum := func(all []map[string]any) map[string]float64 {
		total := make(map[string]float64)
		for _, entry := range all {
			for _, name := range figures {
				value, _ := entry[name].(float64)
				total[name] += value
			}
		}
		return total
	}
	endpoint := func() map[string]any {
		t.Helper()
		stats := parse(t, mustRun(t, caddy, "stats", "--json"))
		return stats[0]["endpoints"].([]any)[0].(map[string]any)
	}
	want := map[string]float64{"messages_in": 15, "messages_out": 15}
	for what, total := range map[string]map[string]float64{
		"list": sum(parse(t, mustRun(t, caddy, "list", "--json"))), "stats": sum([]map[string]any{endpoint()}),
	} {
		for name, n := range want {
			if total[name] != n {
				t.Errorf("%s: %s is %v, want %v", what, name, total[name], n)
			}
		}
	}
	for _, ws := range conns {
		_ = ws.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(1000, ""), time.Now().Add(commandTimeout))
		next(ws)
	}
	var gone []map[string]any
	for seen := make(map[any]bool); len(gone) < clients; {
		entry := caddy.WaitLog(func(entry map[string]any) bool { return entry["msg"] == "client gone" && !seen[entry["client"]] })
		seen[entry["client"]] = true
		gone = append(gone, entry)
	}
	logged, counted := sum(gone), sum([]map[string]any{endpoint()})
	for _, name := range figures {
		if logged[name] != counted[name] || counted[name] == 0 {
			t.Errorf("%s: the log says %v, stats %v", name, logged[name], counted[name])
		}
	}
	if text := mustRun(t, caddy, "stats"); !strings.Contains(text, "101: 3") || !strings.Contains(text, "1000: 3 by the client") {
		t.Errorf("stats:\n%s", text)
	}
}

// Why was I thrown out? The code and the reason are what one connects for.
func TestConnectShowsWhyTheServerClosed(t *testing.T) {
	caddy, addr := startTrial(t, "", "websocket /ws {\n\tmax_message_size 1KiB\n\tlogic trial\n\t}")
	for message, want := range map[string]string{
		strings.Repeat("x", 2000): `closed by the server: 1009 "`,
		"panic":                   `closed by the server: 1011 "logic failed"`,
		"error":                   `closed by the server: 1011 "logic failed"`,
	} {
		got := runWebsocket(t, caddy, message+"\n", "connect", "--wait", "20s", "ws://"+addr+"/ws")
		if got.code != 1 || got.out != "" || !strings.Contains(got.errs, want) {
			t.Errorf("after %.10s: %s", message, got)
		}
	}
	if got := runWebsocket(t, caddy, "one\ntwo", "connect", "--json", "ws://"+addr+"/ws"); got.code != 0 || got.out != `{"type":"text","data":"one"}`+"\n"+`{"type":"text","data":"two"}`+"\n" {
		t.Errorf("with nothing wrong: %s", got)
	}
}

// Ctrl-C is a client that leaves, not one that is lost.
func TestConnectLeavesInOrder(t *testing.T) {
	caddy, addr := startTrial(t, "", "websocket /ws {\n\tlogic trial\n\t}")
	c := startWebsocket(t, caddy, "connect", "ws://"+addr+"/ws")
	if _, err := io.WriteString(c.stdin, "hello\n"); err != nil {
		t.Fatal(err)
	}
	c.out.wait(t, "hello\n")
	if code := c.interrupt(); code != 0 {
		t.Errorf("exit code %d: %s", code, &c.errs)
	}
	gone := caddy.WaitLog(func(entry map[string]any) bool { return entry["msg"] == "client gone" })
	if gone["code"] != 1000.0 || gone["by_peer"] != true {
		t.Errorf("the log says %v", gone)
	}
}

// What a deployment does with each machine behind a load balancer.
func TestDrainBeforeARestart(t *testing.T) {
	caddy, addr := startTrial(t, "", "websocket /ws {\n\tlogic trial\n\t}")
	c := startWebsocket(t, caddy, "connect", "ws://"+addr+"/ws")
	if _, err := io.WriteString(c.stdin, "hello\n"); err != nil {
		t.Fatal(err)
	}
	c.out.wait(t, "hello\n")
	if got := mustRun(t, caddy, "drain", "--restart"); got != "gateway default refuses handshakes, 0 clients left\n" {
		t.Errorf("drain: %q", got)
	}
	if code := c.wait(); code != 1 || !strings.Contains(c.errs.String(), `1012 "server is restarting"`) {
		t.Errorf("drained: exit code %d, %s", code, &c.errs)
	}
	if got := runWebsocket(t, caddy, "", "connect", "ws://"+addr+"/ws"); got.code != 1 || !strings.Contains(got.errs, "503 Service Unavailable (Retry-After: ") {
		t.Errorf("a handshake meanwhile: %s", got)
	}
	mustRun(t, caddy, "drain", "--resume")
	if got := runWebsocket(t, caddy, "again\n", "connect", "ws://"+addr+"/ws"); got.code != 0 || got.out != "again\n" {
		t.Errorf("a handshake after --resume: %s", got)
	}
}

// One looks at the tail while one changes the configuration: it goes on, and Caddy has
// nothing to complain about.
func TestTailGoesOnAcrossAReload(t *testing.T) {
	addr := fmt.Sprintf("127.0.0.1:%d", e2etest.ReservePort(t))
	config := func(options string) string {
		return trialCaddyfile(options, "websocket /ws {\n\tlogic trial\n\t}", addr, "")
	}
	caddy := e2etest.StartProgram(t, e2etest.Program(t, "./internal/trialcaddy"), t.TempDir(), config("websocket {\n\tadmin_tail payload\n\t}"))
	tail := startWebsocket(t, caddy, "tail", "--payload", "3")
	tail.errs.wait(t, "Ctrl-C ends this.")
	plain := startWebsocket(t, caddy, "tail", "--json")
	plain.errs.wait(t, "Ctrl-C ends this.")
	ws := caddy.Dial("ws://"+addr+"/ws", nil)
	exchange(t, ws, "\x1b[2J")
	tail.out.wait(t, `text, 4 bytes  \x1b[2...`)

	if err := caddy.Reload(config("websocket {\n\tclose_rate 100\n\t}")); err != nil {
		t.Fatal(err)
	}
	caddy.WaitLog(func(entry map[string]any) bool { return entry["msg"] == "stopped previous server" })
	if code := tail.wait(); code != 1 || !strings.Contains(tail.errs.String(), "admin_tail payload 3") {
		t.Errorf("the new configuration shows no payload, but the tail ended with exit code %d: %s", code, &tail.errs)
	}
	plain.errs.wait(t, "Connected again.")
	mustRun(t, caddy, "close", "--all", "--reason", "bye")
	plain.out.wait(t, `"code":1000,"reason":"bye"}`)
	if code := plain.interrupt(); code != 0 {
		t.Errorf("interrupted: exit code %d, %s", code, &plain.errs)
	}
	events := parse(t, plain.out.String())
	if len(events) != 2 || events[0]["type"] != "connect" || events[1]["type"] != "close" || events[0]["client"] != events[1]["client"] {
		t.Errorf("the tail was %v, want a connect and a close", events)
	}
}

// Scripts decide by the exit code.
func TestExitCodesOfCommands(t *testing.T) {
	caddy, addr := startTrial(t, "", "websocket /ws {\n\tlogic trial\n\t}")
	for line, want := range map[string]int{
		"":                             0,
		"--help":                       0,
		"stats":                        0,
		"list --gateway none":          1,
		"send --all nobody":            1,
		"show nobody":                  1,
		"list --address 127.0.0.1:1":   1,
		"connect ws://" + addr + "/no": 1,
		"nonsense":                     2,
		"list --nonsense":              2,
		"send nobody":                  2,
	} {
		if got := runWebsocket(t, caddy, "", strings.Fields(line)...); got.code != want || (got.errs == "") != (want == 0) {
			t.Errorf("caddy websocket %s: want %d: %s", line, want, got)
		}
	}
	if _, err := caddy.AdminGet("/websocket/?gateway=none"); err == nil || !strings.Contains(err.Error(), http.StatusText(http.StatusNotFound)) {
		t.Errorf("the call for a gateway that is not there: %v", err)
	}
}
