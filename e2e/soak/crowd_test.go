package soak

import (
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/gorilla/websocket"

	"github.com/caddy-websocket/caddy-websocket/e2e/internal/e2etest"
)

// crowd are the lines of one protocol, and what is done to those who share them.
type crowd struct {
	proto string // "HTTP/2" or "HTTP/3"
	book  *ledger
	keep  *lines // for clients that choose themselves when to go
	fall  *lines // lines that are cut

	busy  sync.WaitGroup // cut and sit
	mu    sync.Mutex
	calm  chan struct{}  // closed, by who holds mu, when nobody is to be disturbed any more
	cuts  int            // guarded by mu; lines that were cut with sockets on them
	stuck map[string]int // guarded by mu; how those ended that did not read
}

// newCrowd begins a run over one protocol: n clients, one in three of them on lines that
// are cut every other second; and on every line one that reads nothing.
func newCrowd(l *load, caddy *e2etest.Caddy, proto, site string, n int) *crowd {
	c := &crowd{
		proto: proto, book: newLedger(),
		keep: newLines(l.t, caddy, proto, site, *flagShared),
		fall: newLines(l.t, caddy, proto, site, *flagShared),
		calm: make(chan struct{}), stuck: map[string]int{},
	}
	for _, ls := range []*lines{c.keep, c.fall} {
		ls.opened = func(ln *line) { c.disturb(func() { c.sit(l, ls, ln) }) }
	}
	falling := n / 3
	staying := n - falling
	for path, logic := range map[string]bool{"/trial": true, "/proxied": false} {
		l.add(staying/2, group{name: c.name(), path: path, book: c.book, dial: c.keep.dial, logic: logic})
		l.add(falling/2, group{name: c.name(), path: path, book: c.book, dial: c.fall.dial, role: falls})
	}
	c.disturb(c.cut)
	return c
}

// disturb starts f, unless it is to be calm.
func (c *crowd) disturb(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	select {
	case <-c.calm:
	default:
		c.busy.Go(f)
	}
}

// name is that of the clients in the server's log.
func (c *crowd) name() string { return strings.ReplaceAll(strings.ToLower(c.proto), "/", "") }

// cut cuts lines until it is to be calm.
func (c *crowd) cut() {
	const pause = 2 * time.Second
	for {
		select {
		case <-c.calm:
			return
		case <-time.After(jitter(pause)):
		}
		if c.fall.cutOne() > 0 {
			c.mu.Lock()
			c.cuts++
			c.mu.Unlock()
		}
	}
}

// sit has one socket on the line that asks for more than anybody buffers and reads none
// of it, until the server must have cut it; and then another one.
func (c *crowd) sit(l *load, ls *lines, ln *line) {
	const messages, size = 128, 16 << 10
	for pause := slowTimeout + 4*time.Second; ; {
		ls.mu.Lock()
		ln.sockets++
		ls.mu.Unlock()
		ws, _, err := ls.dialOn(ln, l.url+"/slow?user=stuck-0")
		if err != nil {
			return // no more sockets on this line
		}
		_ = ws.WriteMessage(websocket.TextMessage, fmt.Appendf(nil, "flood %d %d", messages, size)) // the line may have been cut
		select {
		case <-c.calm:
			_ = ws.Close()
			return
		case <-time.After(pause):
		}
		got := 0
		_ = ws.SetReadDeadline(time.Now().Add(patience))
		for err == nil && got < messages {
			if _, _, err = ws.ReadMessage(); err == nil {
				got++
			}
		}
		_ = ws.Close()
		end := "cut"
		switch {
		case ln.cut.Load():
			return
		case got == messages && pause < patience: // the machine is slow, and has only now sent it all
			end, pause = "tried again with a longer pause", 2*pause
		case got == messages || ending(err) != "ended without a close frame":
			end = fmt.Sprintf("%v after %d messages", err, got)
			l.t.Errorf("a client over %s that did not read for %s: %s, want it cut", c.proto, pause, end)
		}
		c.mu.Lock()
		c.stuck[end]++
		c.mu.Unlock()
	}
}

// quiet ends cutting and stuck readers, and returns when they have ended.
func (c *crowd) quiet() {
	c.mu.Lock()
	close(c.calm)
	c.mu.Unlock()
	c.busy.Wait()
}

// close ends the connections, which have no sockets any more. Browsers do so after a while,
// and servers ought to, when they are replaced; but one of HTTP/2 that completes its TLS
// handshake in that very moment is forgotten until its idle_timeout:
// https://go.dev/issue/81153.
func (c *crowd) close() {
	c.keep.close()
	c.fall.close()
}

func (c *crowd) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	count := 0
	for _, ls := range []*lines{c.keep, c.fall} {
		ls.mu.Lock()
		count += len(ls.all)
		ls.mu.Unlock()
	}
	return fmt.Sprintf("%s: %d connections, %d cut with all on them; clients that did not read: %s", c.proto, count, c.cuts, tally(c.stuck))
}
