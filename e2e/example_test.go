package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/caddy-websocket/caddy-websocket/e2e/internal/e2etest"
)

// startExample runs Caddyfile.example as the README's first command does, from the
// root of the repository, on a port of the test's own. It returns host and port.
func startExample(t *testing.T) (*e2etest.Caddy, string) {
	t.Helper()
	site := fmt.Sprintf("localhost:%d", e2etest.ReservePort(t))
	caddy := e2etest.StartCaddy(t, e2etest.RepoRoot(t), example(t), "WS_ADDR="+site)
	caddy.AwaitTLS(site)
	return caddy, site
}

func example(t *testing.T) string {
	t.Helper()
	caddyfile, err := os.ReadFile(filepath.Join(e2etest.RepoRoot(t), "Caddyfile.example"))
	if err != nil {
		t.Fatal(err)
	}
	return string(caddyfile)
}

// The first command must need no root, surprise nobody, and be seen by nobody else:
// one port of this machine's own, and no port 80.
func TestExampleListensOnItsOneLoopbackPort(t *testing.T) {
	caddy, site := startExample(t)
	_, port, _ := strings.Cut(site, ":")
	listeners := caddy.Listeners()
	want := []string{"127.0.0.1:" + port}
	if !slices.Equal(listeners, want) {
		t.Errorf("caddy listens on %v, want %v", listeners, want)
	}
}

// The example that every Workerman user knows, without a browser.
func TestExampleAnswersWithTheRealIP(t *testing.T) {
	caddy, site := startExample(t)
	ws := caddy.Dial("wss://"+site, nil)
	if err := ws.WriteMessage(1, []byte("tom")); err != nil {
		t.Fatal(err)
	}
	if _, answer, err := ws.ReadMessage(); err != nil || string(answer) != "127.0.0.1" {
		t.Errorf("tom is answered with %q (%v), want 127.0.0.1", answer, err)
	}
}
