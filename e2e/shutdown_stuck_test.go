package e2e

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/caddy-websocket/caddy-websocket/e2e/internal/e2etest"
)

// exitSlack is for what is not the product's: signals, Caddy's other apps, a busy machine.
const exitSlack = 2 * time.Second

// startHanging opens a connection whose OnMessage never returns, and returns its id and how
// it ends.
func startHanging(t *testing.T, caddy *e2etest.Caddy, url string) (id string, ended <-chan ending) {
	t.Helper()
	ws := caddy.Dial(url, nil)
	if err := ws.WriteMessage(websocket.TextMessage, []byte("hang")); err != nil {
		t.Fatal(err)
	}
	entry := caddy.WaitLog(func(entry map[string]any) bool { return entry["msg"] == "trial hangs" })
	return fmt.Sprint(entry["client"]), watch(ws)
}

// A bug in somebody's logic must not turn a deployment into a kill: the callback that never
// returns is named, so that it can be found, and not waited for; all others are closed in
// order.
func TestCallbackThatNeverReturnsIsNamedAndNotWaitedFor(t *testing.T) {
	const drain = time.Second
	caddy, addr := startTrial(t, "websocket {\n drain_timeout 1s\n }", "websocket /trial {\n logic trial\n }")
	url := "ws://" + addr + "/trial"
	id, hanging := startHanging(t, caddy, url)
	onClose := caddy.Dial(url, nil)
	if got := exchange(t, onClose, "hang on close"); got != "hang on close" {
		t.Fatalf("answer %q", got)
	}
	const others = 10
	watched := append(dialTrial(t, caddy, url, others), watch(onClose))

	start := time.Now()
	caddy.Signal(syscall.SIGTERM)
	wantGoingAway(t, "others", watched)
	if e := <-hanging; !websocket.IsCloseError(e.err, websocket.CloseGoingAway) { // and then its process ends
		t.Errorf("the client of the callback ends with %v, want 1001", e.err)
	}
	wantExit(t, caddy, 0)
	took := time.Since(start)
	t.Logf("the exit took %s, drain_timeout is %s", took, drain)
	if took < drain || took > drain+250*time.Millisecond+exitSlack {
		t.Errorf("the exit took %s, want drain_timeout of %s and a quarter of a second", took, drain)
	}

	named := make(map[string]string)
	gone := 0
	for _, entry := range caddy.Log() {
		switch {
		case entry["msg"] == "client gone":
			gone++
		case strings.Contains(fmt.Sprint(entry["msg"]), "is not waited for") && entry["endpoint"] == "/trial":
			named[fmt.Sprint(entry["callback"])] = fmt.Sprint(entry["client"])
		}
	}
	if gone != others {
		t.Errorf("%d clients are gone, want all %d that could go", gone, others)
	}
	if named["OnMessage"] != id || named["OnClose"] == "" || len(named) != 2 {
		t.Errorf("named are %v, want OnMessage of %s, and OnClose", named, id)
	}
}

// A phone in a tunnel reads nothing, and what waits for it fills its queue: the close frame
// never goes out, and the stop is over in time all the same.
func TestClientThatReadsNothingDoesNotHoldUpTheShutdown(t *testing.T) {
	const drain = time.Second
	backend, backendEnds := startWatcher(t)
	caddy, addr := startTrial(t, "websocket {\n drain_timeout 1s\n }",
		"websocket /trial {\n logic trial\n send_buffer 1MiB drop_newest\n }\n websocket /proxied {\n reverse_proxy "+backend+"\n }")
	stalled := caddy.Dial("ws://"+addr+"/trial", nil)
	if err := stalled.WriteMessage(websocket.TextMessage, []byte("fill")); err != nil {
		t.Fatal(err)
	}
	flooded := caddy.Dial("ws://"+addr+"/proxied", nil)
	if err := flooded.WriteMessage(websocket.TextMessage, []byte("flood")); err != nil {
		t.Fatal(err)
	}
	caddy.WaitLog(func(entry map[string]any) bool { return entry["msg"] == "trial filled" })
	const others = 5
	watched := append(dialTrial(t, caddy, "ws://"+addr+"/trial", others), dialTrial(t, caddy, "ws://"+addr+"/proxied", others)...)

	start := time.Now()
	caddy.Signal(syscall.SIGTERM)
	wantGoingAway(t, "others", watched)
	wantExit(t, caddy, 0)
	took := time.Since(start)
	t.Logf("the exit took %s, drain_timeout is %s", took, drain)
	if took < drain || took > drain+250*time.Millisecond+exitSlack { // less: nobody was stalled
		t.Errorf("the exit took %s, want drain_timeout of %s", took, drain)
	}
	wantGone(t, caddy, map[string]int{"/trial": others + 1, "/proxied": others + 1})
	for range others + 1 { // the way to the backend was not stalled
		if err := <-backendEnds; !websocket.IsCloseError(err, websocket.CloseGoingAway) {
			t.Errorf("the backend's connection ends with %v, want 1001", err)
		}
	}
}

// startDownload begins a download through Caddy that goes on until it is released, and
// returns the rest of it, once it is there.
func startDownload(t *testing.T) (backend string, begin func(addr string) (rest <-chan string), release func()) {
	t.Helper()
	released := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, "begin ")
		_ = http.NewResponseController(w).Flush()
		select {
		case <-released:
			fmt.Fprint(w, "end")
		case <-r.Context().Done():
		}
	}))
	t.Cleanup(server.Close)
	begin = func(addr string) <-chan string {
		res, err := http.Get("http://" + addr + "/download")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { res.Body.Close() })
		if _, err := io.ReadFull(res.Body, make([]byte, len("begin "))); err != nil {
			t.Fatal(err)
		}
		rest := make(chan string, 1)
		go func() {
			body, err := io.ReadAll(res.Body)
			if err != nil {
				body = []byte(err.Error())
			}
			rest <- string(body)
		}()
		return rest
	}
	return server.Listener.Addr().String(), begin, func() { close(released) }
}

// Caddy waits for downloads without end. WebSocket clients are told at once meanwhile, or
// they would sit there until the process is killed; and who has no patience can end it.
func TestDownloadDoesNotKeepClientsFromBeingTold(t *testing.T) {
	logged := func(msg, signal string) func(map[string]any) bool {
		return func(entry map[string]any) bool { return entry["msg"] == msg && entry["signal"] == signal }
	}
	for name, c := range map[string]struct {
		first syscall.Signal
		then  func(*e2etest.Caddy) // nil: the download ends
		code  int
	}{
		"SIGTERM": {syscall.SIGTERM, nil, 0},
		"SIGINT, SIGINT": {syscall.SIGINT, func(c *e2etest.Caddy) {
			c.Signal(syscall.SIGINT)
		}, 2},
		// Caddy counts SIGINTs only: the first one after SIGTERM ends nothing.
		"SIGTERM, SIGINT, SIGINT": {syscall.SIGTERM, func(c *e2etest.Caddy) {
			c.Signal(syscall.SIGINT)
			c.WaitLog(logged("shutting down", "SIGINT"))
			c.Signal(syscall.SIGINT)
		}, 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			backend, begin, release := startDownload(t)
			caddy, addr := startTrial(t, "", "websocket /trial {\n logic trial\n }\n reverse_proxy /download "+backend)
			watched := dialTrial(t, caddy, "ws://"+addr+"/trial", 5)
			rest := begin(addr)

			caddy.Signal(c.first)
			wantGoingAway(t, "during a download", watched)
			select {
			case <-caddy.Exited():
				t.Error("the process has ended and cut the download")
			default:
			}
			if c.then == nil {
				release()
				if got := <-rest; got != "end" {
					t.Errorf("the rest of the download is %q", got)
				}
			} else {
				start := time.Now()
				c.then(caddy)
				<-caddy.Exited()
				if took := time.Since(start); took > exitSlack {
					t.Errorf("the process ended %s after it was told to for the last time", took)
				}
			}
			wantExit(t, caddy, c.code)
		})
	}
}

// SIGQUIT is Caddy's way to end at once, with nothing said to anybody.
func TestSIGQUITEndsTheProcessAtOnce(t *testing.T) {
	backend, begin, _ := startDownload(t)
	caddy, addr := startTrial(t, "", "websocket /trial {\n logic trial\n }\n reverse_proxy /download "+backend)
	startHanging(t, caddy, "ws://"+addr+"/trial")
	begin(addr)
	start := time.Now()
	caddy.Signal(syscall.SIGQUIT)
	wantExit(t, caddy, 2)
	if took := time.Since(start); took > exitSlack {
		t.Errorf("the process ended %s after SIGQUIT", took)
	}
}
