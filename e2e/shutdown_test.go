package e2e

import (
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"syscall"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/caddy-websocket/caddy-websocket/e2e/internal/e2etest"
)

// trialCaddyfile has the directives in a site on the plain address, and if there is a
// secure one in a site on that, too. Each address is host:port.
func trialCaddyfile(options, directives, plain, secure string) string {
	config := fmt.Sprintf(`{
	auto_https disable_redirects
	skip_install_trust
	%s
}
(site) {
	bind 127.0.0.1
	%s
	respond /page "no socket"
}
http://%s {
	import site
}
`, options, directives, plain)
	if secure != "" {
		config += fmt.Sprintf("https://%s {\n\ttls internal\n\timport site\n}\n", secure)
	}
	return config
}

// startTrial runs trialcaddy with the directives in a plain site.
func startTrial(t *testing.T, options, directives string) (caddy *e2etest.Caddy, addr string) {
	t.Helper()
	addr = fmt.Sprintf("127.0.0.1:%d", e2etest.ReservePort(t))
	caddy = e2etest.StartProgram(t, e2etest.Program(t, "./internal/trialcaddy"), t.TempDir(),
		trialCaddyfile(options, directives, addr, ""))
	return caddy, addr
}

// ending is how a connection ended for the client.
type ending struct {
	err error     // of reading; a *websocket.CloseError if a close frame came
	cut error     // what came after the close frame, nil if that was the end
	at  time.Time // when
}

// isGoingAway tells whether it ended in order, by a close frame 1001.
func (e ending) isGoingAway() bool {
	return websocket.IsCloseError(e.err, websocket.CloseGoingAway) && e.cut == nil
}

func (e ending) String() string { return fmt.Sprintf("%v, then %v", e.err, e.cut) }

// watch reads, and answers a close frame, until the connection ends.
func watch(ws *websocket.Conn) <-chan ending {
	ended := make(chan ending, 1)
	go func() {
		var e ending
		for e.err == nil {
			_, _, e.err = ws.ReadMessage()
		}
		e.at = time.Now()
		if websocket.IsCloseError(e.err, websocket.CloseGoingAway) {
			_, e.cut = io.Copy(io.Discard, ws.NetConn())
		}
		ended <- e
	}()
	return ended
}

// dialTrial opens n connections and watches them.
func dialTrial(t *testing.T, caddy *e2etest.Caddy, url string, n int) []<-chan ending {
	t.Helper()
	watched := make([]<-chan ending, n)
	for i := range watched {
		watched[i] = watch(caddy.Dial(url, nil))
	}
	return watched
}

// endings waits for all, which the process need not have outlived.
func endings(t *testing.T, watched []<-chan ending) []ending {
	t.Helper()
	var all []ending
	deadline := time.After(15 * time.Second)
	for i, w := range watched {
		select {
		case e := <-w:
			all = append(all, e)
		case <-deadline:
			t.Fatalf("%d of %d clients have not been closed", len(watched)-i, len(watched))
		}
	}
	return all
}

// wantGoingAway waits for all to end in order.
func wantGoingAway(t *testing.T, who string, watched []<-chan ending) {
	t.Helper()
	for _, e := range endings(t, watched) {
		if !e.isGoingAway() {
			t.Errorf("%s: a client ends with %v, want 1001 and the end", who, e)
		}
	}
}

// wantExit waits for the end of the process.
func wantExit(t *testing.T, caddy *e2etest.Caddy, want int) {
	t.Helper()
	if code := caddy.Ended(); code != want {
		t.Errorf("exit code %d, want %d", code, want)
	}
}

// wantGone looks in the log of a process that has ended for how many clients of which
// endpoint it has closed with 1001, and whether OnClose was called for all that trial had.
func wantGone(t *testing.T, caddy *e2etest.Caddy, want map[string]int) {
	t.Helper()
	gone := make(map[string]int)
	var opens, closes any
	for _, entry := range caddy.Log() {
		switch entry["msg"] {
		case "client gone":
			endpoint := fmt.Sprint(entry["endpoint"])
			if entry["code"] != 1001.0 || entry["by_peer"] != false {
				endpoint += fmt.Sprintf(" with %v %v", entry["code"], entry["reason"])
			}
			gone[endpoint]++
		case "trial counts":
			opens, closes = entry["opens"], entry["closes"]
		}
	}
	if !maps.Equal(gone, want) {
		t.Errorf("clients are gone from %v, want them, with 1001, from %v", gone, want)
	}
	if opens == nil || opens != closes {
		t.Errorf("OnClose was called %v times, after %v of OnConnect", closes, opens)
	}
}

// wantNoErrors looks for what an operator should be woken up by.
func wantNoErrors(t *testing.T, caddy *e2etest.Caddy) {
	t.Helper()
	for _, entry := range caddy.Log() {
		if level := entry["level"]; level != "debug" && level != "info" && level != "warn" {
			t.Errorf("logged: %v", entry)
		}
	}
}

// startWatcher is a backend that tells how its connections end. It floods who asks for it.
func startWatcher(t *testing.T) (addr string, ended <-chan error) {
	t.Helper()
	const most = 100
	ends := make(chan error, most)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ws, err := new(websocket.Upgrader).Upgrade(w, r, nil)
		if err != nil {
			ends <- err
			return
		}
		defer ws.Close()
		for {
			_, message, err := ws.ReadMessage()
			if err != nil {
				ends <- err
				return
			}
			if string(message) != "flood" {
				continue
			}
			go func() {
				for ws.WriteMessage(websocket.BinaryMessage, make([]byte, 64<<10)) == nil {
				}
			}()
		}
	}))
	t.Cleanup(server.Close)
	return server.Listener.Addr().String(), ends
}

// Every way in which people stop a server says goodbye to everybody: in process and
// proxied, over TLS and not, idle and with a callback that is running. Nothing is cut, and
// OnClose, where applications save, has run for each when the process ends.
func TestEveryWayToStopClosesEveryClient(t *testing.T) {
	for name, stop := range map[string]func(*e2etest.Caddy) error{
		"SIGTERM":    func(c *e2etest.Caddy) error { c.Signal(syscall.SIGTERM); return nil },
		"SIGINT":     func(c *e2etest.Caddy) error { c.Signal(syscall.SIGINT); return nil },
		"caddy stop": (*e2etest.Caddy).StopCommand,
		"POST /stop": func(c *e2etest.Caddy) error { return c.AdminPost("/stop") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			backend, backendEnds := startWatcher(t)
			plain := fmt.Sprintf("127.0.0.1:%d", e2etest.ReservePort(t))
			secure := fmt.Sprintf("localhost:%d", e2etest.ReservePort(t))
			caddy := e2etest.StartProgram(t, e2etest.Program(t, "./internal/trialcaddy"), t.TempDir(),
				trialCaddyfile("", "websocket /trial {\n logic trial\n }\n websocket /proxied {\n reverse_proxy "+backend+"\n }", plain, secure))
			const each = 3
			clients := make(map[string][]<-chan ending)
			for _, url := range []string{"ws://" + plain, "wss://" + secure} {
				for _, path := range []string{"/trial", "/proxied"} {
					clients[url+path] = dialTrial(t, caddy, url+path, each)
				}
			}
			busy := caddy.Dial("ws://"+plain+"/trial", nil)
			if err := busy.WriteMessage(websocket.TextMessage, []byte("sleep 500ms")); err != nil {
				t.Fatal(err)
			}
			clients["busy"] = []<-chan ending{watch(busy)}

			if err := stop(caddy); err != nil {
				t.Errorf("stopping: %v", err)
			}
			for who, watched := range clients {
				wantGoingAway(t, who, watched)
			}
			wantExit(t, caddy, 0)
			wantGone(t, caddy, map[string]int{"/trial": 2*each + 1, "/proxied": 2 * each})
			wantNoErrors(t, caddy)
			for range 2 * each {
				if err := <-backendEnds; !websocket.IsCloseError(err, websocket.CloseGoingAway) {
					t.Errorf("the backend's connection ends with %v, want 1001", err)
				}
			}
		})
	}
}

// A server with many clients is not to be overrun by all of them when it comes back, and
// its operator says how long a stop may take: both numbers come from the Caddyfile.
func TestShutdownKeepsThePaceOfTheCaddyfile(t *testing.T) {
	const clients = 11
	for name, c := range map[string]struct {
		options     string
		least, most time.Duration // from the first to the last close; until the exit
	}{
		// 11 at 10 a second: the last after one second. By default all would go at once.
		"close_rate": {"drain_timeout 6s\n close_rate 10", 700 * time.Millisecond, 6 * time.Second},
		// At one a second it would be ten seconds, and by the default of drain_timeout three.
		"drain_timeout": {"drain_timeout 1s\n close_rate 1", 300 * time.Millisecond, 2500 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			caddy, addr := startTrial(t, "websocket {\n "+c.options+"\n }", "websocket /trial {\n logic trial\n }")
			watched := dialTrial(t, caddy, "ws://"+addr+"/trial", clients)
			start := time.Now()
			caddy.Signal(syscall.SIGTERM)
			all := endings(t, watched)
			wantExit(t, caddy, 0)
			took := time.Since(start)
			first, last := all[0].at, all[0].at
			for _, e := range all {
				if !e.isGoingAway() {
					t.Errorf("a client ends with %v, want 1001 and the end", e)
				}
				if e.at.Before(first) {
					first = e.at
				}
				if e.at.After(last) {
					last = e.at
				}
			}
			t.Logf("closes took %s, the exit %s", last.Sub(first), took)
			if spread := last.Sub(first); spread < c.least {
				t.Errorf("%d clients were closed within %s, want %s at least", clients, spread, c.least)
			}
			if took > c.most {
				t.Errorf("the process ended after %s, want %s at most", took, c.most)
			}
			wantGone(t, caddy, map[string]int{"/trial": clients})
		})
	}
}
