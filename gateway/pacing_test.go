package gateway_test

import (
	"context"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-websocket/caddy-websocket/gateway"
	"github.com/caddy-websocket/caddy-websocket/gateway/gatewaytest"
)

// exodus is a gateway with many clients, which notes who goes when. The clients
// read, and answer a close frame at once.
type exodus struct {
	*gatewaytest.Server
	t       *testing.T
	g       *gateway.Gateway
	options gateway.Options
	now     http.Handler
	served  *gateway.Generation
	clients sync.WaitGroup

	mu   sync.Mutex
	gone map[string]int              // guarded by mu; by endpoint
	told map[gateway.CloseReason]int // guarded by mu
}

func newExodus(t *testing.T, o gateway.Options) *exodus {
	t.Helper()
	x := &exodus{t: t, g: newGateway(t, o), options: o, gone: make(map[string]int), told: make(map[gateway.CloseReason]int)}
	x.Server = gatewaytest.ServeHandler(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { x.now.ServeHTTP(w, r) }))
	return x
}

// commit puts a generation with these endpoints in force. The one before is not
// waited for: its clients are what the tests look at.
func (x *exodus) commit(names ...string) {
	x.t.Helper()
	gen, err := x.g.Prepare(x.options)
	if err != nil {
		x.t.Fatal(err)
	}
	mux := http.NewServeMux()
	for _, name := range names {
		logic := &gatewaytest.Recorder{Message: echo, Closed: func(_ *gateway.Client, reason gateway.CloseReason) {
			x.mu.Lock()
			defer x.mu.Unlock()
			x.gone[name]++
			x.told[reason]++
		}}
		e := gatewaytest.Endpoint(x.t, name, gateway.EndpointOptions{Logic: logic, Logger: (&gatewaytest.Log{}).Logger()})
		if err := gen.Add(e); err != nil {
			x.t.Fatal(err)
		}
		mux.Handle("/"+name, e)
	}
	if err := gen.Commit(); err != nil {
		x.t.Fatal(err)
	}
	x.now = mux
	if x.served != nil {
		x.served.Close()
	}
	x.served = gen
}

// enter connects n clients, and returns one more, which the caller reads from.
func (x *exodus) enter(n int, name string) *gatewaytest.Client {
	x.t.Helper()
	for range n {
		c := x.Dial("/" + name)
		x.clients.Go(func() { _ = readAll(c) })
	}
	c := x.Dial("/" + name)
	synctest.Wait() // a client asks once by itself whether it has to go
	return c
}

// enterAll connects n clients, who all read.
func (x *exodus) enterAll(n int, name string) {
	x.t.Helper()
	c := x.enter(n-1, name)
	x.clients.Go(func() { _ = readAll(c) })
}

// wantGone fails unless so many clients of an endpoint have gone by now, give or
// take one: a rate times a time is rarely a whole number.
func (x *exodus) wantGone(name string, want int) {
	x.t.Helper()
	synctest.Wait()
	x.mu.Lock()
	defer x.mu.Unlock()
	if got := x.gone[name]; got < want-1 || got > want+1 {
		x.t.Errorf("%d clients of %s are gone, want %d", got, name, want)
	}
}

// wantTold fails unless clients were told exactly this.
func (x *exodus) wantTold(want map[gateway.CloseReason]int) {
	x.t.Helper()
	synctest.Wait()
	x.mu.Lock()
	defer x.mu.Unlock()
	for reason := range x.told {
		if _, ok := want[reason]; !ok {
			x.t.Errorf("%d clients were told %+v", x.told[reason], reason)
		}
	}
	for reason, n := range want {
		if got := x.told[reason]; got < n-1 || got > n+1 {
			x.t.Errorf("%d clients were told %+v, want %d", got, reason, n)
		}
	}
}

// end is Shutdown in the background.
func (x *exodus) end(ctx context.Context) (err <-chan error) {
	ended := make(chan error, 1)
	go func() { ended <- x.g.Shutdown(ctx) }()
	return ended
}

const bucket = 100 * time.Millisecond

var (
	removed = gateway.CloseReason{Code: gateway.CloseGoingAway, Reason: "endpoint was removed"}
	stopped = gateway.CloseReason{Code: gateway.CloseGoingAway, Reason: "server is shutting down"}
)

// A thousand pages that reconnect in the same moment would hit the servers that
// are left: whoever sets close_rate must get that rate, in every tenth of a
// second, and nobody else may notice.
func TestClientsOfARemovedEndpointAreClosedAtCloseRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newExodus(t, gateway.Options{CloseRate: 100})
		x.commit("goes", "stays")
		x.enterAll(100, "goes")
		neighbour := x.enter(50, "stays")
		x.commit("stays")
		for i := range 10 {
			time.Sleep(bucket - time.Millisecond)
			x.wantGone("goes", 10*(i+1))
			time.Sleep(time.Millisecond)
		}
		x.wantGone("goes", 100)
		time.Sleep(10 * time.Second)
		x.wantGone("stays", 0)
		neighbour.Send("still here")
		neighbour.Want("still here")
		x.wantTold(map[gateway.CloseReason]int{removed: 100})
	})
}

// Where close_rate is too low for so many, it is raised: what has not gone by
// drain_timeout is cut. The last quarter of it is for answers.
func TestCloseRateIsRaisedSoThatAllAreGoneInDrainTimeout(t *testing.T) {
	const clients, drain = 300, 2 * time.Second
	for name, leave := range map[string]func(*exodus){
		"shutdown":         func(x *exodus) { x.end(context.Background()) },
		"removed endpoint": func(x *exodus) { x.commit("other") },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				x := newExodus(t, gateway.Options{CloseRate: 10, DrainTimeout: drain})
				x.commit("test", "other")
				x.enterAll(clients, "test")
				leave(x)
				for i := range 15 {
					time.Sleep(bucket - time.Millisecond)
					x.wantGone("test", clients/15*(i+1))
					time.Sleep(time.Millisecond)
				}
				time.Sleep(bucket)
				x.wantGone("test", clients)
				wantCount(t, x.g, gateway.All(), 0)
			})
		})
	}
}

// A hundred clients are no crowd: with the defaults the process need not wait.
func TestHundredClientsLeaveAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newExodus(t, gateway.Options{})
		x.commit("test")
		x.enterAll(100, "test")
		start := time.Now()
		ended := x.end(context.Background())
		x.wantGone("test", 20)
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if took := time.Since(start); took > 50*time.Millisecond {
			t.Errorf("it took %s, want at most 50ms", took)
		}
		x.wantTold(map[gateway.CloseReason]int{stopped: 100})
	})
}

// Whoever stops the process may be less patient than the configuration: then the
// rest is cut off, and every OnClose has still been called when Shutdown returns.
func TestShutdownWhoseContextEndsCutsTheRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newExodus(t, gateway.Options{CloseRate: 10, DrainTimeout: time.Hour})
		x.commit("test")
		x.enterAll(100, "test")
		start := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 2050*time.Millisecond)
		defer cancel()
		err := x.g.Shutdown(ctx)
		if took := time.Since(start); took != 2050*time.Millisecond || err != nil {
			t.Errorf("Shutdown took %s, %v, want 2.05s and no error", took, err)
		}
		wantCount(t, x.g, gateway.All(), 0)
		x.mu.Lock()
		told, cut := x.told[stopped], x.gone["test"]-x.told[stopped]
		x.mu.Unlock()
		if told < 20 || told > 22 || told+cut != 100 {
			t.Errorf("%d were told and %d cut, want 21 and the rest of 100", told, cut)
		}
		x.clients.Wait()
	})
}

// Somebody removes one endpoint after another: the rate is the gateway's, not
// that of each reload.
func TestSecondRemovalDoesNotDoubleTheRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newExodus(t, gateway.Options{CloseRate: 100})
		x.commit("one", "two", "three")
		for _, name := range []string{"one", "two"} {
			x.enterAll(100, name)
		}
		total := func() int {
			synctest.Wait()
			x.mu.Lock()
			defer x.mu.Unlock()
			return x.gone["one"] + x.gone["two"]
		}
		x.commit("two", "three")
		time.Sleep(5*bucket - time.Millisecond)
		x.wantGone("one", 50)
		x.commit("three")
		for range 15 {
			before := total()
			time.Sleep(bucket)
			if n := total() - before; n > 11 {
				t.Errorf("%d clients were closed in a tenth of a second, want 10", n)
			}
		}
		time.Sleep(2 * bucket)
		if n := total(); n != 200 {
			t.Errorf("%d clients have gone, want all", n)
		}
	})
}

// The process is stopped while an endpoint's clients are being closed slowly.
func TestShutdownDuringAnEvictionTakesNoLonger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newExodus(t, gateway.Options{CloseRate: 10, DrainTimeout: 20 * time.Second})
		x.commit("goes", "stays")
		x.enterAll(100, "goes")
		x.enterAll(50, "stays")
		x.options.DrainTimeout = 2 * time.Second
		x.options.CloseRate = 1
		x.commit("stays") // 100 in 1.5 s
		time.Sleep(5 * bucket)
		x.wantGone("goes", 34)
		start := time.Now()
		if err := <-x.end(context.Background()); err != nil {
			t.Error(err)
		}
		if took := time.Since(start); took > 2*time.Second {
			t.Errorf("Shutdown took %s, want at most 2s", took)
		}
		synctest.Wait()
		x.mu.Lock()
		defer x.mu.Unlock()
		if n := x.gone["goes"] + x.gone["stays"]; n != 150 || x.gone["stays"] != x.told[stopped] {
			t.Errorf("%d OnClose for 150 clients, told: %v", n, x.told)
		}
	})
}

// Logic is torn down when Stop has returned. A client that does not answer its
// close frame until then is cut, so that its OnClose does not come afterwards.
func TestStopCutsClientsOfARemovedEndpointThatDoNotAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gs := newGenerations(t)
		logic := &gatewaytest.Recorder{}
		gen := gs.replace(nil, gatewaytest.Endpoint(t, "test", gateway.EndpointOptions{Logic: logic, WriteTimeout: time.Hour}))
		gs.Dial("/test")
		logic.Client(t, 0)
		synctest.Wait()
		next := gs.prepare(gatewaytest.Endpoint(t, "other", gateway.EndpointOptions{}))
		if err := next.Commit(); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		if err := gen.Stop(ctx); err != nil {
			t.Error(err)
		}
		if took := time.Since(start); took < 2*time.Second || took > 2100*time.Millisecond {
			t.Errorf("Stop took %s, want 2s", took)
		}
		if events := logic.Events(); len(events) != 2 || events[1] != "close 1001 endpoint was removed" {
			t.Errorf("when Stop had returned there had been %q", events)
		}
		gen.Close()
	})
}

// A mistake in a configuration is noticed and undone: those who have not been
// closed yet stay, and are served by the new logic. The second mistake closes
// them after all.
func TestEndpointThatReturnsKeepsTheClientsThatAreLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newExodus(t, gateway.Options{CloseRate: 10, DrainTimeout: time.Hour})
		x.commit("test", "other")
		x.enterAll(50, "test")
		x.commit("other")
		time.Sleep(20*bucket - time.Millisecond)
		x.wantGone("test", 20)
		x.commit("test", "other")
		fresh := x.Dial("/test")
		time.Sleep(10 * time.Second)
		x.wantGone("test", 20)
		fresh.Send("back again")
		fresh.Want("back again")
		wantCount(t, x.g, gateway.All(), 51-20)
		x.clients.Go(func() { _ = readAll(fresh) })
		x.commit("other")
		time.Sleep(20*bucket - time.Millisecond)
		x.wantGone("test", 40)
		time.Sleep(20 * bucket)
		x.wantGone("test", 51)
		wantCount(t, x.g, gateway.All(), 0)
		x.wantTold(map[gateway.CloseReason]int{removed: 51})
	})
}
