package natsbroker

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/caddy-websocket/caddy-websocket/e2e/internal/e2etest"
	"github.com/caddy-websocket/caddy-websocket/e2e/internal/natsserver"
	"github.com/caddy-websocket/caddy-websocket/gateway"
	"github.com/caddy-websocket/caddy-websocket/gateway/natsbroker"
)

// atOnce is how long what waits for nothing may take on a busy machine.
const atOnce = time.Second

// storm publishes without pause until stop is called, and counts. No Publish may wait.
type storm struct {
	stop func()

	mu               sync.Mutex
	sent, full, down int // guarded by mu
}

func (e *ear) storm(size int) *storm {
	s := new(storm)
	stop := make(chan struct{})
	var publishing sync.WaitGroup
	data := make([]byte, size)
	publishing.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			began := time.Now()
			err := e.Publish("storm", data)
			if took := time.Since(began); took > atOnce {
				e.t.Errorf("Publish took %s: %v", took, err)
			}
			s.mu.Lock()
			switch {
			case err == nil:
				s.sent++
			case errors.Is(err, gateway.ErrLinkFull):
				s.full++
			case errors.Is(err, gateway.ErrLinkDown):
				s.down++
			default:
				e.t.Errorf("Publish: %v", err)
			}
			s.mu.Unlock()
			if err != nil {
				time.Sleep(time.Millisecond)
			}
		}
	})
	s.stop = sync.OnceFunc(func() {
		close(stop)
		publishing.Wait()
	})
	e.t.Cleanup(s.stop)
	return s
}

func (s *storm) await(t testing.TB, what string, there func() bool) {
	t.Helper()
	awaitThat(t, what, func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return there()
	})
}

// A NATS server is updated while gateways are busy.
func TestServerKilledWhilePublishing(t *testing.T) {
	s := natsserver.Start(t)
	a := attach(t, open(t, natsbroker.Options{URLs: []string{s.URL()}}))
	b := attach(t, open(t, natsbroker.Options{URLs: []string{s.URL()}}))
	a.awaitUp()
	b.awaitUp()
	for round := range 3 {
		b.hears(a, fmt.Sprint("before ", round))
		busy := a.storm(100)
		busy.await(t, "messages", func() bool { return busy.sent > 1000 })
		s.Stop()
		a.awaitDown()
		b.awaitDown()
		busy.await(t, "ErrLinkDown", func() bool { return busy.down > 0 })
		s.Start()
		a.awaitUp()
		b.awaitUp()
		busy.stop()
	}
	b.hears(a, "after")
}

// A server that is frozen, or behind a cable that was pulled, closes nothing: TCP alone
// notices after a quarter of an hour.
func TestFrozenServerIsNoticed(t *testing.T) {
	s := natsserver.Start(t)
	for _, tt := range []struct {
		name string
		size int // of what is published; 0 is nothing
	}{
		{"by an idle node", 0},
		{"by a busy node", 100},
		{"by a node with large messages", 256 << 10},
	} {
		t.Run(tt.name, func(t *testing.T) {
			proxy := natsserver.NewProxy(t, s.Address())
			const interval = 100 * time.Millisecond
			o := natsbroker.Options{
				URLs: []string{proxy.URL()}, PingInterval: interval, ConnectTimeout: interval,
				SendBuffer: natsbroker.MinBuffer,
			}
			broker := open(t, o)
			a := attach(t, broker)
			if err := connect(t, broker); err != nil {
				t.Fatal(err)
			}
			a.awaitUp()
			var busy *storm
			if tt.size > 0 {
				busy = a.storm(tt.size)
				busy.await(t, "messages", func() bool { return busy.sent > 10 })
			}
			proxy.Freeze()
			frozen := time.Now()
			a.awaitDown()
			// Two pings and two intervals of a write that is stuck: far from TCP's.
			if took := time.Since(frozen); took > 50*interval {
				t.Errorf("it took %s to notice, with pings every %s", took, interval)
			}
			if busy != nil {
				busy.await(t, "ErrLinkDown", func() bool { return busy.down > 0 })
				if tt.size > 10<<10 {
					busy.await(t, "ErrLinkFull", func() bool { return busy.full > 0 })
				}
				busy.stop()
			}
			proxy.Heal()
			a.awaitUp()
			a.hears(attach(t, open(t, natsbroker.Options{URLs: []string{s.URL()}})), "thawed")
		})
	}
}

// Caddy is to stop although NATS does not answer.
func TestFrozenServerDoesNotHoldUpClose(t *testing.T) {
	proxy := natsserver.NewProxy(t, natsserver.Start(t).Address())
	broker := open(t, natsbroker.Options{URLs: []string{proxy.URL()}})
	a := attach(t, broker)
	if err := connect(t, broker); err != nil {
		t.Fatal(err)
	}
	a.awaitUp()
	proxy.Freeze()
	for full := false; !full; {
		full = errors.Is(a.Publish("all", make([]byte, 512<<10)), gateway.ErrLinkFull)
	}
	began := time.Now()
	a.Close()
	if took := time.Since(began); took > time.Second+atOnce {
		t.Errorf("the link's Close took %s", took)
	}
	began = time.Now()
	broker.Close()
	if took := time.Since(began); took > 2*time.Second+atOnce {
		t.Errorf("the broker's Close took %s", took)
	}
}

// The same holds for a server that accepts and then says nothing, and for one that is
// not there at all.
func TestCloseEndsConnecting(t *testing.T) {
	proxy := natsserver.NewProxy(t, natsserver.Start(t).Address())
	proxy.Freeze()
	for _, address := range []string{proxy.Address(), fmt.Sprint("127.0.0.1:", e2etest.FreePort(t))} {
		broker := open(t, natsbroker.Options{URLs: []string{address}, ConnectTimeout: time.Hour, ReconnectWait: time.Hour})
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		err := broker.Connect(ctx)
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Connect: %v, want a deadline that was exceeded", err)
		}
		began := time.Now()
		broker.Close()
		if took := time.Since(began); took > atOnce {
			t.Errorf("Close took %s", took)
		}
		if err := broker.Connect(t.Context()); !errors.Is(err, natsbroker.ErrClosed) {
			t.Errorf("Connect after Close: %v, want ErrClosed", err)
		}
	}
}

// Who waits in vain reads why.
func TestConnectSaysWhyNot(t *testing.T) {
	broker := open(t, natsbroker.Options{URLs: []string{fmt.Sprint("127.0.0.1:", e2etest.FreePort(t))}})
	e := attach(t, broker)
	e.await("the reason, told to the gateway", func() bool {
		return e.why != nil && strings.Contains(e.why.Error(), "connection refused")
	})
	awaitThat(t, "the reason", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		err := broker.Connect(ctx)
		return err != nil && strings.Contains(err.Error(), "connection refused")
	})
}

// A list of servers is there for the day on which one is not.
func TestAnotherServerTakesOver(t *testing.T) {
	for _, tt := range []struct {
		name  string
		given int
	}{
		{"that was given", 3},
		{"that the first has told of", 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			servers := natsserver.StartCluster(t, 3)
			var o natsbroker.Options
			for _, s := range servers[:tt.given] {
				o.URLs = append(o.URLs, s.URL())
			}
			a, b := attach(t, open(t, o)), attach(t, open(t, o))
			a.hears(b, "before")
			servers[0].Stop()
			a.hears(b, "after")
			b.hears(a, "answer")
		})
	}
}

// A busy cluster tells clients to go elsewhere.
func TestKickedBrokerComesBack(t *testing.T) {
	s := natsserver.Start(t)
	a, b := attach(t, open(t, natsbroker.Options{URLs: []string{s.URL()}})), attach(t, open(t, natsbroker.Options{URLs: []string{s.URL()}}))
	for round := range 3 {
		a.hears(b, fmt.Sprint("round ", round))
		s.Kick()
		a.await("Down", func() bool { return a.downs > round })
	}
	a.awaitUp()
	b.awaitUp()
	a.hears(b, "after")
}

// nats.go gives up for good after an error that it does not know: a broker does not.
func TestUnknownErrorIsSurvived(t *testing.T) {
	var config net.ListenConfig
	listener, err := config.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	defer serving.Wait()
	defer listener.Close()
	accepted := make(chan struct{}, 100)
	serving.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			fmt.Fprintf(conn, "INFO {\"proto\":1,\"max_payload\":1048576}\r\n")
			for lines := bufio.NewScanner(conn); lines.Scan(); {
				if lines.Text() == "PING" {
					fmt.Fprintf(conn, "PONG\r\n-ERR 'Something New'\r\n")
					break
				}
			}
			conn.Close()
			accepted <- struct{}{}
		}
	})
	broker := open(t, natsbroker.Options{URLs: []string{listener.Addr().String()}})
	defer broker.Close()
	for range 3 {
		select {
		case <-accepted:
		case <-time.After(wait):
			t.Fatalf("waited %s for another connection", wait)
		}
	}
}

// Operators set what a server takes: the gateway splits by it.
func TestMaxSizeIsTheServers(t *testing.T) {
	payload := func(n int32) *natsserver.Server {
		return natsserver.Start(t, func(o *server.Options) { o.MaxPayload = n })
	}
	broker := open(t, natsbroker.Options{URLs: []string{payload(8 << 10).URL()}})
	e := attach(t, broker)
	if err := connect(t, broker); err != nil {
		t.Fatal(err)
	}
	if got := e.MaxSize(); got != 8<<10 {
		t.Errorf("MaxSize is %d, the server takes %d", got, 8<<10)
	}
	if err := connect(t, open(t, natsbroker.Options{URLs: []string{payload(2 << 10).URL()}})); err == nil || !strings.Contains(err.Error(), "max_payload") {
		t.Errorf("Connect: %v, want an error about max_payload", err)
	}
}

// Where only HTTPS passes, NATS comes as WebSocket.
func TestServerOverWebSocket(t *testing.T) {
	s := natsserver.Start(t, func(o *server.Options) {
		o.Websocket = server.WebsocketOpts{Host: "127.0.0.1", Port: server.RANDOM_PORT, NoTLS: true}
	})
	serves(t, natsbroker.Options{URLs: []string{s.WebsocketURL()}})
}

// Who looks at the server's connections must see whose they are.
func TestNameIsShown(t *testing.T) {
	s := natsserver.Start(t)
	for _, name := range []string{"", "edge 1"} {
		if err := connect(t, open(t, natsbroker.Options{URLs: []string{s.URL()}, Name: name})); err != nil {
			t.Fatal(err)
		}
	}
	names := strings.Join(s.Clients(), "\n")
	if !strings.Contains(names, "caddy-websocket ") || !strings.Contains(names, "edge 1") {
		t.Errorf("the server shows %q", names)
	}
}

// A gateway that is removed by a reload must not be served for ever.
func TestClosedLinkLeavesNoSubscriptions(t *testing.T) {
	s := natsserver.Start(t)
	broker := open(t, natsbroker.Options{URLs: []string{s.URL()}})
	if err := connect(t, broker); err != nil {
		t.Fatal(err)
	}
	before := s.Subscriptions()
	e := attach(t, broker)
	for i := range 100 {
		e.Subscribe(fmt.Sprint("s.", i))
	}
	awaitThat(t, "the subscriptions", func() bool { return s.Subscriptions() == before+101 })
	for i := range 50 {
		e.Unsubscribe(fmt.Sprint("s.", i))
	}
	awaitThat(t, "the fewer subscriptions", func() bool { return s.Subscriptions() == before+51 })
	e.Close()
	awaitThat(t, "no subscriptions", func() bool { return s.Subscriptions() == before })
}
