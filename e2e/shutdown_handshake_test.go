package e2e

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Who comes while the server stops is told when to come again, or finds nobody: never a
// connection that ends at once, an error 500, or an answer that does not come.
func TestHandshakesDuringAShutdownAreRefused(t *testing.T) {
	for name, c := range map[string]struct {
		options string
		must503 bool
	}{
		"listeners close at once":           {"", false},
		"listeners stay for shutdown_delay": {"shutdown_delay 700ms", true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			caddy, addr := startTrial(t, "websocket {\n drain_timeout 1s\n }\n"+c.options, "websocket /trial {\n logic trial\n }")
			startHanging(t, caddy, "ws://"+addr+"/trial") // so that the stop takes its time
			first := dialTrial(t, caddy, "ws://"+addr+"/trial", 1)
			var kept []*rawConn
			for range 50 {
				conn, err := dialRaw(addr)
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				if status, _, err := conn.get("/page", false); status != http.StatusOK || err != nil {
					t.Fatalf("a page is answered with %d, %v", status, err)
				}
				kept = append(kept, conn)
			}

			caddy.Signal(syscall.SIGTERM)
			wantGoingAway(t, "the first", first)
			answers := make(map[string]int)
			try := func(kind string, conn *rawConn) {
				status, header, err := conn.get("/trial", true)
				switch {
				case err != nil:
					answers[kind+" closed"]++
				case status == http.StatusServiceUnavailable && header.Get("Retry-After") != "":
					answers[kind+" 503"]++
				default:
					t.Errorf("%s: a handshake during the shutdown is answered with %d %v, want 503 with Retry-After", kind, status, header)
				}
			}
			for i := 0; ; i++ {
				if i < len(kept) {
					try("kept", kept[i])
				}
				if conn, err := dialRaw(addr); err != nil {
					answers["refused"]++
				} else {
					try("new", conn)
					conn.Close()
				}
				select {
				case <-caddy.Exited():
				case <-time.After(20 * time.Millisecond):
					continue
				}
				break
			}
			wantExit(t, caddy, 0)
			t.Logf("answers: %v", answers)
			if c.must503 && (answers["kept 503"] == 0 || answers["new 503"] == 0) {
				t.Errorf("answers were %v, want 503 while the listeners are open", answers)
			}
			for _, entry := range caddy.Log() {
				if strings.Contains(fmt.Sprint(entry["msg"], entry["error"]), "panic") {
					t.Errorf("logged: %v", entry)
				}
			}
		})
	}
}

// A handshake is an HTTP request, and Caddy waits for requests without end: logic that asks
// a database in OnConnect, or a backend, which does not answer, must not keep the process
// from ending either.
func TestHandshakeThatIsNeverAnsweredDoesNotHoldUpTheShutdown(t *testing.T) {
	const drain = time.Second
	for name, path := range map[string]string{"OnConnect": "/trial?connect=hang", "backend": "/proxied"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			silent, asked := startSilent(t)
			caddy, addr := startTrial(t, "websocket {\n drain_timeout 1s\n }",
				"websocket /trial {\n logic trial\n }\n websocket /proxied {\n reverse_proxy "+silent+"\n }")
			watched := dialTrial(t, caddy, "ws://"+addr+"/trial", 3)
			conn, err := dialRaw(addr)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			answered := make(chan int, 1)
			go func() {
				status, _, _ := conn.get(path, true) // 0 if there is no answer
				answered <- status
			}()
			if path == "/proxied" {
				<-asked
			} else {
				caddy.WaitLog(func(entry map[string]any) bool { return entry["msg"] == "trial hangs" })
			}

			start := time.Now()
			caddy.Signal(syscall.SIGTERM)
			wantGoingAway(t, "others", watched)
			wantExit(t, caddy, 0)
			if took := time.Since(start); took > drain+250*time.Millisecond+exitSlack {
				t.Errorf("the exit took %s, want drain_timeout of %s", took, drain)
			}
			// 499 is what Caddy's proxy says of a request that was given up.
			if status := <-answered; status != http.StatusServiceUnavailable && status != 499 {
				t.Errorf("the handshake is answered with %d, want 503", status)
			}
		})
	}
}

// startSilent is a backend that answers nothing. asked is closed when it has been asked.
func startSilent(t *testing.T) (addr string, asked <-chan struct{}) {
	t.Helper()
	came := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		close(came)
		<-r.Context().Done()
	}))
	t.Cleanup(server.Close)
	return server.Listener.Addr().String(), came
}
