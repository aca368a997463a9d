package websocket_test

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	gorilla "github.com/gorilla/websocket"

	"github.com/caddy-websocket/caddy-websocket/gateway"
)

func init() { caddy.RegisterModule(&hanging{}) }

// hanging is logic whose OnMessage echoes, and then never returns: `logic hanging`.
type hanging struct{ gateway.NopLogic }

func (*hanging) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "websocket.logic.hanging", New: func() caddy.Module { return new(hanging) }}
}

func (*hanging) UnmarshalCaddyfile(*caddyfile.Dispenser) error { return nil }

func (*hanging) OnMessage(c *gateway.Client, m gateway.Message) error {
	_ = c.Send(m)
	select {}
}

// childConfig names the variable with the file that this program serves as Caddy,
// instead of being a test: what ends a process cannot be tested in one's own.
const childConfig = "WEBSOCKET_TEST_CHILD"

// runChild is Caddy until it is told to end.
func runChild(file string) int {
	config, err := os.ReadFile(file)
	if err == nil {
		caddy.TrapSignals()
		err = caddy.Load(config, true)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	select {}
}

// startChild runs sites in a process of its own. What it returns sends SIGTERM and
// waits for the end.
func startChild(t *testing.T, globals, sites string) (s *server, terminate func() error) {
	t.Helper()
	s = newServer(t)
	config, err := adapt(t, s.caddyfile(globals, sites))
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "caddy.json")
	if err := os.WriteFile(file, config, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0]) //nolint:gosec // this program
	cmd.Env = append(os.Environ(), childConfig+"="+file)
	output, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	copied := make(chan struct{})
	go func() {
		defer close(copied)
		_, _ = io.Copy(s.log, output)
	}()
	ended := make(chan error, 1)
	go func() {
		<-copied
		ended <- cmd.Wait()
	}()
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	s.waitFor("the child's certificate", func() bool {
		pem, err := os.ReadFile(filepath.Join(home, "storage", "pki", "authorities", "local", "root.crt"))
		s.roots = x509.NewCertPool()
		return err == nil && s.roots.AppendCertsFromPEM(pem)
	})
	s.waitForCertificate()
	return s, func() error {
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		select {
		case err := <-ended:
			return err
		case <-time.After(wait):
			return errors.New("it goes on")
		}
	}
}

// A process that waits for its sockets is killed by systemd and Docker, and then
// nobody is told anything. Without a grace period Caddy waits for requests for ever,
// and a socket over HTTP/2 or HTTP/3 is one.
func TestSIGTERMIsNotHeldByStreams(t *testing.T) {
	b := newBackend(t, false)
	s, terminate := startChild(t, "websocket {\n drain_timeout 2s\n}", `HTTPS {
	websocket /ws {
		logic echo
	}
	websocket /proxied {
		reverse_proxy `+b.addr()+`
	}
	websocket /hanging {
		logic hanging
	}
}`)
	var clients, hanging []*client
	for _, proto := range protocols {
		by := s.over(proto)
		own, proxied, hangs := s.dialBy(by, "wss:/ws"), s.dialBy(by, "wss:/proxied"), s.dialBy(by, "wss:/hanging")
		own.ask("x", "x")
		fields(t, proxied)
		proxied.ask("x", "x")
		hangs.ask("x", "x")
		clients, hanging = append(clients, own, proxied), append(hanging, hangs)
	}
	closed := make(chan struct{})
	for _, c := range clients {
		go func() {
			defer func() { closed <- struct{}{} }()
			_ = c.SetReadDeadline(time.Now().Add(wait))
			if _, _, err := c.ReadMessage(); !gorilla.IsCloseError(err, gateway.CloseGoingAway) {
				t.Errorf("a client's end is %v, want 1001", err)
			}
		}()
	}
	for _, c := range hanging { // told, too, though nobody will hear the answer
		go func() {
			defer func() { closed <- struct{}{} }()
			for {
				if _, _, err := c.ReadMessage(); err != nil {
					return
				}
			}
		}()
	}
	began := time.Now()
	err := terminate()
	if took := time.Since(began); err != nil || took > 8*time.Second {
		t.Errorf("ended with %v after %s", err, took)
	}
	for range len(clients) + len(hanging) {
		<-closed
	}
	s.log.wait(t, "callback still runs and is not waited for", "endpoint", "/hanging")
}
