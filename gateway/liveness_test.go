package gateway_test

import (
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gorilla/websocket"

	"github.com/caddy-websocket/caddy-websocket/gateway"
	"github.com/caddy-websocket/caddy-websocket/gateway/gatewaytest"
)

// within fails unless about d has passed since start: time-outs are checked once
// a second, and a goroutine that is woken needs no fake time.
func within(t *testing.T, start time.Time, d time.Duration) {
	t.Helper()
	if took := time.Since(start); took < d || took > d+1100*time.Millisecond {
		t.Errorf("took %s, want %s to a second more", took, d)
	}
}

func serve(t *testing.T, o gateway.EndpointOptions) *gatewaytest.Server {
	return gatewaytest.Serve(t, gatewaytest.Endpoint(t, "test", o))
}

// readAll keeps reading, so that gorilla answers pings, and returns how the
// connection ended.
func readAll(c *gatewaytest.Client) error {
	for {
		if _, _, err := c.Conn.ReadMessage(); err != nil {
			return err
		}
	}
}

func TestSilentClientIsPingedAndLivesIfItAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		logic := &gatewaytest.Recorder{}
		c := serve(t, gateway.EndpointOptions{Logic: logic}).Dial("/test")
		pings := 0
		c.Conn.SetPingHandler(func(payload string) error {
			pings++
			return c.Conn.WriteControl(websocket.PongMessage, []byte(payload), time.Now().Add(time.Second))
		})
		done := make(chan error)
		go func() { done <- readAll(c) }()
		time.Sleep(10*time.Minute + time.Second/2) // between two sweeps
		logic.Want(t, "connect")
		c.Close(1000, "")
		if err := <-done; !websocket.IsCloseError(err, 1000) {
			t.Error(err)
		}
		if pings < 22 || pings > 24 { // one in 25 to 26 s
			t.Errorf("%d pings in ten silent minutes, want about 23", pings)
		}
	})
}

func TestClientThatAnswersNoPingIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		logic := &gatewaytest.Recorder{}
		c := serve(t, gateway.EndpointOptions{Logic: logic, PingInterval: time.Minute, PingTimeout: 20 * time.Second}).Dial("/test")
		c.Conn.SetPingHandler(func(string) error { return nil })
		_ = readAll(c)
		within(t, start, 80*time.Second)
		logic.Want(t, "connect", "close 1006 no answer to a ping for 20s")
	})
}

func TestPingsCanBeTurnedOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		logic := &gatewaytest.Recorder{Message: echo}
		c := serve(t, gateway.EndpointOptions{Logic: logic, PingInterval: -1}).Dial("/test")
		time.Sleep(24 * time.Hour)
		c.Send("still here")
		c.Want("still here")
	})
}

// A callback that takes long keeps the gateway from reading; that says nothing
// about the client.
func TestSlowCallbackIsNotADeadClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &gatewaytest.Log{}
		logic := &gatewaytest.Recorder{Message: func(c *gateway.Client, m gateway.Message) error {
			time.Sleep(time.Hour)
			return c.Send(m)
		}}
		c := serve(t, gateway.EndpointOptions{Logic: logic, Logger: log.Logger(), IdleTimeout: time.Minute}).Dial("/test")
		c.Send("slow")
		time.Sleep(59 * time.Minute)
		if lines := log.Find("callback runs for long"); len(lines) != 1 || lines[0].Attrs["callback"] != "OnMessage" {
			t.Errorf("log lines %v, want one that names the callback", lines)
		}
		_ = c.Conn.SetReadDeadline(time.Now().Add(2 * time.Minute))
		if _, data, err := c.Conn.ReadMessage(); string(data) != "slow" {
			t.Errorf("received %q, %v", data, err)
		}
	})
}

// Bytes that trickle in break the silence, also in the middle of a message.
func TestLongUploadIsNotADeadClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		logic := &gatewaytest.Recorder{}
		c := serve(t, gateway.EndpointOptions{Logic: logic, PingInterval: 5 * time.Second, PingTimeout: 5 * time.Second, IdleTimeout: 30 * time.Second}).Dial("/test")
		c.Write([]byte{0x81, 0x80 | 100, 0, 0, 0, 0})
		for range 100 {
			time.Sleep(4 * time.Second)
			c.Write([]byte("x"))
		}
		logic.Want(t, "connect", "message "+strings.Repeat("x", 100))
	})
}

func TestHeartbeatIsSentIntoSilenceAndCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		logic := &gatewaytest.Recorder{}
		c := serve(t, gateway.EndpointOptions{
			Logic: logic, PingInterval: -1,
			Heartbeat: gateway.Heartbeat{Interval: 30 * time.Second, Text: `{"type":"ping"}`, MaxUnanswered: 2},
		}).Dial("/test")
		read := func() string {
			_ = c.Conn.SetReadDeadline(time.Now().Add(time.Hour))
			_, data, err := c.Conn.ReadMessage()
			if err != nil {
				return err.Error()
			}
			return string(data)
		}
		if got := read(); got != `{"type":"ping"}` {
			t.Errorf("received %q, want the heartbeat", got)
		}
		within(t, start, 30*time.Second)
		c.Send("pong") // any message is an answer
		answered := time.Now()
		for range 2 {
			if got := read(); got != `{"type":"ping"}` {
				t.Errorf("received %q, want the heartbeat", got)
			}
		}
		_ = read()
		if took := time.Since(answered); took < 90*time.Second || took > 94*time.Second {
			t.Errorf("gone %s after the last answer, want about 90 s", took)
		}
		logic.Want(t, "connect", "message pong", "close 1006 no answer to 2 heartbeats")
	})
}

// A browser answers pings behind its page's back: the page must be asked, too.
func TestHeartbeatIsSentToAClientThatAnswersPings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		logic := &gatewaytest.Recorder{}
		c := serve(t, gateway.EndpointOptions{
			Logic: logic, Heartbeat: gateway.Heartbeat{Interval: 55 * time.Second, Text: "are you there", MaxUnanswered: 2},
		}).Dial("/test")
		start := time.Now()
		beats := 0
		for {
			_, data, err := c.Conn.ReadMessage() // which answers pings
			if err != nil {
				break
			}
			if string(data) == "are you there" {
				beats++
			}
		}
		within(t, start, 3*55*time.Second)
		if beats != 2 {
			t.Errorf("%d heartbeats were sent, want 2", beats)
		}
		logic.Want(t, "connect", "close 1006 no answer to 2 heartbeats")
	})
}

func TestIdleClientIsClosedWith1001(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		logic := &gatewaytest.Recorder{}
		c := serve(t, gateway.EndpointOptions{Logic: logic, IdleTimeout: 2 * time.Minute}).Dial("/test")
		done := make(chan error)
		go func() { done <- readAll(c) }()
		time.Sleep(time.Minute)
		c.Send("a message, unlike a pong, starts the time again")
		if err := <-done; !websocket.IsCloseError(err, gateway.CloseGoingAway) {
			t.Error(err)
		}
		within(t, start, 3*time.Minute)
		logic.Want(t, "connect", "message a message, unlike a pong, starts the time again", "close 1001 idle timeout")
	})
}

// A client that reads nothing costs its queue and one write, and is gone after
// WriteTimeout.
func TestClientThatReadsNothingIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		logic := &gatewaytest.Recorder{}
		s := serve(t, gateway.EndpointOptions{Logic: logic})
		s.Dial("/test")
		c := logic.Client(t, 0)
		for range 10 {
			if err := c.Send(gateway.Binary(make([]byte, 64<<10))); err != nil {
				t.Fatal(err)
			}
		}
		<-c.Context().Done()
		within(t, start, 10*time.Second)
		synctest.Wait()
		logic.Want(t, "connect", "close 1006 took in nothing for 10s")
	})
}

// 17 KiB a second are progress: the time-out is for a standstill.
func TestSlowPhoneThatDrainsLives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		logic := &gatewaytest.Recorder{}
		c := serve(t, gateway.EndpointOptions{Logic: logic, SendBuffer: 2 << 20}).Dial("/test")
		const size = 1 << 20
		if err := logic.Client(t, 0).Send(gateway.Binary(make([]byte, size))); err != nil {
			t.Fatal(err)
		}
		got := 0
		for buf := make([]byte, size/60); got < size; time.Sleep(time.Second) {
			n, err := c.Net.Read(buf)
			if err != nil {
				t.Fatalf("after %d bytes: %v", got, err)
			}
			got += n
		}
		logic.Want(t, "connect")
	})
}

func TestSlowClientIsClosedWith1013WhenItsQueueIsFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		logic := &gatewaytest.Recorder{}
		s := serve(t, gateway.EndpointOptions{Logic: logic, SendBuffer: 128 << 10})
		slow := s.Dial("/test")
		fast := s.Dial("/test")
		received := make(chan int)
		go func() {
			n := 0
			for ; n < 20; n++ {
				if _, _, err := fast.Conn.ReadMessage(); err != nil {
					break
				}
			}
			received <- n
		}()
		for range 20 {
			if _, err := s.Gateway.Send(gateway.All(), gateway.Binary(make([]byte, 32<<10))); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Millisecond) // fake: the fast one keeps up
		}
		if n := <-received; n != 20 {
			t.Errorf("the neighbour received %d messages, want 20", n)
		}
		err := readAll(slow)
		if !websocket.IsCloseError(err, gateway.CloseTryAgainLater) {
			t.Errorf("the slow client ends with %v, want 1013", err)
		}
	})
}

// A peer that was closed and does not answer must not stay.
func TestPeerThatNeverAnswersTheCloseIsCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		logic := &gatewaytest.Recorder{}
		c := serve(t, gateway.EndpointOptions{Logic: logic}).Dial("/test")
		if err := logic.Client(t, 0).Close(4000, "enough"); err != nil {
			t.Fatal(err)
		}
		n, err := io.Copy(io.Discard, c.Net)
		if n == 0 || err != nil {
			t.Errorf("read %d bytes, %v, want the close frame", n, err)
		}
		within(t, start, 10*time.Second)
		synctest.Wait()
		logic.Want(t, "connect", "close 4000 enough")
	})
}

func TestTooManyMessagesCloseWith1008(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		logic := &gatewaytest.Recorder{Message: echo}
		s := serve(t, gateway.EndpointOptions{Logic: logic, MessageRate: gateway.Rate{PerSecond: 2, Burst: 3}})
		c := s.Dial("/test")
		for range 5 {
			c.Send("burst")
			c.Send("burst")
			c.Want("burst", "burst")
			time.Sleep(time.Second)
		}
		for range 5 {
			c.Send("too many")
		}
		c.Want("too many", "too many", "too many")
		c.WantClose(gateway.ClosePolicyViolation)
	})
}

// What may come in can be sent back, whatever the limit.
func TestMessageOfTheLargestSizeCanBeEchoed(t *testing.T) {
	for _, limit := range []int64{0, 100, 3 << 20} {
		synctest.Test(t, func(t *testing.T) {
			c := serve(t, gateway.EndpointOptions{Logic: &gatewaytest.Recorder{Message: echo}, MaxMessageSize: limit}).Dial("/test")
			size := limit
			if size == 0 {
				size = gateway.DefaultMaxMessageSize
			}
			message := strings.Repeat("x", int(size))
			for range 3 {
				c.Send(message)
				if got := c.Receive(); got != message {
					t.Errorf("%d bytes came back as %d", size, len(got))
				}
			}
		})
	}
}
