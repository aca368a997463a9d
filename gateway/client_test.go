package gateway_test

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-websocket/caddy-websocket/gateway"
	"github.com/caddy-websocket/caddy-websocket/gateway/gatewaytest"
)

// echo answers every message with itself.
func echo(c *gateway.Client, m gateway.Message) error { return c.Send(m) }

func TestMessageIsAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := gatewaytest.ServeLogic(t, &gatewaytest.Recorder{Message: echo}).Dial("/test")
		c.Send("tom")
		c.Want("tom")
	})
}

// What logic sends in OnConnect must not overtake the handshake's answer, and
// must not be lost either.
func TestMessagesSentInOnConnectFollowTheHandshake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		logic := &gatewaytest.Recorder{Connect: func(c *gateway.Client, _ *http.Request) error {
			c.Header().Set("X-Greeting", "hello")
			for i := range 3 {
				if err := c.Send(gateway.Text(fmt.Sprint(i))); err != nil {
					return err
				}
			}
			return nil
		}}
		c := gatewaytest.ServeLogic(t, logic).Dial("/test")
		if got := c.Response.Header.Get("X-Greeting"); got != "hello" {
			t.Errorf("the answer has X-Greeting %q, want hello", got)
		}
		c.Want("0", "1", "2")
	})
}

func TestOnConnectChoosesTheRefusal(t *testing.T) {
	for _, tt := range []struct {
		name   string
		err    error
		status int
	}{
		{"any error", errors.New("no"), http.StatusForbidden},
		{"handshake error", &gateway.HandshakeError{Status: http.StatusUnauthorized, Header: http.Header{"Www-Authenticate": {"Bearer"}}}, http.StatusUnauthorized},
		{"handshake error without status", &gateway.HandshakeError{}, http.StatusForbidden},
		{"wrapped", fmt.Errorf("asking: %w", &gateway.HandshakeError{Status: http.StatusPaymentRequired}), http.StatusPaymentRequired},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				logic := &gatewaytest.Recorder{Connect: func(*gateway.Client, *http.Request) error { return tt.err }}
				s := gatewaytest.ServeLogic(t, logic)
				resp := s.Refused(tt.status, "/test")
				if tt.status == http.StatusUnauthorized && resp.Header.Get("WWW-Authenticate") != "Bearer" {
					t.Error("the refusal's header is missing")
				}
				synctest.Wait()
				logic.Want(t, "connect") // and no OnClose
				wantCount(t, s.Gateway, gateway.All(), 0)
			})
		})
	}
}

func TestCloseFromThePeerReachesOnClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		logic := &gatewaytest.Recorder{}
		c := gatewaytest.ServeLogic(t, logic).Dial("/test")
		c.Close(4001, "bye")
		c.WantClose(4001)
		logic.Want(t, "connect", "close 4001 bye")
	})
}

func TestLostConnectionIs1006(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		logic := &gatewaytest.Recorder{}
		c := gatewaytest.ServeLogic(t, logic).Dial("/test")
		c.Cut()
		logic.Want(t, "connect", "close 1006 connection lost")
	})
}

func TestCloseSendsWhatIsQueuedFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		logic := &gatewaytest.Recorder{Message: func(c *gateway.Client, m gateway.Message) error {
			_ = c.Send(gateway.Text("last words"))
			if err := c.Close(4002, "enough"); err != nil {
				return err
			}
			if err := c.Send(m); !errors.Is(err, gateway.ErrClosed) {
				t.Errorf("sending after Close: %v, want ErrClosed", err)
			}
			return nil
		}}
		c := gatewaytest.ServeLogic(t, logic).Dial("/test")
		c.Send("1")
		c.Send("2") // must not be handled any more
		c.Want("last words")
		if reason := c.WantClose(4002); reason != "enough" {
			t.Errorf("reason %q, want enough", reason)
		}
		logic.Want(t, "connect", "message 1", "close 4002 enough")
	})
}

func TestCloseErrorFromOnMessageCloses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		logic := &gatewaytest.Recorder{Message: func(*gateway.Client, gateway.Message) error {
			return &gateway.CloseError{Code: 4003, Reason: "as asked"}
		}}
		c := gatewaytest.ServeLogic(t, logic).Dial("/test")
		c.Send("x")
		c.WantClose(4003)
		logic.Want(t, "connect", "message x", "close 4003 as asked")
	})
}

// The mission's promise: a bug in one message never hurts a neighbour.
func TestPanicEndsOnlyItsClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &gatewaytest.Log{}
		logic := &gatewaytest.Recorder{Message: func(c *gateway.Client, m gateway.Message) error {
			if m.String() == "boom" {
				panic("a bug in the logic")
			}
			return c.Send(m)
		}}
		s := gatewaytest.Serve(t, gatewaytest.Endpoint(t, "test", gateway.EndpointOptions{Logic: logic, Logger: log.Logger()}))
		bad, good := s.Dial("/test"), s.Dial("/test")
		bad.Send("boom")
		bad.WantClose(gateway.CloseInternalError)
		good.Send("still here")
		good.Want("still here")
		if lines := log.Find("panic in the logic"); len(lines) != 1 || !strings.Contains(fmt.Sprint(lines[0].Attrs["stack"]), "client_test.go") {
			t.Errorf("log lines %v, want one with the stack", lines)
		}
	})
}

func TestPanicInOnCloseIsContained(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &gatewaytest.Log{}
		logic := &gatewaytest.Recorder{Message: echo, Closed: func(*gateway.Client, gateway.CloseReason) { panic("a bug in the logic") }}
		s := gatewaytest.Serve(t, gatewaytest.Endpoint(t, "test", gateway.EndpointOptions{Logic: logic, Logger: log.Logger(), MaxClients: 2}))
		good := s.Dial("/test")
		for range 3 { // nothing is left of those that went
			bad := s.Dial("/test")
			bad.Close(1000, "")
			bad.WantClose(1000)
			bad.Cut()
			synctest.Wait()
		}
		good.Send("still here")
		good.Want("still here")
		if n := len(log.Find("panic in the logic")); n != 3 {
			t.Errorf("%d panics are logged, want 3", n)
		}
		if n := len(log.Find("client gone")); n != 3 {
			t.Errorf("%d clients are logged as gone, want 3", n)
		}
	})
}

func TestOtherErrorCloses1011AndIsLogged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &gatewaytest.Log{}
		logic := &gatewaytest.Recorder{Message: func(*gateway.Client, gateway.Message) error { return errors.New("database is away") }}
		s := gatewaytest.Serve(t, gatewaytest.Endpoint(t, "test", gateway.EndpointOptions{Logic: logic, Logger: log.Logger()}))
		c := s.Dial("/test")
		c.Send("x")
		if reason := c.WantClose(gateway.CloseInternalError); strings.Contains(reason, "database") {
			t.Errorf("the client is told %q", reason)
		}
		log.Wait(t, "logic failed")
	})
}

func TestConnectionIsLoggedWhenItComesAndGoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &gatewaytest.Log{}
		logic := &gatewaytest.Recorder{Message: echo, Connect: func(c *gateway.Client, _ *http.Request) error { return c.Bind("tom") }}
		s := gatewaytest.Serve(t, gatewaytest.Endpoint(t, "test", gateway.EndpointOptions{Logic: logic, Logger: log.Logger()}))
		c := s.Dial("/test", "From-IP: 2001:db8::7")
		c.Send("12345")
		c.Want("12345")
		time.Sleep(5 * time.Second)
		c.Close(1000, "done")
		c.WantClose(1000)
		id := logic.Client(t, 0).ID()
		want := map[string]any{"client": id, "client_ip": "2001:db8::7", "endpoint": "test", "user": "tom"}
		wantAttrs(t, log.Wait(t, "client connected"), want)
		gone := log.Wait(t, "client gone")
		wantAttrs(t, gone, want)
		wantAttrs(t, gone, map[string]any{
			"code": int64(1000), "reason": "done", "duration": 5 * time.Second,
			"messages_in": int64(1), "messages_out": int64(1),
			// masked: 6 bytes of header, 5 of text, and a close of 6 + 2 + 4
			"bytes_in": int64(11 + 12),
			// 2 of header, 5 of text, and the close echoed: 2 + 2 + 4
			"bytes_out": int64(7 + 8),
		})
	})
}

// Whoever logs with AddSource finds the line in the code, also of the second client:
// the place is looked up once.
func TestConnectionsLogLinesSayWhereTheyAreFrom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &gatewaytest.Log{}
		s := gatewaytest.Serve(t, gatewaytest.Endpoint(t, "test", gateway.EndpointOptions{Logger: log.Logger()}))
		for range 2 {
			s.Dial("/test").Close(1000, "")
			synctest.Wait()
		}
		for message, function := range map[string]string{"client connected": "opened", "client gone": "forget"} {
			lines := log.Find(message)
			if len(lines) != 2 {
				t.Errorf("%d lines say %q, want 2", len(lines), message)
			}
			for _, line := range lines {
				if want := ".(*Client)." + function; !strings.HasSuffix(line.Function, want) {
					t.Errorf("%q is from %q, want ...%s", message, line.Function, want)
				}
			}
		}
	})
}

func wantAttrs(t *testing.T, r gatewaytest.Record, want map[string]any) {
	t.Helper()
	for key, v := range want {
		if r.Attrs[key] != v {
			t.Errorf("log line %q has %s=%v (%T), want %v", r.Message, key, r.Attrs[key], r.Attrs[key], v)
		}
	}
}

func wantCount(t *testing.T, g *gateway.Gateway, of gateway.Target, want int) {
	t.Helper()
	reach, err := g.Count(t.Context(), of)
	if err != nil || reach.Clients != want {
		t.Errorf("counted %d clients (%v), want %d", reach.Clients, err, want)
	}
}
