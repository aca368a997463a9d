package main

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/centrifugal/centrifuge"
	"github.com/nats-io/nats-server/v2/server"

	"github.com/caddy-websocket/caddy-websocket/bench/load"
)

const short = 50 * time.Millisecond

// A peer that loses messages, or sends them to too few, would look fast.
func TestPeersDoWhatIsMeasured(t *testing.T) {
	for name, peer := range map[string]struct {
		mux     http.Handler
		echo    bool
		fanout  bool
		stuck   int // who may not hold it up
		dialect *load.Dialect
	}{
		"gorilla":    {mux: gorillaMux(gorillaHub{newGroups[*gorillaConn]()}), echo: true, fanout: true},
		"coder":      {mux: coderMux(), echo: true},
		"gws":        {mux: gwsMux(), echo: true, fanout: true},
		"centrifuge": {mux: centrifugeHandler(runNode(t)), fanout: true, stuck: 1, dialect: load.Centrifuge},
	} {
		t.Run(name, func(t *testing.T) {
			mux := httptest.NewServer(peer.mux)
			t.Cleanup(mux.Close)
			target := load.Target{Addr: mux.Listener.Addr().String(), Path: "/echo", Dialect: peer.dialect}
			conns, err := target.DialMany(t.Context(), 2, 4<<10)
			if err != nil {
				t.Fatal(err)
			}
			defer load.CloseAll(conns)
			if peer.echo {
				for _, size := range []int{32, 70_000} {
					if _, err := load.Echo(conns, load.Text(size), load.Flight{Messages: 4}, short); err != nil {
						t.Errorf("echo of %d bytes: %v", size, err)
					}
				}
			}
			if !peer.fanout {
				return
			}
			target.Path = "/fanout"
			f, err := load.NewFanout(t.Context(), target, 3, peer.stuck)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if _, err := f.Run([]byte("hello"), 4, short); err != nil {
				t.Errorf("fan-out: %v", err)
			}
			g, err := load.NewGroups(t.Context(), target, 4, 10, 2)
			if err != nil {
				t.Fatal(err)
			}
			defer g.Close()
			if _, err := g.Run([]byte("hello"), 4, short); err != nil {
				t.Errorf("groups: %v", err)
			}
		})
	}
}

// runNode returns a node of centrifuge, which ends with the test.
func runNode(t *testing.T) *centrifuge.Node {
	t.Helper()
	node, err := centrifugeNode()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := node.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return node
}

// What is sent on one server must reach the members on another, once.
func TestServersOverNATSDoWhatIsMeasured(t *testing.T) {
	broker, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, NoLog: true, NoSigs: true})
	if err != nil {
		t.Fatal(err)
	}
	broker.Start()
	t.Cleanup(func() {
		broker.Shutdown()
		broker.WaitForShutdown()
	})
	if !broker.ReadyForConnections(10 * time.Second) {
		t.Fatal("the NATS server is not ready")
	}
	nodes := make([]load.Target, 2)
	for i := range nodes {
		mux, err := natsMux(broker.ClientURL())
		if err != nil {
			t.Fatal(err)
		}
		node := httptest.NewServer(mux)
		t.Cleanup(node.Close)
		nodes[i] = load.Target{Addr: node.Listener.Addr().String(), Path: "/fanout"}
	}
	f, err := load.NewFanout(t.Context(), nodes[0], 4, 0, nodes...)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Run([]byte("hello"), 4, short); err != nil {
		t.Errorf("fan-out: %v", err)
	}
	u, err := load.NewUsers(t.Context(), nodes[0], 3, nodes[1])
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	if _, err := u.Deliver([]byte("hello"), 4, short); err != nil {
		t.Errorf("users: %v", err)
	}
}

func TestBareAnswersAndHolds(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error)
	go func() { ended <- bare(listener) }()
	target := load.Target{Addr: listener.Addr().String(), Path: "/echo"}
	conns, err := target.DialMany(t.Context(), 3, 4<<10)
	if err != nil {
		t.Fatal(err)
	}
	load.CloseAll(conns)
	listener.Close()
	if err := <-ended; !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
}
