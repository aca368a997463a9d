package e2e

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/caddy-websocket/caddy-websocket/e2e/internal/e2etest"
)

// exampleFile returns a file of the folder examples.
func exampleFile(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(e2etest.RepoRoot(t), "examples", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// startProgram runs a Caddy with an example's Caddyfile as the example's README does,
// from the root of the repository, on a port of the test's own. It returns host and
// port.
func startProgram(t *testing.T, bin, caddyfile string, env ...string) (*e2etest.Caddy, string) {
	t.Helper()
	site := fmt.Sprintf("localhost:%d", e2etest.ReservePort(t))
	caddy := e2etest.StartProgram(t, bin, e2etest.RepoRoot(t), caddyfile, append(env, "WS_ADDR="+site)...)
	caddy.AwaitTLS(site)
	return caddy, site
}

// A visitor can write what he likes into a header: it is not his address, unless a
// proxy that the configuration trusts has written it.
func TestRealIPBuiltByXCaddyBelievesTrustedProxiesOnly(t *testing.T) {
	bin := e2etest.XCaddy(t, "examples/realip")
	config := exampleFile(t, "realip/Caddyfile")
	forwarded := http.Header{"X-Forwarded-For": {"198.51.100.1, 203.0.113.9"}, "X-Real-Ip": {"198.51.100.1"}}

	caddy, site := startProgram(t, bin, config)
	ws := caddy.Dial("wss://"+site, forwarded)
	if got := exchange(t, ws, "tom"); got != "127.0.0.1" {
		t.Errorf("tom is answered with %q, want 127.0.0.1", got)
	}

	// The lines of the Caddyfile that are for a load balancer in front.
	lines := regexp.MustCompile(`(?m)^\t# ?(servers \{|\ttrusted_.*|\})$`)
	if n := len(lines.FindAllString(config, -1)); n != 4 {
		t.Fatalf("the Caddyfile has %d lines about trusted proxies, want 4", n)
	}
	trusting := lines.ReplaceAllString(config, "\t$1")
	if err := caddy.Reload(trusting); err != nil {
		t.Fatal(err)
	}
	if got := exchange(t, caddy.Dial("wss://"+site, forwarded), "tom"); got != "203.0.113.9" {
		t.Errorf("behind a trusted proxy tom is answered with %q, want what it says, 203.0.113.9", got)
	}
	if got := exchange(t, ws, "tom"); got != "127.0.0.1" {
		t.Errorf("after a reload the older connection is answered with %q, want 127.0.0.1 as before", got)
	}
}
