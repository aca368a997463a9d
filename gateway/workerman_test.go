package gateway_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gorilla/websocket"

	"github.com/caddy-websocket/caddy-websocket/gateway"
	"github.com/caddy-websocket/caddy-websocket/gateway/gatewaytest"
)

// What Workerman's connection object offers, without a browser noticing the change.
func TestWorkermanConnection(t *testing.T) {
	serve := func(t *testing.T, header ...string) (*gatewaytest.Client, *gateway.Client) {
		logic := &gatewaytest.Recorder{Connect: func(c *gateway.Client, r *http.Request) error {
			c.Header().Set("X-Shop", "7")
			c.SetValue("of " + c.ID())
			peer, local := r.RemoteAddr, r.Context().Value(http.LocalAddrContextKey).(net.Addr)
			return c.Session().Replace(map[string]any{"peer": peer, "local": local.String()})
		}}
		conn := gatewaytest.ServeLogic(t, logic).Dial("/test", header...)
		return conn, logic.Client(t, 0)
	}
	for name, check := range map[string]func(t *testing.T){
		"headers": func(t *testing.T) {
			if conn, _ := serve(t); conn.Response.Header.Get("X-Shop") != "7" {
				t.Errorf("the answer has %v", conn.Response.Header)
			}
		},
		"context": func(t *testing.T) {
			if _, c := serve(t); c.Value() != "of "+c.ID() {
				t.Errorf("the value is %v", c.Value())
			}
		},
		"websocketType": func(t *testing.T) {
			conn, c := serve(t)
			if err := errors.Join(c.Send(gateway.Binary([]byte{0xff})), c.Send(gateway.Text("text"))); err != nil {
				t.Fatal(err)
			}
			for _, want := range []int{websocket.BinaryMessage, websocket.TextMessage} {
				if got, _, err := conn.Conn.ReadMessage(); got != want || err != nil {
					t.Errorf("type %d (%v), want %d", got, err, want)
				}
			}
		},
		"send": func(t *testing.T) {
			conn, c := serve(t)
			if err := errors.Join(c.Send(gateway.Text("a")), c.SendJSON(map[string]int{"b": 1})); err != nil {
				t.Fatal(err)
			}
			conn.Want("a", `{"b":1}`)
		},
		"close": func(t *testing.T) {
			conn, c := serve(t)
			if err := errors.Join(c.Send(gateway.Text("last")), c.Close(gateway.CloseNormal, "bye")); err != nil {
				t.Fatal(err)
			}
			conn.Want("last")
			if reason := conn.WantClose(gateway.CloseNormal); reason != "bye" {
				t.Errorf("closed with %q", reason)
			}
		},
		"getRemoteIp": func(t *testing.T) {
			if _, c := serve(t, "From-IP: 2001:db8::1"); c.RealIP() != "2001:db8::1" {
				t.Errorf("the address is %q", c.RealIP())
			}
		},
		"getRemotePort": func(t *testing.T) {
			if _, c := serve(t); fmt.Sprint(c.Session().All()) != "map[local:192.0.2.80:80 peer:192.0.2.1:1]" {
				t.Errorf("the addresses are %v", c.Session().All())
			}
		},
		"bytesRead": func(t *testing.T) {
			conn, c := serve(t)
			conn.Send("12345")
			if err := c.Send(gateway.Text("123")); err != nil {
				t.Fatal(err)
			}
			conn.Want("123")
			synctest.Wait()
			// A client's frame has four bytes of mask.
			if i := c.Info(false); i.BytesIn != 5+2+4 || i.BytesOut != 3+2 || i.MessagesIn != 1 || i.MessagesOut != 1 {
				t.Errorf("counted %+v", i.Traffic)
			}
		},
		"getSendBufferQueueSize": func(t *testing.T) {
			_, c := serve(t)
			const size = 2 * gatewaytest.Buffer
			for range 3 {
				if err := c.Send(gateway.Binary(make([]byte, size))); err != nil {
					t.Fatal(err)
				}
			}
			synctest.Wait()
			if i := c.Info(false); i.Queued < size { // what is being written does not wait
				t.Errorf("%d bytes wait", i.Queued)
			}
		},
	} {
		t.Run(name, func(t *testing.T) { synctest.Test(t, check) })
	}
}

// Timers are what periodic pushes are made of: once, again and again, until stopped; and
// one process has each of them once.
func TestWorkermanTimers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := gatewaytest.ServeLogic(t, gateway.NopLogic{})
		conn := s.Dial("/test")
		say := func(text string) {
			if _, err := s.Gateway.Send(gateway.All(), gateway.Text(text)); err != nil {
				t.Error(err)
			}
		}
		stop := s.Gateway.Every(2*time.Second, func(context.Context) { say("tick") })
		s.Gateway.Go("later", func(ctx context.Context) {
			select {
			case <-time.After(3 * time.Second):
				say("once")
			case <-ctx.Done():
			}
		})
		conn.Want("tick", "once", "tick")
		stop()
		time.Sleep(10 * time.Second) // five more, if it had not stopped
		say("end")
		conn.Want("end")
	})
}
