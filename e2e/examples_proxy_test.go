package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/caddy-websocket/caddy-websocket/e2e/internal/e2etest"
)

// startBackend runs one of the example's backends until the test ends, or until
// stop is called.
func startBackend(t *testing.T, program, name string) (addr string, stop func()) {
	t.Helper()
	addr = fmt.Sprintf("127.0.0.1:%d", e2etest.FreePort(t))
	cmd := exec.Command(program, "-listen", addr, "-name", name)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		_ = cmd.Wait() // it is killed
		close(done)
	}()
	stop = func() {
		_ = cmd.Process.Kill() // an error means that it has ended
		<-done
	}
	t.Cleanup(stop)
	return addr, stop
}

// People keep their PHP or Node server and put this in front: two backends share
// the clients, know their address, and one may die.
func TestProxyExampleBalancesAndSurvivesABackend(t *testing.T) {
	root := e2etest.RepoRoot(t)
	program := filepath.Join(t.TempDir(), "backend")
	build := exec.Command("go", "build", "-o", program, "./examples/proxy/backend")
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building the backend: %v\n%s", err, out)
	}
	caddyfile, err := os.ReadFile(filepath.Join(root, "examples/proxy/Caddyfile"))
	if err != nil {
		t.Fatal(err)
	}
	one, stopOne := startBackend(t, program, "one")
	two, _ := startBackend(t, program, "two")
	site := fmt.Sprintf("localhost:%d", e2etest.ReservePort(t))
	caddy := e2etest.StartCaddy(t, root, string(caddyfile), "WS_ADDR="+site, "BACKENDS="+one+" "+two)

	conns := make(map[string]*websocket.Conn)
	for range 20 { // a backend may still be starting
		ws := caddy.Dial("wss://"+site+"/ws", nil)
		answer := exchange(t, ws, "tom")
		if !strings.HasSuffix(answer, ": tom from 127.0.0.1") {
			t.Fatalf("answer %q, want the address at its end", answer)
		}
		conns[strings.Fields(answer)[1]] = ws
		if len(conns) == 2 {
			break
		}
	}
	if len(conns) != 2 {
		t.Fatalf("all handshakes went to %v", conns)
	}
	if err := caddy.Reload(string(caddyfile) + "\n# changed\n"); err != nil {
		t.Fatal(err)
	}
	stopOne()
	_ = conns["one:"].SetReadDeadline(time.Now().Add(20 * time.Second))
	if _, _, err := conns["one:"].ReadMessage(); !websocket.IsCloseError(err, 1001) {
		t.Errorf("the client of the dead backend ends with %v, want 1001", err)
	}
	if got := exchange(t, conns["two:"], "still"); got != "backend two: still from 127.0.0.1" {
		t.Errorf("the other backend's client is answered with %q", got)
	}
	if got := exchange(t, caddy.Dial("wss://"+site+"/ws", nil), "back"); got != "backend two: back from 127.0.0.1" {
		t.Errorf("who comes back is answered with %q", got)
	}
}
