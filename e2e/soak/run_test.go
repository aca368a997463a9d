package soak

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/caddy-websocket/caddy-websocket/e2e/internal/e2etest"
)

// samples are a server's at the four moments of a run.
type samples struct {
	before  sample // nobody has connected yet
	full    sample // all are connected, nothing was reloaded yet
	after   sample // all are connected, after the last reload
	at      int    // how many connections there were after the last reload
	gone    sample // all have gone
	reloads reloads
}

// reloads counts them and how long those took that were not refused.
type reloads struct {
	done, refused int
	total, worst  time.Duration
	took          time.Duration // all of it, with the pauses between
}

func (r *reloads) add(d time.Duration) {
	r.done++
	r.total += d
	r.worst = max(r.worst, d)
}

// reload gives Caddy one configuration after the other, one in five by the command that
// users run. check is called after each with the tag that must be in force.
func reload(t *testing.T, caddy *e2etest.Caddy, c *configs, check func(tag string)) reloads {
	t.Helper()
	var r reloads
	start := time.Now()
	for n := range *flagReloads {
		time.Sleep(jitter(*flagGap))
		change := c.change(n)
		load := caddy.Load
		if n%5 == 0 {
			load = caddy.Reload
		}
		began := time.Now()
		err := load(change.config)
		switch {
		case change.broken && err == nil:
			t.Fatalf("reload %d: a configuration with %s was loaded", n, change.what)
		case !change.broken && err != nil:
			t.Fatalf("reload %d, with %s: %v", n, change.what, err)
		case change.broken:
			r.refused++
		default:
			r.add(time.Since(began))
		}
		check(c.tag)
	}
	r.took = time.Since(start)
	return r
}

// watcher holds a connection to the logic through the whole run.
type watcher struct {
	t       *testing.T
	ws      *websocket.Conn
	answers chan string
	err     error // why there are no more answers; written before answers is closed
}

func newWatcher(t *testing.T, ws *websocket.Conn) *watcher {
	w := &watcher{t: t, ws: ws, answers: make(chan string)}
	go func() { // all the time, since pings want their answers
		defer close(w.answers)
		for {
			_, answer, err := ws.ReadMessage()
			if err != nil {
				w.err = err
				return
			}
			w.answers <- string(answer)
		}
	}()
	return w
}

func (w *watcher) ask(question string) string {
	w.t.Helper()
	if err := w.ws.WriteMessage(websocket.TextMessage, []byte(question)); err != nil {
		w.t.Fatalf("asking for %s: %v", question, err)
	}
	select {
	case answer, ok := <-w.answers:
		if !ok {
			w.t.Fatalf("waiting for %s: %v", question, w.err)
		}
		return answer
	case <-time.After(patience):
		w.t.Fatalf("no answer to %s within %s", question, patience)
	}
	return ""
}

// counts asks the logic how many clients it has seen come and go; the watcher itself is
// one that has come.
func (w *watcher) counts() (opens, closes, panics int64) {
	w.t.Helper()
	var counts struct{ Opens, Closes, Panics int64 }
	answer := w.ask("counts")
	if err := json.Unmarshal([]byte(answer), &counts); err != nil {
		w.t.Fatalf("counts: %v in %q", err, answer)
	}
	return counts.Opens, counts.Closes, counts.Panics
}

// eventually waits until check returns nothing, and fails the test with what it returns
// if that takes too long.
func eventually(t *testing.T, check func() string) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(200 * time.Millisecond) {
		wrong := check()
		if wrong == "" {
			return
		}
		if time.Now().After(deadline) {
			t.Errorf("%s: still so after %s", wrong, patience)
			return
		}
	}
}

// comings counts the log's lines of clients that came and went, the latter by who they
// were (the part of the user's name before the dash) and with which code they ended; and of
// those who went before their handshake was over.
func comings(caddy *e2etest.Caddy) (connected, gone int, codes map[string]map[int]int64, lost int64) {
	codes = make(map[string]map[int]int64)
	for _, entry := range caddy.Log() {
		switch entry["msg"] {
		case "client connected":
			connected++
		case "client gone":
			gone++
			who, _, _ := strings.Cut(fmt.Sprint(entry["user"]), "-")
			code, _ := entry["code"].(float64)
			if codes[who] == nil {
				codes[who] = make(map[int]int64)
			}
			codes[who][int(code)]++
		case "client lost during the handshake":
			lost++
		}
	}
	return connected, gone, codes, lost
}
