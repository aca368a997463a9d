package webhook_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-websocket/caddy-websocket/gateway"
	"github.com/caddy-websocket/caddy-websocket/gateway/gatewaytest"
)

// shutdown ends the gateway as Caddy does.
func shutdown(t *testing.T, s *gatewaytest.Server) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), gateway.DefaultDrainTimeout)
	defer cancel()
	if err := s.Gateway.Shutdown(ctx); err != nil {
		t.Errorf("shutting down: %v", err)
	}
}

// reload puts the logic in force in place of what is served.
func reload(t *testing.T, s *gatewaytest.Server, l gateway.Logic) {
	t.Helper()
	if err := s.Gateway.Serve(gatewaytest.Endpoint(t, "test", gateway.EndpointOptions{Logic: l})); err != nil {
		t.Errorf("reloading: %v", err)
	}
}

// dialMany connects clients and returns how to close them all.
func dialMany(s *gatewaytest.Server, n int) (closeAll func()) {
	var clients []*gatewaytest.Client
	for range n {
		clients = append(clients, s.Dial("/test"))
	}
	return func() {
		for _, c := range clients {
			c.Close(1000, "")
			c.WantClose(1000)
		}
		synctest.Wait()
	}
}

// wantAllClosed fails the test unless each client is reported gone, once.
func wantAllClosed(t *testing.T, b *backend, n int) {
	t.Helper()
	closes := b.closes()
	for id, times := range closes {
		if times != 1 {
			t.Errorf("%s is reported gone %d times", id, times)
		}
	}
	if len(closes) != n {
		t.Errorf("%d clients are reported gone, want %d", len(closes), n)
	}
}

// When an office loses its line, the backend gets a few requests, not hundreds.
func TestCloseEventsAreGathered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &backend{t: t}
		s := serve(t, "events close\nclose_batch 10 2s", b)
		closeAll := dialMany(s, 25)
		closeAll()
		if n := len(b.seen("close")); n != 2 {
			t.Errorf("%d requests at once, want 2 that are full", n)
		}
		time.Sleep(1900 * time.Millisecond)
		if n := len(b.seen("close")); n != 2 {
			t.Errorf("%d requests before the interval is over, want 2", n)
		}
		time.Sleep(200 * time.Millisecond)
		posts := b.seen("close")
		if len(posts) != 3 || len(posts[0].events) != 10 || len(posts[1].events) != 10 || len(posts[2].events) != 5 {
			t.Errorf("%d requests, want 10, 10 and 5 events", len(posts))
		}
		wantAllClosed(t, b, 25)
	})
}

// OnClose keeps a place in max_clients as long as it runs: it must not wait for the
// backend.
func TestClosedClientIsForgottenBeforeTheBackendKnows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &backend{t: t, answer: never}
		l := logic(t, "events close\nretries 0", nil, b)
		s := gatewaytest.Serve(t, gatewaytest.Endpoint(t, "test", gateway.EndpointOptions{Logic: l, MaxClients: 1}))
		for range 5 {
			c := s.Dial("/test")
			c.Close(1000, "")
			c.WantClose(1000)
			synctest.Wait()
		}
	})
}

// Who is thought to be online and is not must be told of, again and again, under
// the same id.
func TestCloseEventsAreTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &backend{t: t}
		b.answer = func(*post) (*http.Response, error) {
			switch len(b.seen("close")) {
			case 1:
				return nil, errRefused
			case 2:
				return say(429, ""), nil
			case 3:
				return say(500, ""), nil
			}
			return say(204, ""), nil
		}
		s := serve(t, "events close", b)
		dialMany(s, 3)()
		time.Sleep(5 * time.Second)
		posts := b.seen("close")
		if len(posts) != 4 {
			t.Fatalf("%d requests, want 4", len(posts))
		}
		for _, p := range posts {
			if p.id() != posts[0].id() || string(p.body) != string(posts[0].body) {
				t.Errorf("request %s is not %s", p.id(), posts[0].id())
			}
		}
	})
}

// What could not be said must at least be known.
func TestLostCloseEventsAreLoggedAndCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &backend{t: t, answer: func(*post) (*http.Response, error) { return say(500, "oops"), nil }}
		var log gatewaytest.Log
		s := serveLog(t, "events close\nclose_batch 2 1s", b, &log)
		dialMany(s, 3)()
		time.Sleep(time.Minute)
		found := log.Find("close events were not delivered")
		if len(found) != 2 || found[1].Attrs["lost_total"] != int64(3) || found[0].Attrs["status"] != int64(500) || found[0].Attrs["body"] != "oops" {
			t.Errorf("logged %v, want two lines, the last with 3 lost", found)
		}
	})
}

// At a shutdown everybody goes in a second or two, and the last ones must not be
// forgotten with the process.
func TestShutdownReportsEverybodyGone(t *testing.T) {
	for _, tt := range []struct {
		name   string
		answer func(*post) (*http.Response, error)
	}{
		{"quick backend", nil},
		{"slow backend", func(*post) (*http.Response, error) {
			time.Sleep(200 * time.Millisecond)
			return say(204, ""), nil
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := &backend{t: t, answer: tt.answer}
				s := serve(t, "events close\nclose_batch 100 1m", b)
				var stay []*gatewaytest.Client
				for i := range 300 {
					c := s.Dial("/test")
					if i%3 > 0 {
						c.Cut()
						continue
					}
					stay = append(stay, c)
				}
				for i, c := range stay { // all but one, who does not answer
					if i > 0 {
						go func() {
							for {
								if _, _, err := c.Conn.ReadMessage(); err != nil {
									return
								}
							}
						}()
					}
				}
				synctest.Wait()
				shutdown(t, s)
				wantAllClosed(t, b, 300)
				if n := len(b.seen("close")); tt.answer != nil && n > 60 {
					t.Errorf("%d requests for 300 events: they are not gathered", n)
				}
			})
		})
	}
}

// One silent phone uses up the whole time of a shutdown: what the others' events need
// must not be left for the moment after it.
func TestShutdownReportsGoneBeforeItsTimeIsUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var silent string
		var told atomic.Int64
		b := &backend{t: t}
		b.answer = func(p *post) (*http.Response, error) {
			if p.client() != silent {
				time.Sleep(400 * time.Millisecond)
				told.Add(int64(len(p.events)))
			}
			return say(204, ""), nil
		}
		s := serve(t, "events close\nclose_batch 100 1m", b)
		s.Dial("/test") // does not answer
		silent = ids(t, s)[0]
		for range 5 {
			c := s.Dial("/test")
			go func() {
				for {
					if _, _, err := c.Conn.ReadMessage(); err != nil {
						return
					}
				}
			}()
		}
		shutdown(t, s)
		if n := told.Load(); n != 5 {
			t.Errorf("the backend had been told of %d, want 5", n)
		}
		wantAllClosed(t, b, 6)
	})
}

// A backend that is down as well must not hold up the shutdown.
func TestShutdownGivesUpOnADeadBackend(t *testing.T) {
	for name, answer := range map[string]func(*post) (*http.Response, error){
		"refuses": func(*post) (*http.Response, error) { return nil, errRefused },
		"hangs":   never,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := &backend{t: t, answer: answer}
				var log gatewaytest.Log
				s := serveLog(t, "events close\nretries 10", b, &log)
				dialMany(s, 5)()
				s.Dial("/test").Cut()
				synctest.Wait()
				start := time.Now()
				shutdown(t, s)
				if d := time.Since(start); d > 4*time.Second {
					t.Errorf("it took %s", d)
				}
				found := log.Find("close events were not delivered")
				if len(found) == 0 || found[len(found)-1].Attrs["lost_total"] != int64(6) {
					t.Errorf("logged %v, want 6 lost", found)
				}
			})
		})
	}
}

// A reload in the middle of an outage loses nothing: the new instance goes on where
// the old one was, and a request that is sent again has the id that it had.
func TestReloadHandsCloseEventsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var up atomic.Bool
		b := &backend{t: t}
		b.answer = func(*post) (*http.Response, error) {
			if !up.Load() {
				return nil, errRefused
			}
			return say(204, ""), nil
		}
		var log gatewaytest.Log
		s := serveLog(t, "events close\nclose_batch 10 5s\nretries 10", b, &log)
		dialMany(s, 14)() // ten are being retried, four wait
		time.Sleep(time.Second)
		start := time.Now()
		reload(t, s, logic(t, "events close\nclose_batch 10 5s\nretries 10", log.Logger(), b))
		if d := time.Since(start); d > time.Second {
			t.Errorf("the reload took %s: it waited for the backend", d)
		}
		dialMany(s, 2)()
		before := len(b.seen("close"))
		first := b.seen("close")[0].id()
		up.Store(true)
		time.Sleep(30 * time.Second)
		delivered := make(map[string]bool)
		ids := make(map[string]bool)
		for _, p := range b.seen("close")[before:] {
			ids[p.id()] = true
			for _, e := range p.events {
				delivered[p.id()+quote(e["client"].(map[string]any)["id"])] = true
			}
		}
		if len(delivered) != 16 || !ids[first] {
			t.Errorf("%d events were delivered, with the first request's id: %t; want 16", len(delivered), ids[first])
		}
		if found := log.Find(""); len(found) > 0 {
			t.Errorf("logged %v", found)
		}
	})
}

// What is in flight when the configuration changes is neither lost nor sent twice.
func TestReloadWaitsForTheRequestInFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &backend{t: t}
		b.answer = func(*post) (*http.Response, error) {
			time.Sleep(2 * time.Second)
			return say(204, ""), nil
		}
		s := serve(t, "events close", b)
		dialMany(s, 3)()
		time.Sleep(time.Second)
		reload(t, s, logic(t, "events close", nil, b))
		time.Sleep(time.Minute)
		wantAllClosed(t, b, 3)
	})
}

// Somebody takes the endpoint out of the configuration: its clients are closed, and
// their close events come after its tasks have ended.
func TestRemovedEndpointReportsItsClientsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &backend{t: t}
		s := serve(t, "events close", b)
		for range 50 {
			c := s.Dial("/test")
			go func() {
				for {
					if _, _, err := c.Conn.ReadMessage(); err != nil {
						return
					}
				}
			}()
		}
		if err := s.Gateway.Serve(); err != nil {
			t.Error(err)
		}
		time.Sleep(time.Second)
		wantAllClosed(t, b, 50)
	})
}

// A configuration that is dropped after it was in force takes nothing with it.
func TestEventsSurviveAConfigurationThatIsDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &backend{t: t}
		s := serve(t, "events close\nclose_batch 100 10s", b)
		gen, err := s.Gateway.Prepare(gateway.Options{})
		if err != nil {
			t.Fatal(err)
		}
		next := logic(t, "events close\nclose_batch 100 10s", nil, b)
		if err := gen.Add(gatewaytest.Endpoint(t, "test", gateway.EndpointOptions{Logic: next})); err != nil {
			t.Fatal(err)
		}
		if err := gen.Commit(); err != nil {
			t.Fatal(err)
		}
		dialMany(s, 5)()
		gen.Close()
		if err := next.Cleanup(); err != nil {
			t.Fatal(err)
		}
		dialMany(s, 5)()
		time.Sleep(20 * time.Second)
		wantAllClosed(t, b, 10)
	})
}

// After Cleanup nobody is let in whom the backend was to judge.
func TestCleanedUpLogicRefusesHandshakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := logic(t, "", nil, &backend{t: t})
		s := gatewaytest.ServeLogic(t, l)
		if err := l.Cleanup(); err != nil {
			t.Fatal(err)
		}
		s.Refused(http.StatusServiceUnavailable, "/test")
	})
}

// The commands of an answer to close events tell the others.
func TestAnswerToCloseEventsIsDone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &backend{t: t}
		b.answer = func(p *post) (*http.Response, error) {
			var gone []string
			for _, e := range p.events {
				gone = append(gone, fmt.Sprint(e["close"].(map[string]any)["code"]))
			}
			return say(200, `{"commands":[{"send":{"to":{"all":true},"text":"gone: `+strings.Join(gone, " ")+`"}}]}`), nil
		}
		s := serve(t, "events close", b)
		stays := s.Dial("/test")
		c := s.Dial("/test")
		c.Close(4007, "")
		c.WantClose(4007)
		stays.Want("gone: 4007")
	})
}
