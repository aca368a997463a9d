package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/caddy-websocket/caddy-websocket/e2e/internal/e2etest"
)

// foreignTimeout is for all checks of a client together, of which one waits 20 s at most.
const foreignTimeout = 3 * time.Minute

// foreignSite has an endpoint for each kind of check.
const foreignSite = `{
	auto_https disable_redirects
	skip_install_trust
}
https://%s {
	bind 127.0.0.1
	websocket /echo {
		logic echo
	}
	websocket /deflate {
		compression 6 1
		logic echo
	}
	websocket /chat {
		subprotocols chat.v2 chat.v1
		logic echo
	}
	websocket /small {
		max_message_size 1KiB
		logic echo
	}
	websocket /bomb {
		compression 6
		max_message_size 1KiB
		logic echo
	}
	websocket /rate {
		message_rate 1 1
		logic echo
	}
	websocket /ping {
		ping 1s 1s
		logic echo
	}
	websocket /one {
		max_clients_per_ip 1
		logic echo
	}
}
`

const (
	tom      = `{"type": "text", "data": "tom"}`
	takeover = `permessage-deflate; server_no_context_takeover; client_no_context_takeover`
)

// foreignChecks are what the clients of e2e/foreign print, in JSON.
var foreignChecks = map[string]string{
	"text":                                `[` + tom + `, {"type": "text", "data": ""}, {"type": "text", "data": "日本語 \u0000 👋"}]`,
	"binary":                              `[{"type": "binary", "data": "00fffe"}, {"type": "binary", "data": ""}]`,
	"fragments":                           `{"type": "text", "data": "one two three"}`,
	"a MiB of text":                       `true`,
	"a MiB of bytes":                      `true`,
	"many in order":                       `"in order"`,
	"close by the client":                 `{"code": 4001, "reason": "bye"}`,
	"close by the server":                 `{"code": 1008, "reason": "more than 1 messages a second"}`,
	"too big":                             `1009`,
	"far too big":                         `1009`,
	"far too big when inflated":           `1009`,
	"bad UTF-8":                           `1007`,
	"ping":                                `{"type": "text", "data": "still there"}`,
	"ping by the server":                  `{"type": "text", "data": "still there"}`,
	"compression":                         `{"extensions": "` + takeover + `", "same": true, "again": true, "few": true}`,
	"compression of what does not shrink": `[true, {"type": "text", "data": ""}, ` + tom + `]`,
	"compressed fragments":                `true`,
	"a smaller window of the server":      `{"extensions": null, "echo": ` + tom + `}`,
	"a smaller window of the client":      `{"extensions": "` + takeover + `", "same": true}`,
	"compression not configured":          `{"extensions": null, "echo": ` + tom + `}`,
	"subprotocol":                         `{"protocol": "chat.v2", "echo": ` + tom + `}`,
	"subprotocol not offered":             `""`,
	"origin refused":                      `403`,
	"no origin":                           tom,
	"too many from one address":           `429`,
	"told to go: open":                    tom,
	"told to go":                          `1001`,
}

// Node's ws is what most servers and tools in JavaScript connect with.
func TestNodesClientGetsWhatItShould(t *testing.T) {
	node, script := nodeScript(t)
	checkForeign(t, func(ctx context.Context, url, root string) *exec.Cmd {
		cmd := exec.CommandContext(ctx, node, script, url)
		cmd.Env = append(os.Environ(), "NODE_EXTRA_CA_CERTS="+root)
		return cmd
	})
}

// Python's websockets reads the protocol more strictly than most.
func TestPythonsClientGetsWhatItShould(t *testing.T) {
	python, script := pythonScript(t)
	checkForeign(t, func(ctx context.Context, url, root string) *exec.Cmd {
		return exec.CommandContext(ctx, python, script, url, root)
	})
}

// What the other tests are worth: these clients do look at the certificate.
func TestForeignClientsRefuseACertificateTheyDoNotTrust(t *testing.T) {
	for _, client := range []struct {
		name, complaint string
		script          func(t *testing.T) (program, script string)
	}{
		{"node", "certificate", nodeScript},
		{"python", "CERTIFICATE_VERIFY_FAILED", pythonScript},
	} {
		t.Run(client.name, func(t *testing.T) {
			program, script := client.script(t)
			site := fmt.Sprintf("localhost:%d", e2etest.ReservePort(t))
			e2etest.StartCaddy(t, t.TempDir(), fmt.Sprintf(foreignSite, site)).AwaitTLS(site)
			ctx, cancel := context.WithTimeout(t.Context(), foreignTimeout)
			defer cancel()
			cmd := exec.CommandContext(ctx, program, script, "wss://"+site)
			stdout, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			first, err := bufio.NewReader(stdout).ReadString('\n')
			if err != nil || !strings.Contains(first, `"error"`) || !strings.Contains(first, client.complaint) {
				t.Errorf("without the root it prints %q (%v), want an error about the certificate", first, err)
			}
			cancel()
			_ = cmd.Wait() // it was killed
		})
	}
}

// A browser that shares no code with Chromium, with TLS and sockets of its own.
func TestConsoleSnippetWorksInFirefox(t *testing.T) {
	_, site := startExample(t)
	browser := e2etest.StartFirefox(t)
	browser.Navigate("https://" + site + "/")
	browser.Evaluate(strings.ReplaceAll(snippet, "DOMAIN:4431", site))
	for _, want := range []string{"connected", "received: 127.0.0.1"} {
		if got := browser.Alert(); got != want {
			t.Errorf("the alert says %q, want %q", got, want)
		}
	}
	// The page's own connection.
	const open = `document.getElementById('state').dataset.state === 'open' && document.getElementById('client-ip').textContent.trim()`
	for deadline := time.Now().Add(20 * time.Second); browser.Evaluate(open) != "127.0.0.1"; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("the page does not say that it is connected: %s", browser.Evaluate("document.body.innerText"))
		}
	}
}

// checkForeign runs a client against all endpoints and compares what it prints. The
// client's last check ends when the server does.
func checkForeign(t *testing.T, command func(ctx context.Context, url, root string) *exec.Cmd) {
	t.Helper()
	site := fmt.Sprintf("localhost:%d", e2etest.ReservePort(t))
	caddy := e2etest.StartCaddy(t, t.TempDir(), fmt.Sprintf(foreignSite, site))
	caddy.AwaitTLS(site)
	ctx, cancel := context.WithTimeout(t.Context(), foreignTimeout)
	defer cancel()
	cmd := command(ctx, "wss://"+site, caddy.RootFile())
	var stderr strings.Builder
	cmd.Stderr = &stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	seen := make(map[string]bool)
	lines := bufio.NewScanner(stdout)
	for lines.Scan() {
		var line struct {
			Check string
			Got   any
		}
		if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
			t.Errorf("the client printed %q: %v", lines.Text(), err)
			continue
		}
		seen[line.Check] = true
		checkForeignLine(t, line.Check, line.Got)
		if line.Check == "told to go: open" {
			caddy.Stop()
		}
	}
	_, _ = io.Copy(io.Discard, stdout) // after a line too long to scan
	if err := cmd.Wait(); err != nil || lines.Err() != nil {
		t.Errorf("the client: %v, %v\n%s", err, lines.Err(), &stderr)
	}
	for check := range foreignChecks {
		if !seen[check] {
			t.Errorf("the client did not get to the check %q", check)
		}
	}
	for _, entry := range caddy.Log() { // what the client said is what the server heard
		if entry["msg"] == "client gone" && entry["code"] == 4001.0 && entry["reason"] == "bye" && entry["by_peer"] == true {
			return
		}
	}
	t.Error("caddy did not log the client's 4001, bye")
}

func checkForeignLine(t *testing.T, check string, got any) {
	t.Helper()
	var want any
	if err := json.Unmarshal([]byte(foreignChecks[check]), &want); err != nil {
		t.Errorf("no expectation for the check %q: %v", check, err)
		return
	}
	if !reflect.DeepEqual(got, want) {
		shown, _ := json.Marshal(got)
		t.Errorf("%s: got %s, want %s", check, shown, foreignChecks[check])
	}
}

// nodeScript returns the paths of Node and of its client, whose one dependency
// npm ci --prefix e2e/foreign/node installs.
func nodeScript(t *testing.T) (node, script string) {
	t.Helper()
	node = e2etest.Tool(t, "node", "nodejs")
	dir := filepath.Join(e2etest.RepoRoot(t), "e2e", "foreign", "node")
	if _, err := os.Stat(filepath.Join(dir, "node_modules", "ws", "package.json")); err != nil {
		e2etest.Missing(t, "Node's ws: run npm ci --prefix e2e/foreign/node")
	}
	return node, filepath.Join(dir, "client.mjs")
}

// pythonScript returns the paths of a Python that has websockets and of its client.
func pythonScript(t *testing.T) (python, script string) {
	t.Helper()
	python = e2etest.Tool(t, "/usr/bin/python3", "python3") // Debian's package is for Debian's Python
	if out, err := exec.CommandContext(t.Context(), python, "-c", "import websockets").CombinedOutput(); err != nil {
		e2etest.Missing(t, fmt.Sprintf("websockets for %s (Debian: python3-websockets): %s", python, out))
	}
	return python, filepath.Join(e2etest.RepoRoot(t), "e2e", "foreign", "python", "client.py")
}
