package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/caddy-websocket/caddy-websocket/e2e/internal/e2etest"
)

// exchange sends a message and returns the answer, or how the connection ended.
func exchange(t *testing.T, ws *websocket.Conn, message string) string {
	t.Helper()
	if err := ws.WriteMessage(websocket.TextMessage, []byte(message)); err != nil {
		t.Fatal(err)
	}
	return next(ws)
}

func next(ws *websocket.Conn) string {
	_ = ws.SetReadDeadline(time.Now().Add(20 * time.Second))
	_, answer, err := ws.ReadMessage()
	if err != nil {
		return err.Error()
	}
	return string(answer)
}

// What nginx needs a second process for, and what Caddy's own proxy does not do.
func TestReloadKeepsTheSocketAndAppliesTheLimit(t *testing.T) {
	site := fmt.Sprintf("localhost:%d", e2etest.ReservePort(t))
	config := func(limit, logic string) string {
		return fmt.Sprintf(`{
	auto_https disable_redirects
	skip_install_trust
}
https://%s {
	bind localhost
	websocket /ws {
		max_message_size %s
		logic %s
	}
}
`, site, limit, logic)
	}
	caddy := e2etest.StartCaddy(t, t.TempDir(), config("64KiB", "echo"))
	ws := caddy.Dial("wss://"+site+"/ws", nil)
	if got := exchange(t, ws, "before"); got != "before" {
		t.Fatalf("answer %q, want before", got)
	}

	if err := caddy.Reload(config("64KiB", "reply {ws.client_ip}")); err != nil {
		t.Fatal(err)
	}
	if got := exchange(t, ws, "after"); got != "127.0.0.1" {
		t.Errorf("after a reload the answer is %q, want that of the new logic", got)
	}

	for name, broken := range map[string]string{
		"an unknown option":       strings.Replace(config("64KiB", "echo"), "logic", "lojic", 1),
		"a bad certificate":       strings.Replace(config("64KiB", "echo"), "bind localhost", "tls nothere.pem nothere.key", 1),
		"a port that is taken":    config("64KiB", "echo") + "http://240.0.0.1:1 {\n\tbind 240.0.0.1\n}\n",
		"two different endpoints": config("64KiB", "echo") + fmt.Sprintf("http://localhost:%d {\n\twebsocket /ws\n}\n", e2etest.ReservePort(t)),
	} {
		if err := caddy.Reload(broken); err == nil {
			t.Fatalf("a configuration with %s was loaded", name)
		}
		if got := exchange(t, ws, "still"); got != "127.0.0.1" {
			t.Fatalf("after a reload that failed for %s the answer is %q", name, got)
		}
	}

	if err := caddy.Reload(config("1KiB", "echo")); err != nil {
		t.Fatal(err)
	}
	if got := exchange(t, ws, "small"); got != "small" {
		t.Errorf("answer %q, want small", got)
	}
	if got := exchange(t, ws, strings.Repeat("x", 2<<10)); !strings.Contains(got, "1009") {
		t.Errorf("a message over the new limit ends with %q, want 1009", got)
	}
}

// docker stop, systemctl stop: clients are told, and OnClose has run when the
// process ends.
func TestSIGTERMClosesClientsWith1001(t *testing.T) {
	caddy, site := startExample(t)
	const clients = 20
	conns := make([]*websocket.Conn, clients)
	for i := range conns {
		conns[i] = caddy.Dial("wss://"+site+"/chat", nil)
		if got := next(conns[i]); !strings.Contains(got, `"welcome"`) {
			t.Fatalf("received %q, want welcome", got)
		}
	}
	ended := make(chan string, clients)
	for _, ws := range conns {
		go func() { ended <- next(ws) }()
	}
	start := time.Now()
	caddy.Stop()
	if took := time.Since(start); took > 8*time.Second {
		t.Errorf("stopping took %s: Docker would have killed it after ten seconds", took)
	}
	for range clients {
		if got := <-ended; !strings.Contains(got, "1001") {
			t.Errorf("a client ends with %q, want 1001", got)
		}
	}
	gone := 0
	for _, entry := range caddy.Log() {
		if entry["msg"] == "client gone" && entry["code"] == 1001.0 {
			gone++
		}
	}
	if gone != clients {
		t.Errorf("%d clients are logged as gone with 1001, want %d", gone, clients)
	}
}
