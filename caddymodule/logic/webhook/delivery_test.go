package webhook_test

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-websocket/caddy-websocket/gateway/gatewaytest"
)

// gate is a backend that holds messages until they are let go.
type gate struct {
	backend
	release chan struct{}

	mu        sync.Mutex
	now, most int // guarded by mu; requests in flight
}

func newGate(t *testing.T) *gate {
	g := &gate{release: make(chan struct{})}
	g.t = t
	g.answer = func(p *post) (*http.Response, error) {
		if !p.is("message") {
			return say(204, ""), nil
		}
		g.count(1)
		defer g.count(-1)
		if strings.HasPrefix(p.text(), "slow") {
			select {
			case <-g.release:
			case <-p.Context().Done():
				return nil, p.Context().Err()
			}
		}
		return say(200, `{"commands":[{"send":{"to":{"clients":[`+quote(p.client())+`]},"text":`+quote("done "+p.text())+`}}]}`), nil
	}
	return g
}

func (g *gate) count(n int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.now += n
	g.most = max(g.most, g.now)
}

// A script that is slow for one visitor is not slow for the others, until
// max_concurrent are at it; then everybody waits his turn, and the backend never
// has more at once.
func TestSlowBackendHoldsUpOnlyItsOwnClients(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t)
		s := gatewaytest.ServeLogic(t, logic(t, "max_concurrent 3\ntimeout 1h", nil, g))
		slow1, slow2, slow3, quick := s.Dial("/test"), s.Dial("/test"), s.Dial("/test"), s.Dial("/test")
		slow1.Send("slow 1")
		slow2.Send("slow 2")
		synctest.Wait()
		quick.Send("quick")
		quick.Want("done quick")

		slow3.Send("slow 3")
		synctest.Wait()
		quick.Send("in line")
		synctest.Wait()
		if n := len(g.seen("message")); n != 4 {
			t.Errorf("the backend has seen %d messages, want 4: the fifth waits", n)
		}
		g.release <- struct{}{}
		quick.Want("done in line")
		close(g.release)
		slow1.Want("done slow 1")
		slow2.Want("done slow 2")
		slow3.Want("done slow 3")
		if g.most != 3 {
			t.Errorf("%d requests at once, want 3", g.most)
		}
	})
}

// Order is what makes a chat readable: a client's next message is sent when the
// answer to the last has been done, however it went.
func TestMessagesOfAClientStayInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		inFlight := make(map[string]bool)
		b := &backend{t: t}
		b.answer = func(p *post) (*http.Response, error) {
			mu.Lock()
			if inFlight[p.client()] {
				t.Error("two events of one client at once")
			}
			inFlight[p.client()] = true
			n := len(inFlight)
			mu.Unlock()
			time.Sleep(time.Duration(n*7%5) * time.Millisecond)
			mu.Lock()
			inFlight[p.client()] = false
			mu.Unlock()
			if !p.is("message") {
				return say(204, ""), nil
			}
			return say(200, `{"commands":[{"send":{"to":{"clients":[`+quote(p.client())+`]},"text":`+quote(p.text())+`}}]}`), nil
		}
		s := serve(t, "max_concurrent 5", b)
		const clients, messages = 12, 40
		var wg sync.WaitGroup
		for range clients {
			c := s.Dial("/test")
			wg.Go(func() {
				for i := range messages {
					c.Send(fmt.Sprint(i))
				}
				for i := range messages {
					c.Want(fmt.Sprint(i))
				}
				c.Cut()
			})
		}
		wg.Wait()
		time.Sleep(time.Second)
		last := make(map[string]string)
		for _, p := range b.seen("") {
			for _, e := range p.events {
				id := e["client"].(map[string]any)["id"].(string)
				if last[id] == "close" || last[id] == "" && e["event"] != "connect" {
					t.Errorf("%s comes after %q", e["event"], last[id])
				}
				last[id] = e["event"].(string)
			}
		}
		if len(last) != clients || len(b.closes()) != clients {
			t.Errorf("%d clients, %d closed, want %d", len(last), len(b.closes()), clients)
		}
	})
}

// max_concurrent 1 puts all events of all clients in one line, commands included:
// what a small script with state needs to be right.
func TestSlotIsHeldUntilTheCommandsAreDone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &backend{t: t}
		n := 0 // no mutex: the race detector would see two at once
		b.answer = func(p *post) (*http.Response, error) {
			if !p.is("message") {
				return say(204, ""), nil
			}
			n++
			return say(200, fmt.Sprintf(`{"commands":[{"send":{"to":{"all":true},"text":"%d"}}]}`, n)), nil
		}
		s := serve(t, "max_concurrent 1", b)
		var clients []*gatewaytest.Client
		for range 10 {
			clients = append(clients, s.Dial("/test"))
		}
		for range 10 {
			for _, c := range clients {
				c.Send("next")
			}
		}
		for _, c := range clients {
			for i := range 100 {
				c.Want(fmt.Sprint(i + 1))
			}
		}
	})
}

// A shutdown waits for nobody's backend: what is in flight ends with the connection.
func TestShutdownEndsRequestsInFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &backend{t: t}
		b.answer = func(p *post) (*http.Response, error) {
			if p.is("message") {
				return never(p)
			}
			return say(204, ""), nil
		}
		var log gatewaytest.Log
		s := serveLog(t, "timeout 1h\nmax_concurrent 1", b, &log)
		c, waiting := s.Dial("/test"), s.Dial("/test")
		c.Send("hello")
		synctest.Wait()
		waiting.Send("in line")
		synctest.Wait()
		start := time.Now()
		shutdown(t, s)
		if d := time.Since(start); d > 5*time.Second {
			t.Errorf("it took %s", d)
		}
		if n := len(b.seen("message")); n != 1 {
			t.Errorf("%d messages were sent, want 1", n)
		}
		if closes := b.closes(); len(closes) != 2 {
			t.Errorf("%d clients were reported gone, want 2", len(closes))
		}
		if found := log.Find(""); len(found) > 0 {
			t.Errorf("logged %v, though nothing was wrong", found)
		}
	})
}

// Thousands of messages a second that fail would fill a disk with log lines.
func TestLogOfAnOutageIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &backend{t: t}
		b.answer = func(p *post) (*http.Response, error) {
			if p.is("message") {
				return nil, errors.New("connection reset")
			}
			return say(204, ""), nil
		}
		var log gatewaytest.Log
		s := serveLog(t, "", b, &log)
		c := s.Dial("/test")
		for range 500 {
			c.Send("hello")
		}
		synctest.Wait()
		time.Sleep(time.Second)
		c.Send("hello")
		synctest.Wait()
		found := log.Find("message was not handled")
		if len(found) != 11 || found[10].Attrs["suppressed"] != int64(490) {
			t.Errorf("%d lines, the last %v: want 10, and one that says how many were left out", len(found), found[len(found)-1])
		}
		if !slices.ContainsFunc(found, func(r gatewaytest.Record) bool { return r.Attrs["error"] == "connection reset" }) {
			t.Errorf("the lines do not say why: %v", found[0])
		}
	})
}
