package load_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-websocket/caddy-websocket/bench/load"
	"github.com/caddy-websocket/caddy-websocket/gateway"
)

// talk echoes, and follows the commands that Fanout and Groups send.
type talk struct {
	gateway.NopLogic
	node    bool // nothing may be sent before the nodes have settled
	settled *atomic.Bool
}

// OnConnect joins what the query names. A user is a group of his own.
func (talk) OnConnect(c *gateway.Client, r *http.Request) error {
	for _, user := range r.URL.Query()["user"] {
		if err := c.Join("user " + user); err != nil {
			return err
		}
	}
	return c.Join(r.URL.Query()["group"]...)
}

// OnMessage echoes what is no command.
func (t talk) OnMessage(c *gateway.Client, m gateway.Message) error {
	words := strings.Fields(m.String())
	switch {
	case m.Type == gateway.TextMessage:
	case words[0] == "j":
		if err := c.Join(words[1:]...); err != nil {
			return err
		}
	case words[0] == "w":
		others, _ := strconv.Atoi(words[1])
		for len(c.Gateway().Nodes())-1 < others {
			time.Sleep(time.Millisecond)
		}
		if err := c.Gateway().Settle(context.Background()); err != nil {
			return err
		}
		t.settled.Store(true)
	case t.node && !t.settled.Load():
		return errors.New("a message is sent before it is known where members are")
	default:
		name := words[1]
		if words[0] == "u" {
			name = "user " + name
		}
		if _, err := c.Gateway().Send(gateway.Groups(name), gateway.Text(words[2])); err != nil {
			return err
		}
	}
	return c.Send(m)
}

// serve returns where a server listens that talks.
func serve(t *testing.T, secure bool) load.Target {
	t.Helper()
	return serveNode(t, nil, secure)
}

// serveNode is serve for a node of several.
func serveNode(t *testing.T, b gateway.Broker, secure bool) load.Target {
	t.Helper()
	g, err := gateway.New(gateway.Options{Broker: b})
	if err != nil {
		t.Fatal(err)
	}
	e, err := gateway.NewEndpoint("talk", gateway.EndpointOptions{Logic: talk{node: b != nil, settled: new(atomic.Bool)}})
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Serve(e); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(e)
	if secure {
		server.StartTLS()
	} else {
		server.Start()
	}
	t.Cleanup(func() {
		server.Close()
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		if err := g.Shutdown(ctx); err != nil {
			t.Error(err)
		}
	})
	target := load.Target{Addr: server.Listener.Addr().String(), Path: "/"}
	if secure {
		roots := x509.NewCertPool()
		roots.AddCert(server.Certificate())
		target.TLS = &tls.Config{RootCAs: roots, ServerName: "example.com", MinVersion: tls.VersionTLS13}
	}
	return target
}

func dial(t *testing.T, target load.Target, n int) []*load.Conn {
	t.Helper()
	conns, err := target.DialMany(t.Context(), n, 4<<10)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { load.CloseAll(conns) })
	return conns
}

const short = 50 * time.Millisecond

// Each connection can be used for one run after the other, whatever is in flight: what is
// left of a run would be counted in the next one.
func TestEchoesComeBackAndNothingIsLeft(t *testing.T) {
	for _, secure := range []bool{false, true} {
		conns := dial(t, serve(t, secure), 3)
		for _, size := range []int{0, 32, 200, 70_000} {
			for _, flight := range []load.Flight{{Messages: 1}, {Messages: 5}, {Messages: 5, Burst: true}} {
				r, err := load.Echo(conns, load.Text(size), flight, short)
				if err != nil {
					t.Fatalf("TLS %t, %d bytes, %+v: %v", secure, size, flight, err)
				}
				if least := int64(len(conns) * flight.Messages); r.Messages < least || r.Latency.Total() != r.Messages {
					t.Errorf("TLS %t, %d bytes, %+v: %d messages with %d times, want the same, and %d at least",
						secure, size, flight, r.Messages, r.Latency.Total(), least)
				}
				if flight.Burst && r.Messages%int64(flight.Messages) != 0 {
					t.Errorf("TLS %t, %d bytes: %d messages in bursts of %d", secure, size, r.Messages, flight.Messages)
				}
			}
		}
	}
}

// The rate is what was asked for, whatever the server does, and a message that is late counts
// from when it was due.
func TestOpenLoopSendsAllThatIsDue(t *testing.T) {
	conns := dial(t, serve(t, true), 4)
	const rate, lasts = 1000, 200 * time.Millisecond
	r, err := load.Open(conns, load.Text(32), rate, lasts)
	if err != nil {
		t.Fatal(err)
	}
	if want := int64(rate * lasts / time.Second); r.Messages != want {
		t.Errorf("%d messages, want %d", r.Messages, want)
	}
	if least := r.Late.Quantile(1); r.Latency.Quantile(1) < least {
		t.Errorf("no echo took longer than %s, and one message was sent %s after it was due", r.Latency.Quantile(1), least)
	}
}

func TestHandshakesResumeTheirSessionsIfAsked(t *testing.T) {
	target := serve(t, true)
	for _, resume := range []bool{false, true} {
		const lines = 2
		r, err := load.Handshakes(t.Context(), target, lines, resume, 300*time.Millisecond)
		if err != nil {
			t.Fatal(err)
		}
		want := int64(0)
		if resume {
			want = r.Messages - lines // but for each line's first
		}
		if r.Messages == 0 || r.Resumed != want {
			t.Errorf("resume %t: %d of %d handshakes did, want %d", resume, r.Resumed, r.Messages, want)
		}
	}
}

// Every member is waited for, also if messages come in heaps; those that are stuck are not.
func TestFanoutCountsEveryDelivery(t *testing.T) {
	for _, stuck := range []int{0, 1} {
		f, err := load.NewFanout(t.Context(), serve(t, true), 5, stuck)
		if err != nil {
			t.Fatal(err)
		}
		for _, outstanding := range []int{1, 4, 1} {
			r, err := f.Run([]byte("hello"), outstanding, short)
			if err != nil {
				t.Fatalf("%d stuck, %d outstanding: %v", stuck, outstanding, err)
			}
			if r.Messages == 0 || r.Messages%5 != 0 {
				t.Errorf("%d stuck, %d outstanding: %d deliveries to 5 members", stuck, outstanding, r.Messages)
			}
		}
		f.Close()
	}
}

func TestGroupsCountEveryDelivery(t *testing.T) {
	g, err := load.NewGroups(t.Context(), serve(t, false), 4, 10, 2)
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	for range 2 {
		r, err := g.Run([]byte("hello"), 3, short)
		if err != nil {
			t.Fatal(err)
		}
		if r.Messages == 0 || r.Messages%2 != 0 {
			t.Errorf("%d deliveries to groups of 2", r.Messages)
		}
	}
}

// Members on several nodes are all waited for, whichever way they are sent to, and nothing is
// sent before it is known where they are: what they missed would end the run.
func TestDeliveriesOnSeveralNodesAreCounted(t *testing.T) {
	b := gateway.NewMemoryBroker()
	t.Cleanup(b.Close) // after the nodes
	nodes := []load.Target{serveNode(t, b, true), serveNode(t, b, false), serveNode(t, b, true)}
	for name, over := range map[string][]load.Target{"all": nodes, "others": nodes[1:]} {
		t.Run(name, func(t *testing.T) {
			f, err := load.NewFanout(t.Context(), nodes[0], 6, 0, over...)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			g, err := load.NewGroups(t.Context(), nodes[0], 6, 10, 3, over...)
			if err != nil {
				t.Fatal(err)
			}
			defer g.Close()
			u, err := load.NewUsers(t.Context(), nodes[0], 6, over...)
			if err != nil {
				t.Fatal(err)
			}
			defer u.Close()
			const rate = 200
			m := []byte("hello")
			for range 2 {
				for _, way := range []struct {
					name string
					each int64
					run  func() (*load.Result, error)
				}{
					{"fan-out", 6, func() (*load.Result, error) { return f.Run(m, 2, short) }},
					{"groups", 3, func() (*load.Result, error) { return g.Run(m, 3, short) }},
					{"delivered groups", 3, func() (*load.Result, error) { return g.Deliver(m, 3, short) }},
					{"paced groups", 3, func() (*load.Result, error) { return g.Paced(m, rate, short) }},
					{"users", 1, func() (*load.Result, error) { return u.Deliver(m, 3, short) }},
				} {
					r, err := way.run()
					if err != nil {
						t.Fatalf("%s: %v", way.name, err)
					}
					if r.Messages == 0 || r.Messages%way.each != 0 {
						t.Errorf("%s: %d deliveries, %d at a time", way.name, r.Messages, way.each)
					}
					if n := r.Latency.Total(); n != r.Messages && way.name != "groups" {
						t.Errorf("%s: %d deliveries and %d times", way.name, r.Messages, n)
					}
					if want := int64(rate * short / time.Second * 3); way.name == "paced groups" && r.Messages != want {
						t.Errorf("%s: %d deliveries, want %d", way.name, r.Messages, want)
					}
				}
			}
		})
	}
}

// A refusal is not taken for a connection.
func TestRefusedHandshakeIsAnError(t *testing.T) {
	server := httptest.NewServer(http.NotFoundHandler())
	defer server.Close()
	target := load.Target{Addr: server.Listener.Addr().String(), Path: "/"}
	if _, err := target.DialMany(t.Context(), 2, 4<<10); err == nil || !strings.Contains(err.Error(), "404") {
		t.Errorf("error %v, want one that says 404", err)
	}
}

// What a server has no words for is said before anything is measured.
func TestDialectSaysWhatItHasNoWordsFor(t *testing.T) {
	target := serve(t, false) // which answers each text with the same
	target.Dialect = load.Centrifuge
	if _, err := load.NewUsers(t.Context(), target, 2); err == nil || !strings.Contains(err.Error(), "users") {
		t.Errorf("error %v, want one about users", err)
	}
	if _, err := load.NewFanout(t.Context(), target, 2, 0, target); err == nil || !strings.Contains(err.Error(), "joined") {
		t.Errorf("error %v, want one about servers that are joined", err)
	}
}
