package soak

import (
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/caddy-websocket/caddy-websocket/e2e/internal/e2etest"
)

// protocols are what the clients of a wave come over.
var protocols = []string{"HTTP/1.1", "HTTP/2", "HTTP/3"}

// A server that has been replaced, or is about to end, has sockets over HTTP/2 and HTTP/3
// in its requests. Whoever must go is told before it is cut, while all are talking;
// whoever may stay does not notice. And the process ends when it was to.
func TestStreamsAreToldWhenTheyMustGo(t *testing.T) {
	const (
		grace    = 4 * time.Second
		farewell = time.Second // how long before its end clients are told
		drain    = 10 * time.Second
	)
	back := startBackend(t)
	c := newConfigs(t, inCaddy(back.addr))
	options := fmt.Sprintf("websocket {\n\t\tdrain_timeout %s\n\t}\n", drain)
	caddy := e2etest.StartProgram(t, e2etest.Program(t, "./internal/trialcaddy"), t.TempDir(), c.caddyfile(options), withHTTP2)
	site := fmt.Sprintf("localhost:%d", c.port)
	l := newLoad(t, "wss://"+site, caddy.CertPool())
	reload := func(tag, option string) {
		t.Helper()
		c.tag = tag
		if err := caddy.Load(c.caddyfile(options + option)); err != nil {
			t.Fatal(err)
		}
	}

	// Who comes first is on a server that is replaced, and waits for ever.
	waves := []*wave{newWave(l, caddy, site)}
	reload("second", fmt.Sprintf("grace_period %s\n", grace))
	last := newWave(l, caddy, site)
	waves = append(waves, last)
	reloaded := time.Now()
	reload("third", "")
	for _, proto := range protocols[1:] {
		book := last.books[proto]
		eventually(t, func() string {
			if opened := book.opened.Load(); opened < 2*last.n {
				return fmt.Sprintf("after a reload with grace_period %d of %d clients over %s are back", opened-last.n, last.n, proto)
			}
			return ""
		})
		book.mu.Lock()
		t.Logf("over %s the first was told %s after the reload", proto, book.since.Sub(reloaded))
		if book.since.Sub(reloaded) < grace-farewell {
			t.Errorf("over %s the first was told %s after the reload, with grace_period %s", proto, book.since.Sub(reloaded), grace)
		}
		book.mu.Unlock()
	}
	ends := func(w *wave, proto string) string {
		if w == last && proto != "HTTP/1.1" {
			return fmt.Sprintf("%d closed with 1012", w.n)
		}
		return ""
	}
	for i, w := range waves {
		for _, proto := range protocols {
			if why, _, _ := w.books[proto].tallies(); why != ends(w, proto) {
				t.Errorf("after the reload: those of wave %d over %s that ended: %q, want %q", i, proto, why, ends(w, proto))
			}
		}
	}

	// A connection of HTTP/2 that comes in the very moment in which the server ends is
	// forgotten, and waited for: https://go.dev/issue/81153.
	l.adieu.Store(true)
	told := time.Now()
	caddy.Signal(syscall.SIGTERM)
	if code := caddy.Ended(); code != 0 {
		t.Errorf("caddy ended with %d", code)
	}
	t.Logf("caddy ended %s after SIGTERM", time.Since(told))
	if took := time.Since(told); took > drain {
		t.Errorf("caddy ended %s after SIGTERM, with drain_timeout %s", took, drain)
	}
	for i, w := range waves {
		for _, proto := range protocols {
			book := w.books[proto]
			eventually(t, func() string {
				if left := l.connected(book); left != 0 {
					return fmt.Sprintf("%d clients of wave %d over %s have not seen their end", left, i, proto)
				}
				return ""
			})
			want := fmt.Sprintf("%d closed with 1001", w.n)
			if before := ends(w, proto); before != "" {
				want += ", " + before
			}
			if why, _, _ := book.tallies(); why != want {
				t.Errorf("after SIGTERM: those of wave %d over %s ended: %s, want %s", i, proto, why, want)
			}
			if wrong := book.wrong.Load(); wrong != 0 || book.answered.Load() == 0 {
				t.Errorf("wave %d over %s: %d answers were others than were due, %d were right", i, proto, wrong, book.answered.Load())
			}
		}
	}
	l.finish()
	for _, entry := range caddy.Log() {
		if entry["msg"] == "trial counts" && entry["opens"] != entry["closes"] {
			t.Errorf("OnConnect was called %v times, OnClose %v times", entry["opens"], entry["closes"])
		}
	}
}

// wave are clients that come at once, over each protocol as many, and come back when they
// are closed.
type wave struct {
	n     int64 // over each protocol
	books map[string]*ledger
}

// newWave returns when all are connected.
func newWave(l *load, caddy *e2etest.Caddy, site string) *wave {
	half := max(*flagStreams/4, 1)
	w := &wave{n: int64(2 * half), books: make(map[string]*ledger)}
	for _, proto := range protocols {
		dial := l.over
		if proto != "HTTP/1.1" {
			dial = newLines(l.t, caddy, proto, site, *flagShared).dial
		}
		w.books[proto] = newLedger()
		for _, path := range []string{"/trial", "/proxied"} {
			l.add(half, group{name: "wave", path: path, book: w.books[proto], dial: dial, role: stays})
		}
	}
	l.first.Wait()
	return w
}
