package gateway_test

import (
	"errors"
	"maps"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/caddy-websocket/caddy-websocket/gateway"
	"github.com/caddy-websocket/caddy-websocket/gateway/gatewaytest"
)

// statsOf returns what is counted of an endpoint.
func statsOf(t *testing.T, g *gateway.Gateway, endpoint string) gateway.EndpointStats {
	t.Helper()
	for _, e := range g.Stats().Endpoints {
		if e.Endpoint == endpoint {
			return e
		}
	}
	t.Fatalf("no stats of endpoint %q", endpoint)
	return gateway.EndpointStats{}
}

// Whoever looks at a graph must find in it what happened, also of clients that
// are long gone, and in no case more closes than there were clients.
func TestStatsCountHandshakesTrafficAndCloses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		logic := &gatewaytest.Recorder{
			Connect: func(_ *gateway.Client, r *http.Request) error {
				if r.URL.RawQuery == "no" {
					return errors.New("no")
				}
				return nil
			},
			Message: func(c *gateway.Client, m gateway.Message) error { return c.Send(m) },
		}
		s := gatewaytest.Serve(t, gatewaytest.Endpoint(t, "chat", gateway.EndpointOptions{Logic: logic, MaxClients: 3}))
		s.Refused(http.StatusForbidden, "/chat?no")
		a, b, c := s.Dial("/chat"), s.Dial("/chat"), s.Dial("/chat")
		s.Refused(http.StatusServiceUnavailable, "/chat")
		for _, who := range []*gatewaytest.Client{a, b, c} {
			who.Send("hello")
			who.Want("hello")
		}
		a.Close(4001, "mine")
		b.Cut()
		synctest.Wait()
		if _, err := s.Gateway.Close(gateway.All(), gateway.CloseNormal, ""); err != nil {
			t.Fatal(err)
		}
		c.WantClose(gateway.CloseNormal)
		synctest.Wait()

		got := statsOf(t, s.Gateway, "chat")
		if want := map[int]int64{101: 3, 403: 1, 503: 1}; !maps.Equal(got.Handshakes, want) {
			t.Errorf("handshakes %v, want %v", got.Handshakes, want)
		}
		if got.MessagesIn != 3 || got.MessagesOut != 3 || got.BytesOut < 3*7 || got.BytesIn < 3*11 {
			t.Errorf("traffic %+v, want 3 messages of 5 bytes each way", got.Traffic)
		}
		closes := map[gateway.CloseCount]bool{}
		for _, n := range got.Closes {
			closes[n] = true
		}
		want := map[gateway.CloseCount]bool{
			{Code: "4xxx", ByPeer: true, Count: 1}: true, {Code: "1006", ByPeer: true, Count: 1}: true, {Code: "1000", Count: 1}: true,
		}
		if !maps.Equal(closes, want) {
			t.Errorf("closes %v, want %v", got.Closes, want)
		}
		if got.Clients != 0 {
			t.Errorf("%d clients, want none", got.Clients)
		}
	})
}

// A graph of messages must never fall: not while clients come and go, either.
func TestStatsNeverFall(t *testing.T) {
	s := gatewaytest.ServeLogic(t, &gatewaytest.Recorder{Message: func(c *gateway.Client, m gateway.Message) error { return c.Send(m) }})
	endpoint := s.Gateway.Stats().Endpoints[0].Endpoint
	const talkers, rounds = 4, 50
	var wg sync.WaitGroup
	for range talkers {
		wg.Go(func() {
			for range rounds {
				c := s.Dial("/" + endpoint)
				c.Send("x")
				c.Want("x")
				c.Close(gateway.CloseNormal, "")
			}
		})
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	for last := (gateway.EndpointStats{}); ; {
		now := statsOf(t, s.Gateway, endpoint)
		if now.MessagesIn < last.MessagesIn || now.BytesOut < last.BytesOut || now.Handshakes[101] < last.Handshakes[101] {
			t.Fatalf("%+v after %+v", now, last)
		}
		var closed int64
		for _, n := range now.Closes {
			closed += n.Count
		}
		if closed+int64(now.Clients) > now.Handshakes[101] {
			t.Fatalf("%d closed and %d there of %d clients", closed, now.Clients, now.Handshakes[101])
		}
		last = now
		select {
		case <-done:
			if last.MessagesIn > talkers*rounds {
				t.Fatalf("%d messages came in, want %d", last.MessagesIn, talkers*rounds)
			}
			return
		default:
		}
	}
}

// A client that reads nothing is seen in numbers before anybody complains.
func TestStatsCountOverflowsByPolicy(t *testing.T) {
	for _, policy := range []gateway.QueuePolicy{gateway.CloseWhenFull, gateway.DropNewest, gateway.DropOldest} {
		t.Run(policy.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var log gatewaytest.Log
				s := gatewaytest.Serve(t, gatewaytest.Endpoint(t, "chat", gateway.EndpointOptions{
					SendBuffer: 1 << 10, WhenFull: policy, Logger: log.Logger(),
				}))
				s.Dial("/chat") // reads nothing
				for range 4 << 10 {
					_, _ = s.Gateway.Send(gateway.All(), gateway.Binary(make([]byte, 1000)))
				}
				got := statsOf(t, s.Gateway, "chat")
				if got.Overflows[policy.String()] == 0 || got.Dropped == 0 {
					t.Errorf("overflows %v, dropped %d, want some", got.Overflows, got.Dropped)
				}
				for other, n := range got.Overflows {
					if other != policy.String() && n != 0 {
						t.Errorf("%d overflows under %s, want none", n, other)
					}
				}
				warned := len(log.Find("client takes in too little"))
				if want := map[bool]int{true: 0, false: 1}[policy == gateway.CloseWhenFull]; warned != want {
					t.Errorf("warned %d times, want %d", warned, want)
				}
				s.Gateway.Close(gateway.All(), gateway.CloseNormal, "")
			})
		})
	}
}
