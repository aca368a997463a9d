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

// Whoever points a load balancer's check where docs/cluster.md says must have the node
// out when it takes no more clients.
func TestHealthChecksOfDocsTellWhenANodeGoes(t *testing.T) {
	page, err := os.ReadFile(filepath.Join(e2etest.RepoRoot(t), "docs", "cluster.md"))
	if err != nil {
		t.Fatal(err)
	}
	block := regexp.MustCompile("(?s)```caddyfile\n(example.com \\{\n\t@draining.*?)```").FindStringSubmatch(string(page))
	if block == nil {
		t.Fatal("docs/cluster.md has no such block")
	}
	site := fmt.Sprintf("127.0.0.1:%d", e2etest.ReservePort(t))
	caddy := e2etest.StartCaddy(t, t.TempDir(), strings.Replace(block[1], "example.com {", "http://"+site+" {\n\twebsocket /ws\n", 1))
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
	want("/up", 200)
	want("/ws", 101, handshake...)
	if err := caddy.AdminPost("/websocket/drain"); err != nil {
		t.Fatal(err)
	}
	want("/ws", 503, handshake...)
	want("/up", 503)
	if err := caddy.AdminPost("/websocket/resume"); err != nil {
		t.Fatal(err)
	}
	want("/ws", 101, handshake...)
	want("/up", 200)
}
