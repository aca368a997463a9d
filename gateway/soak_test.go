package gateway_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/caddy-websocket/caddy-websocket/gateway"
	"github.com/caddy-websocket/caddy-websocket/gateway/gatewaytest"
)

// soakLogic echoes, and does what a message asks for.
type soakLogic struct {
	gateway.NopLogic
	opens, closes *atomic.Int64
	generation    int
}

func (l *soakLogic) OnConnect(c *gateway.Client, _ *http.Request) error {
	l.opens.Add(1)
	return c.Join("all")
}

func (l *soakLogic) OnMessage(c *gateway.Client, m gateway.Message) error {
	text := m.String()
	switch {
	case text == "panic":
		panic("as asked")
	case text == "error":
		return fmt.Errorf("as asked in generation %d", l.generation)
	case strings.HasPrefix(text, "all "):
		_, err := c.Gateway().Send(gateway.Groups("all").ExceptClients(c.ID()), gateway.Text("noise"))
		return err
	}
	return c.Send(m)
}

func (l *soakLogic) OnClose(*gateway.Client, gateway.CloseReason) { l.closes.Add(1) }

// All at once, for a short while: clients that talk and count, clients that read
// nothing, clients whose messages panic, clients that come and go, and a hundred
// new generations. Nobody who behaves loses a message or a connection, and what
// was opened is closed.
func TestNobodyLosesAMessageWhileEverythingHappens(t *testing.T) {
	const talkers, sleepers, victims, passers, generations, messages = 30, 5, 5, 5, 100, 300
	var opens, closes atomic.Int64
	g, err := gateway.New(gateway.Options{})
	if err != nil {
		t.Fatal(err)
	}
	var current atomic.Pointer[gateway.Endpoint]
	var served *gateway.Generation
	commit := func(n int) {
		gen, err := g.Prepare(gateway.Options{})
		if err != nil {
			t.Fatal(err)
		}
		e := gatewaytest.Endpoint(t, "soak", gateway.EndpointOptions{
			Logic:  &soakLogic{opens: &opens, closes: &closes, generation: n},
			Logger: (&gatewaytest.Log{}).Logger(), SendBuffer: int64(1<<20 + n), WriteTimeout: time.Second,
		})
		if err := gen.Add(e); err != nil {
			t.Fatal(err)
		}
		current.Store(e)
		if n%7 == 3 { // a configuration that fails
			gen.Close()
			current.Store(e)
			return
		}
		if err := gen.Commit(); err != nil {
			t.Fatal(err)
		}
		if served != nil {
			if err := served.Stop(t.Context()); err != nil {
				t.Error(err)
			}
			served.Close()
		}
		served = gen
	}
	commit(0)
	s := gatewaytest.ServeHandler(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { current.Load().ServeHTTP(w, r) }))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var talking, disturbing sync.WaitGroup
	connect := func() *websocket.Conn {
		for ctx.Err() == nil {
			dialer := websocket.Dialer{NetDialContext: s.DialContext}
			if conn, _, err := dialer.Dial("ws://gateway.test/soak", nil); err == nil {
				return conn
			}
		}
		return nil
	}
	for range talkers {
		conn := connect()
		talking.Go(func() {
			defer conn.Close()
			for i := range messages {
				want := fmt.Sprint(i)
				if err := conn.WriteMessage(websocket.TextMessage, []byte(want)); err != nil {
					t.Errorf("sending message %d: %v", i, err)
					return
				}
				for {
					_, got, err := conn.ReadMessage()
					if err != nil {
						t.Errorf("waiting for answer %d: %v", i, err)
						return
					}
					if string(got) == want {
						break
					}
					if string(got) != "noise" {
						t.Errorf("answer %q, want %s", got, want)
						return
					}
				}
			}
		})
	}
	for range sleepers { // their queues fill, and they are closed
		conn := connect()
		defer conn.Close()
	}
	disturb := func(n int, messages ...string) {
		for range n {
			disturbing.Go(func() {
				for ctx.Err() == nil {
					conn := connect()
					if conn == nil {
						return
					}
					for _, message := range messages {
						_ = conn.WriteMessage(websocket.TextMessage, []byte(message))
					}
					if rand.IntN(2) == 0 {
						_ = conn.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(1000, ""), time.Now().Add(time.Second))
						_, _, _ = conn.ReadMessage()
					}
					_ = conn.Close()
				}
			})
		}
	}
	disturb(victims, "hello", "panic")
	disturb(victims, "error")
	disturb(passers, "all of you")
	for n := range generations {
		commit(n + 1)
	}
	talking.Wait()
	cancel()
	disturbing.Wait()
	if err := g.Shutdown(context.Background()); err != nil {
		t.Error(err)
	}
	if o, c := opens.Load(), closes.Load(); o != c {
		t.Errorf("%d clients were opened and %d closed", o, c)
	}
	t.Logf("%d clients, %d generations", opens.Load(), generations)
}
