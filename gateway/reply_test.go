package gateway_test

import (
	"bytes"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-websocket/caddy-websocket/gateway"
	"github.com/caddy-websocket/caddy-websocket/gateway/gatewaytest"
)

// A callback that takes its time must not keep back what it, or anybody else, has
// sent to its client.
func TestReplyDoesNotWaitForASlowCallback(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		logic := &gatewaytest.Recorder{Message: func(c *gateway.Client, _ gateway.Message) error {
			if err := c.Send(gateway.Text("at once")); err != nil {
				return err
			}
			time.Sleep(10 * time.Second)
			return c.Send(gateway.Text("late"))
		}}
		s := gatewaytest.Serve(t, gatewaytest.Endpoint(t, "test", gateway.EndpointOptions{Logic: logic, Logger: gatewaytest.Logger(t)}))
		c := s.Dial("/test")
		start := time.Now()
		c.Send("x")
		c.Want("at once")
		if took := time.Since(start); took > 5*time.Millisecond {
			t.Errorf("the reply came after %s", took)
		}
		time.Sleep(5 * time.Second)
		start = time.Now()
		if _, err := s.Gateway.Send(gateway.All(), gateway.Text("from elsewhere")); err != nil {
			t.Fatal(err)
		}
		c.Want("from elsewhere")
		if took := time.Since(start); took > 5*time.Millisecond {
			t.Errorf("a message from elsewhere came after %s", took)
		}
		c.Want("late")
	})
}

// The goroutine that reads writes replies itself. If the client takes in nothing,
// somebody else must go on reading: its messages, its close frame.
func TestClientThatTakesInNothingIsStillHeard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var handled atomic.Int64
		big := gateway.Binary(make([]byte, 32<<10))
		logic := &gatewaytest.Recorder{Message: func(c *gateway.Client, _ gateway.Message) error {
			handled.Add(1)
			return c.Send(big)
		}}
		s := gatewaytest.Serve(t, gatewaytest.Endpoint(t, "test", gateway.EndpointOptions{Logic: logic, Logger: gatewaytest.Logger(t)}))
		p := dialRaw(t, s)
		const messages = 20 // 640 KiB of replies: more than the pipe takes, less than the send buffer
		for range messages {
			p.send(frame(0x81, "x"))
			time.Sleep(10 * time.Millisecond)
		}
		if n := handled.Load(); n != messages {
			t.Errorf("%d messages were handled while replies were stuck, want %d", n, messages)
		}
		for range messages { // order holds over the change of goroutines
			if got := p.bytes(4 + 32<<10); got[0] != 0x82 {
				t.Fatalf("received a frame that begins with %x", got[0])
			}
		}
		p.send(frame(0x81, "x"))
		p.bytes(4 + 32<<10)
	})
}

// Replies to messages that came together leave together: one record, one system
// call.
func TestRepliesToMessagesInHandLeaveTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		echo := &gatewaytest.Recorder{Message: func(c *gateway.Client, m gateway.Message) error { return c.Send(m) }}
		s := gatewaytest.Serve(t, gatewaytest.Endpoint(t, "test", gateway.EndpointOptions{Logic: echo, Logger: gatewaytest.Logger(t)}))
		p := dialRaw(t, s)
		p.send(bytes.Repeat(frame(0x81, "hello"), 16))
		synctest.Wait()
		b := make([]byte, 4096)
		n, err := p.r.Read(b)
		if err != nil || n != 16*(2+len("hello")) {
			t.Errorf("the first read gave %d bytes (%v), want all of 16 replies", n, err)
		}
	})
}
