package main

import (
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/caddy-websocket/caddy-websocket/bench/load"
)

const short = 50 * time.Millisecond

// A peer that loses messages, or sends them to too few, would look fast.
func TestPeersDoWhatIsMeasured(t *testing.T) {
	for name, peer := range map[string]struct {
		mux    http.Handler
		fanout bool
	}{
		"gorilla": {gorillaMux(), true},
		"coder":   {coderMux(), false},
		"gws":     {gwsMux(), true},
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(peer.mux)
			t.Cleanup(server.Close)
			target := load.Target{Addr: server.Listener.Addr().String(), Path: "/echo"}
			conns, err := target.DialMany(t.Context(), 2, 4<<10)
			if err != nil {
				t.Fatal(err)
			}
			defer load.CloseAll(conns)
			for _, size := range []int{32, 70_000} {
				if _, err := load.Echo(conns, load.Text(size), load.Flight{Messages: 4}, short); err != nil {
					t.Errorf("echo of %d bytes: %v", size, err)
				}
			}
			if !peer.fanout {
				return
			}
			target.Path = "/fanout"
			f, err := load.NewFanout(t.Context(), target, 3, 0)
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
