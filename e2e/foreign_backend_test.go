package e2e

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/caddy-websocket/caddy-websocket/e2e/internal/e2etest"
)

func TestNodesServerWorksBehindTheDirective(t *testing.T) {
	node, client := nodeScript(t)
	checkBackend(t, node, filepath.Join(filepath.Dir(client), "backend.mjs"))
}

func TestPythonsServerWorksBehindTheDirective(t *testing.T) {
	python, client := pythonScript(t)
	checkBackend(t, python, filepath.Join(filepath.Dir(client), "backend.py"))
}

// runBackend starts a server that prints its port, and returns its address.
func runBackend(t *testing.T, command ...string) (addr string, stop func()) {
	t.Helper()
	cmd := exec.Command(command[0], command[1:]...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stop = func() {
		_ = cmd.Process.Kill() // an error means that it has ended
		_ = cmd.Wait()
	}
	t.Cleanup(stop)
	port, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		t.Fatalf("%v did not print its port: %v\n%s", command, err, &stderr)
	}
	return "127.0.0.1:" + strings.TrimSpace(port), stop
}

// checkBackend puts a server behind the directive and uses it from outside, over wss.
func checkBackend(t *testing.T, command ...string) {
	t.Helper()
	addr, stop := runBackend(t, command...)
	site := fmt.Sprintf("localhost:%d", e2etest.ReservePort(t))
	caddyfile := fmt.Sprintf(`{
	auto_https disable_redirects
	skip_install_trust
}
https://%s {
	bind localhost
	websocket /ws {
		reverse_proxy %s
	}
}
`, site, addr)
	caddy := e2etest.StartCaddy(t, t.TempDir(), caddyfile)
	caddy.AwaitTLS(site)

	ws := dialCompressed(t, caddy, site)
	var got map[string]string
	if err := json.Unmarshal([]byte(next(ws)), &got); err != nil {
		t.Fatalf("the backend's report: %v", err)
	}
	for name, want := range map[string]string{
		"x-real-ip": "127.0.0.1", "x-forwarded-for": "127.0.0.1", "x-forwarded-proto": "https", "x-forwarded-host": site, "host": site,
	} {
		if got[name] != want {
			t.Errorf("the backend got %s %q, want %q", name, got[name], want)
		}
	}
	if ws.Subprotocol() != "chat" {
		t.Errorf("subprotocol %q, want the backend's", ws.Subprotocol())
	}
	for _, size := range []int{0, 1, 125, 126, 65535, 65536, 1 << 20} {
		message := strings.Repeat("語", size/3) + strings.Repeat("x", size%3)
		if echoed := exchange(t, ws, message); echoed != message {
			t.Errorf("%d bytes came back as %d: %.60q", len(message), len(echoed), echoed)
		}
	}
	if err := caddy.Reload(caddyfile + "# changed\n"); err != nil {
		t.Fatal(err)
	}
	if err := ws.WriteMessage(websocket.BinaryMessage, []byte{0, 0xff, 0xfe}); err != nil {
		t.Fatal(err)
	}
	if kind, data, err := ws.ReadMessage(); err != nil || kind != websocket.BinaryMessage || !bytes.Equal(data, []byte{0, 0xff, 0xfe}) {
		t.Errorf("after a reload bytes came back as %d %x, %v", kind, data, err)
	}
	if err := ws.WriteMessage(websocket.TextMessage, []byte("close")); err != nil {
		t.Fatal(err)
	}
	if _, _, err := ws.ReadMessage(); !websocket.IsCloseError(err, 4002) || !strings.Contains(err.Error(), "as asked") {
		t.Errorf("the backend's close arrives as %v, want 4002 as asked", err)
	}
	caddy.WaitLog(func(entry map[string]any) bool {
		return entry["msg"] == "client gone" && entry["code"] == 4002.0 && entry["reason"] == "as asked" && entry["by_peer"] == false
	})

	orphan := dialCompressed(t, caddy, site)
	next(orphan)
	stop()
	if got := next(orphan); !strings.Contains(got, "1001") {
		t.Errorf("the client of a backend that was killed ends with %q, want 1001", got)
	}
}

// dialCompressed connects with an offer of compression, which the backend takes, and with
// header fields that a visitor should not be believed.
func dialCompressed(t *testing.T, caddy *e2etest.Caddy, site string) *websocket.Conn {
	t.Helper()
	dialer := websocket.Dialer{
		EnableCompression: true, Subprotocols: []string{"chat"}, HandshakeTimeout: 20 * time.Second,
		TLSClientConfig: &tls.Config{RootCAs: caddy.CertPool(), MinVersion: tls.VersionTLS12},
	}
	ws, res, err := dialer.DialContext(t.Context(), "wss://"+site+"/ws", http.Header{
		"X-Real-Ip": {"6.6.6.6"}, "X-Forwarded-For": {"6.6.6.6"}, "X-Forwarded-Proto": {"gopher"}, "X-Forwarded-Host": {"evil.example"},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ws.Close() })
	if !strings.Contains(res.Header.Get("Sec-Websocket-Extensions"), "permessage-deflate") {
		t.Errorf("the backend's extensions arrive as %q", res.Header.Get("Sec-Websocket-Extensions"))
	}
	return ws
}
