package gateway_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-websocket/caddy-websocket/gateway"
	"github.com/caddy-websocket/caddy-websocket/gateway/gatewaytest"
)

// answer is logic that answers every message with the same text.
func answer(text string) *gatewaytest.Recorder {
	return &gatewaytest.Recorder{Message: func(c *gateway.Client, _ gateway.Message) error { return c.Send(gateway.Text(text)) }}
}

// generations is a gateway whose HTTP server always asks the newest endpoint,
// as Caddy's does.
type generations struct {
	*gatewaytest.Server
	t   *testing.T
	g   *gateway.Gateway
	now http.Handler
}

func newGenerations(t *testing.T) *generations {
	g, err := gateway.New(gateway.Options{Logger: gatewaytest.Logger(t)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { shutdown(t, g) })
	gs := &generations{t: t, g: g}
	gs.Server = gatewaytest.ServeHandler(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { gs.now.ServeHTTP(w, r) }))
	return gs
}

func shutdown(t *testing.T, g *gateway.Gateway) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := g.Shutdown(ctx); err != nil {
		t.Errorf("shutting down: %v", err)
	}
}

// prepare begins a generation with these endpoints.
func (gs *generations) prepare(endpoints ...*gateway.Endpoint) *gateway.Generation {
	gs.t.Helper()
	gen, err := gs.g.Prepare(gateway.Options{Logger: gatewaytest.Logger(gs.t)})
	if err != nil {
		gs.t.Fatal(err)
	}
	mux := http.NewServeMux()
	for _, e := range endpoints {
		if err := gen.Add(e); err != nil {
			gs.t.Fatal(err)
		}
		mux.Handle("/"+e.Name(), e)
	}
	gs.now = mux
	return gen
}

// replace commits a generation and ends the old one.
func (gs *generations) replace(old *gateway.Generation, endpoints ...*gateway.Endpoint) *gateway.Generation {
	gs.t.Helper()
	gen := gs.prepare(endpoints...)
	if err := gen.Commit(); err != nil {
		gs.t.Fatal(err)
	}
	if old != nil {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := old.Stop(ctx); err != nil {
			gs.t.Fatal(err)
		}
		old.Close()
	}
	return gen
}

func endpoint(t *testing.T, l gateway.Logic) *gateway.Endpoint {
	return gatewaytest.Endpoint(t, "test", gateway.EndpointOptions{Logic: l})
}

// What users of every system in this field ask for first.
func TestClientsLiveThroughACommitAndFindTheNewLogic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gs := newGenerations(t)
		first, second := answer("first"), answer("second")
		gen := gs.replace(nil, endpoint(t, first))
		c := gs.Dial("/test")
		c.Send("?")
		c.Want("first")
		gen = gs.replace(gen, endpoint(t, second))
		c.Send("?")
		c.Want("second")
		c.Close(1000, "")
		c.WantClose(1000)
		first.Want(t, "connect", "message ?")
		second.Want(t, "message ?", "close 1000") // OnConnect ran once, in the other
		gen.Close()
	})
}

func TestCommitAppliesNewLimitsToLiveClients(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gs := newGenerations(t)
		gen := gs.replace(nil, endpoint(t, answer("ok")))
		c := gs.Dial("/test")
		c.Send("12345678")
		c.Want("ok")
		gs.replace(gen, gatewaytest.Endpoint(t, "test", gateway.EndpointOptions{MaxMessageSize: 4}))
		c.Send("12345678")
		c.WantClose(gateway.CloseMessageTooBig)
	})
}

func TestClosedGenerationChangesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gs := newGenerations(t)
		gs.replace(nil, endpoint(t, answer("first")))
		c := gs.Dial("/test")
		old := gs.now
		second := &starter{Recorder: answer("second")}
		failed := gs.prepare(endpoint(t, second))
		failed.Close()
		c.Send("?")
		c.Want("first")
		if second.started != 0 {
			t.Error("OnStart was called for a generation that never came into force")
		}
		gs.Refused(http.StatusServiceUnavailable, "/test") // a server that never came into force
		gs.now = old
		gs.Dial("/test").Send("?")
	})
}

// New servers answer requests before the configuration is in force.
func TestHandshakeWaitsForTheCommit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gs := newGenerations(t)
		logic := answer("new")
		gen := gs.prepare(endpoint(t, logic))
		done := make(chan *gatewaytest.Client)
		go func() { done <- gs.Dial("/test") }()
		synctest.Wait()
		logic.Want(t)
		if err := gen.Commit(); err != nil {
			t.Fatal(err)
		}
		c := <-done
		c.Send("?")
		c.Want("new")
	})
}

// A configuration may be committed and yet fail: then the one before serves on.
func TestGatewayReturnsToTheNewestLivingGeneration(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gs := newGenerations(t)
		gs.replace(nil, endpoint(t, answer("first")))
		c := gs.Dial("/test")
		old := gs.now
		second := gs.prepare(endpoint(t, answer("second")))
		if err := second.Commit(); err != nil {
			t.Fatal(err)
		}
		c.Send("?")
		c.Want("second")
		second.Close()
		c.Send("?")
		c.Want("first")
		gs.now = old
		gs.Dial("/test")
	})
}

func TestRemovedEndpointClosesItsClientsWith1001(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gs := newGenerations(t)
		kept, removed := answer("kept"), &gatewaytest.Recorder{}
		gen := gs.replace(nil, gatewaytest.Endpoint(t, "kept", gateway.EndpointOptions{Logic: kept}), endpoint(t, removed))
		stays, goes := gs.Dial("/kept"), gs.Dial("/test")
		oldServer := gs.now
		go goes.WantClose(gateway.CloseGoingAway)
		gs.replace(gen, gatewaytest.Endpoint(t, "kept", gateway.EndpointOptions{Logic: kept}))
		removed.Want(t, "connect", "close 1001 endpoint was removed")
		stays.Send("?")
		stays.Want("kept")
		gs.now = oldServer // a keep-alive connection of the old server
		gs.Refused(http.StatusServiceUnavailable, "/test")
		gs.Dial("/kept")
	})
}

// Stop is what lets Caddy tear a module down: nothing may run in it afterwards.
func TestStopWaitsForCallbacksOfTheOldLogic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gs := newGenerations(t)
		release := make(chan struct{})
		slow := &gatewaytest.Recorder{Message: func(c *gateway.Client, m gateway.Message) error {
			<-release
			return c.Send(m)
		}}
		gen := gs.replace(nil, endpoint(t, slow))
		c := gs.Dial("/test")
		c.Send("slow")
		synctest.Wait()
		next := gs.prepare(endpoint(t, answer("second")))
		if err := next.Commit(); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
		defer cancel()
		err := gen.Stop(ctx)
		if err == nil || !strings.Contains(err.Error(), "OnMessage") {
			t.Errorf("Stop returned %v, want an error that names the callback", err)
		}
		go func() {
			time.Sleep(time.Second)
			close(release)
		}()
		if err := gen.Stop(context.Background()); err != nil {
			t.Error(err)
		}
		gen.Close()
		c.Want("slow")
		c.Send("?")
		c.Want("second")
	})
}

// starter counts its OnStart, fails if told to, and keeps what it inherited.
type starter struct {
	*gatewaytest.Recorder
	err       error
	started   int
	inherited gateway.Logic
	start     func(*gateway.Gateway)
}

func (s *starter) OnStart(g *gateway.Gateway) error {
	s.started++
	if s.start != nil {
		s.start(g)
	}
	return s.err
}

func (s *starter) Inherit(old gateway.Logic) { s.inherited = old }

func TestNewLogicInheritsAndStartsOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gs := newGenerations(t)
		first, second := &starter{Recorder: answer("1")}, &starter{Recorder: answer("2")}
		gen := gs.replace(nil, endpoint(t, first))
		gs.replace(gen, endpoint(t, second))
		if first.inherited != nil || second.inherited != first {
			t.Errorf("inherited %v and %v, want nothing and the first", first.inherited, second.inherited)
		}
		if first.started != 1 || second.started != 1 {
			t.Errorf("started %d and %d times, want once each", first.started, second.started)
		}
	})
}

func TestLogicThatFailsToStartRefusesHandshakes(t *testing.T) {
	for _, tt := range []struct {
		name  string
		logic *starter
	}{
		{"error", &starter{Recorder: answer("x"), err: errors.New("database is away")}},
		{"panic", &starter{Recorder: answer("x"), start: func(*gateway.Gateway) { panic("boom") }}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				gs := newGenerations(t)
				gs.replace(nil, endpoint(t, answer("old")))
				c := gs.Dial("/test")
				gen := gs.prepare(endpoint(t, tt.logic))
				if err := gen.Commit(); err == nil {
					t.Error("Commit returned no error")
				}
				gs.Refused(http.StatusServiceUnavailable, "/test")
				c.WantClose(gateway.CloseInternalError)
			})
		})
	}
}

func TestTasksEndWithTheirGeneration(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gs := newGenerations(t)
		var ticks atomic.Int32
		ended := false
		logic := &starter{Recorder: answer("x"), start: func(g *gateway.Gateway) {
			g.Every(time.Second, func(context.Context) {
				ticks.Add(1)
				panic("a panic ends one call only")
			})
			g.Go("waits", func(ctx context.Context) {
				<-ctx.Done()
				time.Sleep(time.Second) // is waited for
				ended = true
			})
		}}
		gen := gs.replace(nil, endpoint(t, logic))
		time.Sleep(3500 * time.Millisecond)
		if n := ticks.Load(); n != 3 {
			t.Errorf("%d ticks in 3.5 s, want 3", n)
		}
		gs.replace(gen, endpoint(t, answer("y")))
		if !ended {
			t.Error("Stop did not wait for a task")
		}
		before := ticks.Load()
		time.Sleep(5 * time.Second)
		if ticks.Load() != before {
			t.Error("a task went on after its generation")
		}
	})
}

func TestTaskThatDoesNotEndIsNamed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gs := newGenerations(t)
		release := make(chan struct{})
		logic := &starter{Recorder: answer("x"), start: func(g *gateway.Gateway) {
			g.Go("stubborn", func(context.Context) { <-release })
		}}
		gen := gs.replace(nil, endpoint(t, logic))
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if err := gen.Stop(ctx); err == nil || !strings.Contains(err.Error(), "stubborn") {
			t.Errorf("Stop returned %v, want an error that names the task", err)
		}
		close(release)
	})
}

func TestShutdownClosesEverybodyWith1001AndWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		logic := &gatewaytest.Recorder{}
		s := gatewaytest.ServeLogic(t, logic)
		const clients = 20
		for range clients {
			go s.Dial("/test").WantClose(gateway.CloseGoingAway)
		}
		shutdown(t, s.Gateway)
		closed := 0
		for _, event := range logic.Events() {
			if event == "close 1001 server is shutting down" {
				closed++
			}
		}
		if closed != clients {
			t.Errorf("OnClose ran %d times before Shutdown returned, want %d", closed, clients)
		}
		s.Refused(http.StatusServiceUnavailable, "/test")
	})
}

func TestShutdownNamesTheCallbackThatNeverReturns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, err := gateway.New(gateway.Options{})
		if err != nil {
			t.Fatal(err)
		}
		release := make(chan struct{})
		stuck := endpoint(t, &gatewaytest.Recorder{Message: func(*gateway.Client, gateway.Message) error {
			<-release
			return nil
		}})
		if err := g.Serve(stuck); err != nil {
			t.Fatal(err)
		}
		c := gatewaytest.ServeHandler(t, stuck).Dial("/")
		c.Send("x")
		synctest.Wait()
		ctx, cancel := context.WithTimeout(context.Background(), 4*time.Second)
		defer cancel()
		err = g.Shutdown(ctx)
		if err == nil || !strings.Contains(err.Error(), "OnMessage") {
			t.Errorf("Shutdown returned %v, want the callback's name", err)
		}
		close(release)
	})
}

func TestServeReplacesEndpoints(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first := endpoint(t, answer("first"))
		s := gatewaytest.Serve(t, first)
		c := s.Dial("/test")
		if err := s.Gateway.Serve(endpoint(t, answer("second"))); err != nil {
			t.Fatal(err)
		}
		c.Send("?")
		c.Want("second")
		if err := s.Gateway.Serve(first); err == nil {
			t.Error("an endpoint served twice")
		}
		c.Send("?")
		c.Want("second")
	})
}
