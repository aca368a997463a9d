package e2e

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/caddy-websocket/caddy-websocket/e2e/internal/e2etest"
)

// Whoever takes a node out of a load balancer as docs/cluster.md says must have it out
// before its clients are told to go elsewhere.
func TestHealthChecksOfDocsTellWhenANodeGoes(t *testing.T) {
	page, err := os.ReadFile(filepath.Join(e2etest.RepoRoot(t), "docs", "cluster.md"))
	if err != nil {
		t.Fatal(err)
	}
	block := regexp.MustCompile("(?s)```caddyfile\n(example.com \\{\n\t@up.*?)```").FindStringSubmatch(string(page))
	if block == nil {
		t.Fatal("docs/cluster.md has no such block")
	}
	dir := t.TempDir()
	site := fmt.Sprintf("127.0.0.1:%d", e2etest.ReservePort(t))
	config := strings.NewReplacer("example.com {", "http://"+site+" {\n\twebsocket /ws\n", "/run/caddy-up", dir).Replace(block[1])
	caddy := e2etest.StartCaddy(t, dir, config)
	want := func(path string, status int, header ...string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), clusterPatience)
		defer cancel()
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+site+path, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		for i := 0; i < len(header); i += 2 {
			req.Header.Set(header[i], header[i+1])
		}
		res, err := http.DefaultTransport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != status {
			t.Errorf("%s answers %s, want %d", path, res.Status, status)
		}
	}
	handshake := []string{"Connection", "Upgrade", "Upgrade", "websocket", "Sec-WebSocket-Version", "13", "Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="}
	up := filepath.Join(dir, "up")

	want("/up", 503)
	if err := os.WriteFile(up, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	want("/up", 200)
	want("/ws", 101, handshake...)
	if err := caddy.AdminPost("/websocket/drain"); err != nil {
		t.Fatal(err)
	}
	want("/ws", 503, handshake...)
	want("/up", 200) // why a page of the site is no check
	if err := os.Remove(up); err != nil {
		t.Fatal(err)
	}
	want("/up", 503)
	if err := caddy.AdminPost("/websocket/resume"); err != nil {
		t.Fatal(err)
	}
	want("/ws", 101, handshake...)
}
