package e2e

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/caddy-websocket/caddy-websocket/e2e/internal/e2etest"
)

// A deployment that reloads and then stops does not wait in between: whatever the reload is
// at, everybody is closed in order, and nothing hangs.
func TestShutdownDuringAReload(t *testing.T) {
	for name, c := range map[string]struct {
		logic string // of the new configuration
		// during returns when the reload is where the signal is to meet it.
		during func(t *testing.T, caddy *e2etest.Caddy, ws *websocket.Conn)
	}{
		// Modules of the new configuration are being made; nobody is served by them yet.
		"while it provisions": {"trial two 1s", func(_ *testing.T, caddy *e2etest.Caddy, _ *websocket.Conn) {
			caddy.WaitLog(func(entry map[string]any) bool { return entry["msg"] == "trial provisions" })
		}},
		// The new configuration serves; the old one waits for a callback to return.
		"while the old one ends": {"trial two", func(t *testing.T, _ *e2etest.Caddy, ws *websocket.Conn) {
			for exchange(t, ws, "tag") != "two" {
				time.Sleep(10 * time.Millisecond)
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			addr := fmt.Sprintf("127.0.0.1:%d", e2etest.ReservePort(t))
			config := func(logic string) string {
				return trialCaddyfile("websocket {\n drain_timeout 3s\n }", "websocket /trial {\n logic "+logic+"\n }", addr, "")
			}
			caddy := e2etest.StartProgram(t, e2etest.Program(t, "./internal/trialcaddy"), t.TempDir(), config("trial one"))
			url := "ws://" + addr + "/trial"
			const others = 5
			watched := dialTrial(t, caddy, url, others)
			busy := caddy.Dial(url, nil)
			if got := exchange(t, busy, "busy"); got != "busy" {
				t.Fatalf("answer %q", got)
			}
			if err := busy.WriteMessage(websocket.TextMessage, []byte("sleep 1s")); err != nil {
				t.Fatal(err)
			}
			watched = append(watched, watch(busy))
			asker := caddy.Dial(url, nil)

			reloaded := make(chan error, 1)
			go func() { reloaded <- caddy.Load(config(c.logic)) }()
			c.during(t, caddy, asker)
			caddy.Signal(syscall.SIGTERM)
			wantGoingAway(t, "clients", append(watched, watch(asker)))
			wantExit(t, caddy, 0)
			t.Logf("the reload was answered with: %v", <-reloaded)
			wantGone(t, caddy, map[string]int{"/trial": others + 2})
		})
	}
}

// Clients of an endpoint that a reload has removed go one by one. When the server stops
// before they are through, those that are left go with all the others.
func TestShutdownWhileClientsOfARemovedEndpointAreClosed(t *testing.T) {
	addr := fmt.Sprintf("127.0.0.1:%d", e2etest.ReservePort(t))
	const drain = 2 * time.Second
	both := trialCaddyfile("websocket {\n drain_timeout 2s\n close_rate 1\n }",
		"websocket /trial {\n logic trial\n }\n websocket /removed {\n logic trial\n }", addr, "")
	caddy := e2etest.StartProgram(t, e2etest.Program(t, "./internal/trialcaddy"), t.TempDir(), both)
	const each = 20
	staying := dialTrial(t, caddy, "ws://"+addr+"/trial", each)
	removed := dialTrial(t, caddy, "ws://"+addr+"/removed", each)

	reloaded := make(chan error, 1)
	go func() { reloaded <- caddy.Load(strings.Replace(both, "websocket /removed {\n logic trial\n }", "", 1)) }()
	caddy.WaitLog(func(entry map[string]any) bool {
		return entry["msg"] == "client gone" && entry["endpoint"] == "/removed"
	})
	start := time.Now()
	caddy.Signal(syscall.SIGTERM)
	wantGoingAway(t, "of the removed endpoint", removed)
	wantGoingAway(t, "of the other", staying)
	wantExit(t, caddy, 0)
	took := time.Since(start)
	t.Logf("the exit took %s; the reload was answered with: %v", took, <-reloaded)
	// The reload waits for the old clients, and then the shutdown for the rest.
	if most := 2*drain + 250*time.Millisecond + exitSlack; took > most {
		t.Errorf("the exit took %s, want %s at most", took, most)
	}
	wantGone(t, caddy, map[string]int{"/trial": each, "/removed": each})
}
