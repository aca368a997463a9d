package gateway_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-websocket/caddy-websocket/gateway"
	"github.com/caddy-websocket/caddy-websocket/gateway/gatewaytest"
)

// maxHeader is how many bytes a message costs in the queue beside its own.
const maxHeader = 10

// policies are all that there are, with what ends a client that reads nothing.
var policies = []struct {
	policy gateway.QueuePolicy
	end    gateway.CloseReason
}{
	{gateway.CloseWhenFull, gateway.CloseReason{Code: gateway.CloseTryAgainLater, Reason: "send buffer is full"}},
	{gateway.DropNewest, gateway.CloseReason{Code: gateway.CloseAbnormal, Reason: "took in nothing for 5s", ByPeer: true}},
	{gateway.DropOldest, gateway.CloseReason{Code: gateway.CloseAbnormal, Reason: "took in nothing for 5s", ByPeer: true}},
}

// Whoever runs the server must learn who was cut off, why, and what he missed,
// from one line; and the client must cost no more than was configured while it
// lasts. A close frame cannot get out through a socket that is stuck: the
// time-out ends that, too.
func TestStuckClientIsGoneAfterWriteTimeoutAndTheLogTellsItsStory(t *testing.T) {
	const timeout, buffer = 5 * time.Second, 200 << 10
	sizes := []int{0, 16, 1000, 16 << 10, 100 << 10, buffer}
	for _, tt := range policies {
		t.Run(tt.policy.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var ended time.Time
				log := &gatewaytest.Log{}
				logic := &gatewaytest.Recorder{
					Connect: func(c *gateway.Client, _ *http.Request) error { return c.Bind("tom") },
					Closed:  func(*gateway.Client, gateway.CloseReason) { ended = time.Now() },
				}
				s := serve(t, gateway.EndpointOptions{
					Logic: logic, Logger: log.Logger(), SendBuffer: buffer, WhenFull: tt.policy, WriteTimeout: timeout,
				})
				s.Dial("/test", "From-IP: 2001:db8::7")
				c := logic.Client(t, 0)
				for range gatewaytest.Buffer >> 10 { // as much as the socket takes
					if err := c.Send(gateway.Binary(make([]byte, 1<<10-4))); err != nil {
						t.Fatal(err)
					}
				}
				synctest.Wait()
				start, accepted := time.Now(), int64(gatewaytest.Buffer>>10)
				for c.Context().Err() == nil {
					size := sizes[rand.IntN(len(sizes))]
					if c.Send(gateway.Binary(make([]byte, size))) == nil {
						accepted++
					}
					if queued := c.Info(false).Queued; queued > buffer+maxHeader {
						t.Fatalf("%d bytes wait, allowed are %d", queued, buffer)
					}
					time.Sleep(10 * time.Millisecond)
				}
				synctest.Wait()
				if took := ended.Sub(start); took < timeout || took > timeout+time.Second {
					t.Errorf("gone after %s, want %s to a second more", took, timeout)
				}
				logic.Want(t, "connect", "close "+tt.end.String())
				gone := log.Wait(t, "client gone")
				wantAttrs(t, gone, map[string]any{
					"client": c.ID(), "client_ip": "2001:db8::7", "endpoint": "test", "user": "tom",
					"code": int64(tt.end.Code), "reason": tt.end.Reason, "by_peer": tt.end.ByPeer,
					"bytes_out": int64(gatewaytest.Buffer),
				})
				if gone.Level != slog.LevelWarn {
					t.Errorf("logged at %s, want WARN: somebody has lost messages", gone.Level)
				}
				count := func(name string) int64 { n, _ := gone.Attrs[name].(int64); return n }
				out, unsent, dropped := count("messages_out"), count("messages_unsent"), count("messages_dropped")
				lost := unsent
				if tt.policy == gateway.DropOldest {
					lost += dropped
				}
				if out+lost != accepted || unsent == 0 || dropped == 0 {
					t.Errorf("%d messages were accepted, the log says %d out, %d unsent, %d dropped", accepted, out, unsent, dropped)
				}
				wantWarned := 1
				if tt.policy == gateway.CloseWhenFull {
					wantWarned = 0
				}
				if n := len(log.Find("messages to it are dropped")); n != wantWarned {
					t.Errorf("%d warnings that messages are dropped, want %d", n, wantWarned)
				}
			})
		})
	}
}

// A warning that messages are dropped sends somebody looking for a send buffer
// that is too small.
func TestNothingIsSaidToBeDroppedIfTheBufferWasNeverFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &gatewaytest.Log{}
		logic := &gatewaytest.Recorder{}
		serve(t, gateway.EndpointOptions{Logic: logic, Logger: log.Logger(), WhenFull: gateway.DropOldest}).Dial("/test")
		c := logic.Client(t, 0)
		for c.Context().Err() == nil {
			_ = c.Send(gateway.Binary(make([]byte, 32<<10)))
			time.Sleep(time.Second)
		}
		_ = c.Send(gateway.Text("late"))
		wantAttrs(t, log.Wait(t, "client gone"), map[string]any{"messages_dropped": int64(0), "reason": "took in nothing for 10s"})
		if found := log.Find("dropped"); len(found) > 0 {
			t.Errorf("the log says %q", found[0].Message)
		}
	})
}

// A client on a bad line that is sent twice what it can take in sees the messages
// that it gets in order, and is never cut off, for as long as that lasts.
func TestClientThatReadsSlowlyButSteadilyIsNeverCut(t *testing.T) {
	for _, policy := range []gateway.QueuePolicy{gateway.DropNewest, gateway.DropOldest} {
		t.Run(policy.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				logic := &gatewaytest.Recorder{}
				s := serve(t, gateway.EndpointOptions{Logic: logic, SendBuffer: 256 << 10, WhenFull: policy, PingInterval: -1})
				p := dialRaw(t, s)
				c := logic.Client(t, 0)
				const messages, size = 1000, 8 << 10
				ctx, cancel := context.WithCancel(t.Context())
				var sending sync.WaitGroup
				sending.Go(func() {
					for i := range messages {
						_ = c.Send(numbered(i, size))
						time.Sleep(500 * time.Millisecond)
					}
					cancel()
				})
				last, got := -1, 0
				for ctx.Err() == nil {
					time.Sleep(time.Second)
					n := p.number(size)
					if n <= last {
						t.Fatalf("received %d after %d", n, last)
					}
					last = n
					got++
				}
				sending.Wait()
				info := c.Info(false)
				if info.Dropped == 0 || got < messages/2-1 {
					t.Errorf("received %d and %d were dropped of %d", got, info.Dropped, messages)
				}
				logic.Want(t, "connect")
			})
		})
	}
}

// numbered returns a message that begins with n and makes a frame of size bytes.
func numbered(n, size int) gateway.Message {
	text := make([]byte, size-4)
	copy(text, fmt.Sprintf("%08d", n))
	return gateway.Binary(text)
}

// number reads a frame that numbered has made.
func (p *rawPeer) number(size int) int {
	p.t.Helper()
	frame := p.bytes(size)
	n, err := strconv.Atoi(frame[4:12])
	if err != nil {
		p.t.Fatalf("received %.20q, want a number: %v", frame, err)
	}
	return n
}

// Ten of a thousand members read nothing. Nobody waits for them: not the one who
// sends, whose Send returns before any time has passed, and not the others.
func TestStuckMembersDelayNobodyInABroadcast(t *testing.T) {
	const members, stuck, messages, size = 1000, 10, 30, 4 << 10
	const moment = 50 * time.Millisecond // each of the ten holds up a writer once, for some milliseconds
	for _, tt := range policies {
		members := members
		if tt.policy != gateway.CloseWhenFull { // the default
			members /= 10
		}
		t.Run(tt.policy.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				logic := &gatewaytest.Recorder{Connect: func(c *gateway.Client, _ *http.Request) error { return c.Join("all") }}
				s := serve(t, gateway.EndpointOptions{
					Logic: logic, Logger: (&gatewaytest.Log{}).Logger(), SendBuffer: 16 << 10, WhenFull: tt.policy,
				})
				for range stuck {
					dialRaw(t, s)
				}
				var reading sync.WaitGroup
				for range members - stuck {
					p := dialRaw(t, s)
					reading.Go(func() {
						for want := range messages {
							if got := p.number(size); got != want {
								t.Errorf("received %d, want %d", got, want)
								return
							}
						}
					})
				}
				reached := 0
				for i := range messages {
					start := time.Now()
					n, err := s.Gateway.Send(gateway.Groups("all"), numbered(i, size))
					if took := time.Since(start); took != 0 || err != nil {
						t.Fatalf("Send took %s, %v", took, err)
					}
					reached += n
					time.Sleep(moment) // the others keep up
				}
				reading.Wait()
				if reached < (members-stuck)*messages {
					t.Errorf("%d queues took a message, want at least %d", reached, (members-stuck)*messages)
				}
				left := members
				if tt.policy == gateway.CloseWhenFull {
					left -= stuck
				}
				wantCount(t, s.Gateway, gateway.Groups("all"), left)
			})
		})
	}
}

// What the gateway asks of a client that reads nothing must not pile up, and the
// client cannot answer what it has not been given: neither a ping nor a
// heartbeat that waits in the queue counts against it.
func TestPingsWaitForAStuckClientAndAreNotHeldAgainstIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		logic := &gatewaytest.Recorder{Message: echo}
		s := serve(t, gateway.EndpointOptions{
			Logic: logic, PingInterval: time.Second, PingTimeout: time.Second, WriteTimeout: 30 * time.Second,
		})
		p := dialRaw(t, s)
		const messages = 10
		for range messages {
			if err := logic.Client(t, 0).Send(gateway.Binary(make([]byte, 32<<10))); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(25 * time.Second)
		pings, binaries := 0, 0
		for binaries < messages {
			switch got := p.next(); {
			case got == "ping ":
				pings++
				p.send(frame(fin|pong, ""))
			case strings.HasPrefix(got, "binary"):
				binaries++
			default:
				t.Fatalf("received %q", got)
			}
		}
		if pings != 1 {
			t.Errorf("%d pings had piled up, want 1", pings)
		}
		p.send(frame(fin|text, "alive"))
		p.want("text alive")
	})
}

// A page on a slow line answers each heartbeat as soon as it gets it. What it has
// not been given yet, it cannot have left unanswered.
func TestHeartbeatsThatWaitBehindALongMessageAreNotHeldAgainstASlowClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		logic := &gatewaytest.Recorder{}
		s := serve(t, gateway.EndpointOptions{
			Logic: logic, PingInterval: -1, SendBuffer: 2 << 20,
			Heartbeat: gateway.Heartbeat{Interval: 10 * time.Second, Text: "are you there", MaxUnanswered: 2},
		})
		c := s.Dial("/test")
		const size, perSecond = 1 << 20, 16 << 10
		if err := logic.Client(t, 0).Send(gateway.Binary(make([]byte, size))); err != nil {
			t.Fatal(err)
		}
		_, r, err := c.Conn.NextReader()
		if err != nil {
			t.Fatal(err)
		}
		got := 0
		for buf := make([]byte, perSecond/8); got < size; time.Sleep(time.Second / 8) {
			n, err := r.Read(buf)
			if err != nil {
				t.Fatalf("after %d bytes and %d s: %v, %q", got, got/perSecond, err, logic.Events())
			}
			got += n
		}
		for range 3 {
			_ = c.Conn.SetReadDeadline(time.Now().Add(time.Minute))
			if _, data, err := c.Conn.ReadMessage(); string(data) != "are you there" {
				t.Fatalf("received %q, %v, want the heartbeat", data, err)
			}
			c.Send("I am")
		}
		synctest.Wait()
		logic.Want(t, "connect", "message I am", "message I am", "message I am")
	})
}

// Which of its time-outs ends a client that reads nothing, and what is told.
func TestTimeOutsOfAClientThatReadsNothing(t *testing.T) {
	const writeTimeout = 20 * time.Second
	for name, tt := range map[string]struct {
		o     gateway.EndpointOptions
		sent  int // bytes; more than the socket takes make it stuck
		after time.Duration
		want  string
	}{
		"it is not accused of silence": {
			gateway.EndpointOptions{PingInterval: 2 * time.Second, PingTimeout: 2 * time.Second},
			200 << 10, writeTimeout, "close 1006 took in nothing for 20s",
		},
		"what is small fits into its socket, and the ping, too": {
			gateway.EndpointOptions{PingInterval: 2 * time.Second, PingTimeout: 3 * time.Second},
			1 << 10, 5 * time.Second, "close 1006 no answer to a ping for 3s",
		},
		"the close for idleness does not get out": {
			gateway.EndpointOptions{PingInterval: -1, IdleTimeout: 5 * time.Second},
			200 << 10, writeTimeout, "close 1001 idle timeout",
		},
		"the close for idleness gets out and is not answered": {
			gateway.EndpointOptions{PingInterval: -1, IdleTimeout: 5 * time.Second},
			1 << 10, 5*time.Second + writeTimeout, "close 1001 idle timeout",
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var ended time.Time
				logic := &gatewaytest.Recorder{Closed: func(*gateway.Client, gateway.CloseReason) { ended = time.Now() }}
				tt.o.Logic, tt.o.WriteTimeout = logic, writeTimeout
				s := serve(t, tt.o)
				s.Dial("/test")
				start := time.Now()
				if err := logic.Client(t, 0).Send(gateway.Binary(make([]byte, tt.sent))); err != nil {
					t.Fatal(err)
				}
				time.Sleep(5 * time.Minute)
				logic.Want(t, "connect", tt.want)
				if took := ended.Sub(start); took < tt.after || took > tt.after+2100*time.Millisecond {
					t.Errorf("gone after %s, want %s", took, tt.after)
				}
			})
		})
	}
}

// An operator who lowers write_timeout wants rid of those who are stuck now.
func TestWriteTimeoutOfANewConfigurationHoldsForAWriteThatIsStuck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gs := newGenerations(t)
		logic := &gatewaytest.Recorder{}
		with := func(timeout time.Duration) *gateway.Endpoint {
			return gatewaytest.Endpoint(t, "test", gateway.EndpointOptions{Logic: logic, WriteTimeout: timeout})
		}
		gen := gs.replace(nil, with(time.Hour))
		gs.Dial("/test")
		c := logic.Client(t, 0)
		if err := c.Send(gateway.Binary(make([]byte, 200<<10))); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		logic.Want(t, "connect")
		gs.replace(gen, with(2*time.Second))
		time.Sleep(1100 * time.Millisecond)
		logic.Want(t, "connect", "close 1006 took in nothing for 2s")
	})
}

// A tunnel is stuck in one direction: the other side, or whoever closes it, must
// not wait for ever.
func TestStuckTunnelIsCut(t *testing.T) {
	up := frame(fin|binry, strings.Repeat("x", 60000))
	down := server(fin|binry, strings.Repeat("x", 60000))
	flood := func(p *rawPeer, frame []byte) {
		go p.send(bytes.Repeat(frame, 3))
	}
	for name, tt := range map[string]struct {
		do    func(j *joined)
		after time.Duration
		code  int64
	}{
		"the backend takes in nothing": {func(j *joined) { flood(j.client, up) }, time.Minute, 1006},
		"neither takes in anything": {func(j *joined) {
			flood(j.client, up)
			flood(j.backend, down)
		}, time.Minute, 1006},
		"the client takes in nothing and the backend dies": {func(j *joined) {
			flood(j.backend, down)
			synctest.Wait()
			_ = j.backend.Close()
		}, time.Minute, 1006},
	} {
		t.Run(name, func(t *testing.T) {
			overEach(t, func(t *testing.T, proto string) {
				j := joinTunnel(t, proto, gateway.EndpointOptions{})
				start := time.Now()
				tt.do(j)
				for len(j.log.Find("client gone")) == 0 && time.Since(start) < 10*time.Minute {
					time.Sleep(100 * time.Millisecond)
				}
				j.wantGone(t, map[string]any{"code": tt.code})
				if took := time.Since(start); took < tt.after || took > tt.after+2*time.Second {
					t.Errorf("gone after %s, want %s", took, tt.after)
				}
				wantCount(t, j.gateway, gateway.All(), 0)
			})
		})
	}
}

// Who closes a client must be rid of it soon, though a write in its tunnel is
// stuck and the close frame has to wait for that. (In real time: the frame waits
// at a mutex, which stops the clock of a synctest bubble.)
func TestStuckTunnelIsCutSoonAfterItWasClosed(t *testing.T) {
	for _, proto := range protocols {
		for _, toClient := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s to the client %t", strings.ReplaceAll(proto, "/", ""), toClient), func(t *testing.T) {
				t.Parallel()
				cutsStuckTunnel(t, proto, toClient)
			})
		}
	}
}

func cutsStuckTunnel(t *testing.T, proto string, toClient bool) {
	t.Helper()
	j := joinTunnel(t, proto, gateway.EndpointOptions{WriteTimeout: 100 * time.Millisecond})
	from, data := j.client, frame(fin|binry, strings.Repeat("x", 60000))
	passed := func(info gateway.ClientInfo) int64 { return info.BytesIn }
	if toClient {
		from, data = j.backend, server(fin|binry, strings.Repeat("x", 60000))
		passed = func(info gateway.ClientInfo) int64 { return info.BytesOut }
	}
	written := make(chan struct{})
	go func() {
		defer close(written)
		from.send(bytes.Repeat(data, 10)) // more than the buffers on the way hold
	}()
	list, err := j.gateway.Clients(t.Context(), gateway.Query{})
	if err != nil || len(list.Clients) != 1 {
		t.Fatalf("listed %+v, %v", list, err)
	}
	c := j.gateway.Client(list.Clients[0].ID)
	for deadline := time.Now().Add(gatewaytest.Wait); passed(c.Info(false)) <= gatewaytest.Buffer; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the tunnel does not get stuck")
		}
	}
	if n, err := j.gateway.Close(gateway.All(), 4000, ""); n != 1 || err != nil {
		t.Errorf("closed %d, %v", n, err)
	}
	j.wantGone(t, map[string]any{"code": int64(4000)})
	_ = j.client.Close()
	_ = j.backend.Close()
	<-written
}

// Two kilobytes a second, for five minutes, in each direction.
func TestTunnelThatMovesSlowlyButSteadilyIsNotCut(t *testing.T) {
	up := frame(fin|binry, strings.Repeat("x", 60000))
	down := server(fin|binry, strings.Repeat("x", 60000))
	for name, toClient := range map[string]bool{"to the client": true, "to the backend": false} {
		t.Run(name, func(t *testing.T) {
			overEach(t, func(t *testing.T, proto string) {
				j := joinTunnel(t, proto, gateway.EndpointOptions{})
				from, to, data := j.client, j.backend, up
				if toClient {
					from, to, data = j.backend, j.client, down
				}
				go func() {
					for range 11 {
						from.send(data)
					}
				}()
				for range 300 {
					to.bytes(2 << 10)
					time.Sleep(time.Second)
				}
				if found := j.log.Find("client gone"); len(found) > 0 {
					t.Errorf("cut: %v", found[0].Attrs)
				}
			})
		})
	}
}
