package gateway_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-websocket/caddy-websocket/gateway"
	"github.com/caddy-websocket/caddy-websocket/gateway/gatewaytest"
)

func TestCloseReasonMayHave123Bytes(t *testing.T) {
	for _, reason := range []string{"", "bye", strings.Repeat("x", 123), strings.Repeat("\u4f60", 41)} {
		t.Run(fmt.Sprint(len(reason)), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				logic := &gatewaytest.Recorder{}
				s := gatewaytest.ServeLogic(t, logic)
				p := dialRaw(t, s)
				if err := logic.Client(t, 0).Close(4000, reason); err != nil {
					t.Fatal(err)
				}
				if got, want := p.next(), strings.TrimSpace("close 4000 "+reason); got != want {
					t.Errorf("received %q, want %q", got, want)
				}
				p.send(frame(fin|closes, closing(4000, "")))
				p.want("end")
				logic.Want(t, "connect", strings.TrimSpace("close 4000 "+reason))
			})
		})
	}
}

var closesThatMayNotBeSent = []struct {
	name   string
	code   int
	reason string
}{
	{"negative", -1, ""},
	{"0", 0, ""},
	{"999", 999, ""},
	{"1004", 1004, ""},
	{"1005", 1005, ""},
	{"1006", 1006, ""},
	{"1015", 1015, ""},
	{"1016", 1016, ""},
	{"2999", 2999, ""},
	{"5000", 5000, ""},
	{"65535", 65535, ""},
	{"1000 in the lower 16 bits", 1<<16 + 1000, ""},
	{"124 bytes", 4000, strings.Repeat("x", 124)},
	{"124 bytes in 62 letters", 4000, strings.Repeat("\u00e4", 62)},
	{"not UTF-8", 4000, "\xff"},
}

// A mistake in a code must not cost the client its connection.
func TestCloseThatMayNotBeSentIsAnErrorAndClosesNothing(t *testing.T) {
	for _, tt := range closesThatMayNotBeSent {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				logic := &gatewaytest.Recorder{Message: echo}
				s := gatewaytest.ServeLogic(t, logic)
				p := dialRaw(t, s)
				if err := logic.Client(t, 0).Close(tt.code, tt.reason); err == nil || errors.Is(err, gateway.ErrClosed) {
					t.Errorf("Client.Close: %v", err)
				}
				if n, err := s.Gateway.Close(gateway.All(), tt.code, tt.reason); err == nil || n != 0 {
					t.Errorf("Gateway.Close: %d, %v", n, err)
				}
				p.send(frame(fin|text, "alive"))
				p.want("text alive")
			})
		})
	}
}

func TestCloseErrorThatMayNotBeSentIs1011(t *testing.T) {
	for _, tt := range closesThatMayNotBeSent {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				log := &gatewaytest.Log{}
				logic := &gatewaytest.Recorder{Message: func(*gateway.Client, gateway.Message) error {
					return fmt.Errorf("wrapped: %w", &gateway.CloseError{Code: tt.code, Reason: tt.reason})
				}}
				s := serveWith(t, gateway.EndpointOptions{Logic: logic, Logger: log.Logger()})
				p := dialRaw(t, s, frame(fin|text, "x"))
				p.want("close 1011")
				_ = p.Close()
				logic.Want(t, "connect", "message x", "close 1011 logic failed")
				log.Wait(t, "logic failed")
			})
		})
	}
}

func TestEveryCodeThatMayBeSentIsSent(t *testing.T) {
	for _, code := range []int{1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999} {
		synctest.Test(t, func(t *testing.T) {
			logic := &gatewaytest.Recorder{Message: func(*gateway.Client, gateway.Message) error {
				return &gateway.CloseError{Code: code, Reason: "why"}
			}}
			p := dialRaw(t, gatewaytest.ServeLogic(t, logic), frame(fin|text, "x"))
			p.want(fmt.Sprintf("close %d why", code))
			_ = p.Close()
			logic.Want(t, "connect", "message x", fmt.Sprintf("close %d why", code))
		})
	}
}

func TestSecondCloseIsErrClosedAndChangesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		logic := &gatewaytest.Recorder{Message: func(c *gateway.Client, _ gateway.Message) error {
			if err := c.Close(4001, "first"); err != nil {
				t.Error(err)
			}
			if err := c.Close(4002, "second"); !errors.Is(err, gateway.ErrClosed) {
				t.Errorf("the second Close: %v, want ErrClosed", err)
			}
			return &gateway.CloseError{Code: 4003, Reason: "third"}
		}}
		logic.Closed = func(c *gateway.Client, _ gateway.CloseReason) {
			if err := c.Close(4004, "fourth"); !errors.Is(err, gateway.ErrClosed) {
				t.Errorf("Close in OnClose: %v, want ErrClosed", err)
			}
			if err := c.Send(gateway.Text("late")); !errors.Is(err, gateway.ErrClosed) {
				t.Errorf("Send in OnClose: %v, want ErrClosed", err)
			}
		}
		p := dialRaw(t, gatewaytest.ServeLogic(t, logic), frame(fin|text, "x"))
		p.want("close 4001 first", "end")
		_ = p.Close()
		logic.Want(t, "connect", "message x", "close 4001 first")
	})
}

// Many goroutines may find at the same moment that a client must go.
func TestOfManyClosesOneWins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		logic := &gatewaytest.Recorder{}
		s := gatewaytest.ServeLogic(t, logic)
		p := dialRaw(t, s)
		c := logic.Client(t, 0)
		var won atomic.Int32
		for i := range 50 {
			go func() {
				if c.Close(4000+i, "") == nil {
					won.Add(1)
				}
			}()
			go func() { _ = c.Send(gateway.Text("x")) }()
		}
		synctest.Wait()
		for got := p.next(); got != "end"; got = p.next() {
			if got != "text x" && !strings.HasPrefix(got, "close 40") {
				t.Errorf("received %q", got)
			}
		}
		if won.Load() != 1 {
			t.Errorf("%d of the closes were the first", won.Load())
		}
		_ = p.Close()
		synctest.Wait()
		if n := len(logic.Events()); n != 2 {
			t.Errorf("events %q, want connect and one close", logic.Events())
		}
	})
}

// Close comes after what is queued, however long a slow peer takes for that.
func TestCloseWithAFullQueueIsSeenByAPeerThatReadsSlowly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		logic := &gatewaytest.Recorder{}
		s := gatewaytest.ServeLogic(t, logic)
		p := dialRaw(t, s)
		c := logic.Client(t, 0)
		message := strings.Repeat("x", 100_000)
		sent := 0
		for sent < 10 && c.Send(gateway.Text(message)) == nil { // 1 MiB waits at most
			sent++
		}
		if err := c.Close(4000, "done"); err != nil {
			t.Fatal(err)
		}
		for range sent {
			time.Sleep(5 * time.Second) // write_timeout is 10 s without progress
			p.want("text " + short(message))
		}
		p.want("close 4000 done", "end")
		_ = p.Close()
		logic.Want(t, "connect", "close 4000 done")
	})
}

func TestCloseOfAPeerThatDoesNotReadEndsAfterWriteTimeout(t *testing.T) {
	for _, how := range []string{"Close", "full queue"} {
		t.Run(how, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var closed time.Time
				logic := &gatewaytest.Recorder{Closed: func(*gateway.Client, gateway.CloseReason) { closed = time.Now() }}
				s := serveWith(t, gateway.EndpointOptions{Logic: logic, WriteTimeout: 7 * time.Second})
				dialRaw(t, s)
				c := logic.Client(t, 0)
				start := time.Now()
				want := "close 4000 done"
				for range 8 {
					_ = c.Send(gateway.Binary(make([]byte, 120_000)))
				}
				if how == "Close" {
					if err := c.Close(4000, "done"); err != nil {
						t.Fatal(err)
					}
				} else {
					want = "close 1013 send buffer is full"
					for c.Send(gateway.Binary(make([]byte, 120_000))) == nil {
						synctest.Wait()
					}
				}
				time.Sleep(20 * time.Second)
				synctest.Wait()
				logic.Want(t, "connect", want)
				if d := closed.Sub(start); d < 7*time.Second || d > 9*time.Second {
					t.Errorf("closed after %s, want 7s", d)
				}
				wantCount(t, s.Gateway, gateway.All(), 0)
			})
		})
	}
}

// A peer that never answers the close frame is given write_timeout for it.
func TestPeerThatNeverAnswersACloseIsCutOff(t *testing.T) {
	for name, chatter := range map[string][]byte{
		"silent":       nil,
		"sends on":     frame(fin|text, "I go on"),
		"pings":        frame(fin|ping, "are you there"),
		"half a frame": {fin | text},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				logic := &gatewaytest.Recorder{}
				s := serveWith(t, gateway.EndpointOptions{Logic: logic, WriteTimeout: 7 * time.Second})
				p := dialRaw(t, s)
				start := time.Now()
				if err := logic.Client(t, 0).Close(4000, "done"); err != nil {
					t.Fatal(err)
				}
				p.want("close 4000 done")
				stop := make(chan struct{})
				stopped := make(chan struct{})
				go func() {
					defer close(stopped)
					for {
						select {
						case <-stop:
							return
						case <-time.After(500 * time.Millisecond):
							p.send(chatter)
						}
					}
				}()
				p.want("end")
				if d := time.Since(start); d < 7*time.Second || d > 9*time.Second {
					t.Errorf("the connection ended after %s, want 7s", d)
				}
				close(stop)
				<-stopped
				logic.Want(t, "connect", "close 4000 done")
				wantCount(t, s.Gateway, gateway.All(), 0)
			})
		})
	}
}

// The side that is first decides what both log; nobody waits for an answer that
// is already on its way.
func TestSimultaneousCloseIsQuick(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inside, goOn := make(chan struct{}), make(chan struct{})
		logic := &gatewaytest.Recorder{Message: func(*gateway.Client, gateway.Message) error {
			close(inside)
			<-goOn
			return nil
		}}
		s := gatewaytest.ServeLogic(t, logic)
		p := dialRaw(t, s, frame(fin|text, "x"))
		<-inside
		start := time.Now()
		p.send(frame(fin|closes, closing(4001, "mine"))) // not read yet: the callback runs
		if err := logic.Client(t, 0).Close(4002, "yours"); err != nil {
			t.Fatal(err)
		}
		close(goOn)
		p.want("close 4002 yours", "end")
		if d := time.Since(start); d != 0 {
			t.Errorf("it took %s", d)
		}
		logic.Want(t, "connect", "message x", "close 4002 yours")
	})
}

func TestPeerThatClosesItsConnectionWithoutACloseFrameIs1006(t *testing.T) {
	for name, last := range map[string][]byte{
		"between messages":   nil,
		"inside a header":    {fin | text, 0x85, 1},
		"inside a payload":   frameOf(fin|text, 7, 10, true, "12345"),
		"between fragments":  frame(text, "a"),
		"inside a close":     frameOf(fin|closes, 7, 2, true, "\x0f"),
		"inside 16-bit size": {fin | binry, 0xFE, 1},
	} {
		for how, end := range map[string]func(*rawPeer){
			"closed":      func(p *rawPeer) { _ = p.Close() },
			"half-closed": func(p *rawPeer) { _ = p.CloseWrite() },
		} {
			t.Run(name+", "+how, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					var seen gateway.CloseReason
					logic := &gatewaytest.Recorder{Message: echo, Closed: func(_ *gateway.Client, r gateway.CloseReason) { seen = r }}
					s := gatewaytest.ServeLogic(t, logic)
					p := dialRaw(t, s, frame(fin|text, "x"))
					p.want("text x")
					p.send(last)
					end(p)
					if how == "half-closed" {
						p.want("end") // and no close frame: there is nobody who could answer it
					}
					synctest.Wait()
					if want := (gateway.CloseReason{Code: 1006, Reason: "connection lost", ByPeer: true}); seen != want {
						t.Errorf("OnClose saw %+v, want %+v", seen, want)
					}
				})
			})
		}
	}
}

// What a peer asked for before it half-closed is handled; what it is answered
// is not promised any more.
func TestMessagesBeforeAHalfCloseAreHandled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		logic := &gatewaytest.Recorder{}
		p := dialRaw(t, gatewaytest.ServeLogic(t, logic))
		p.send(join(frame(fin|text, "1"), frame(fin|text, "2")))
		_ = p.CloseWrite()
		p.want("end")
		logic.Want(t, "connect", "message 1", "message 2", "close 1006 connection lost")
	})
}

// runtime.Goexit in a callback is what t.FailNow does in somebody's test. It
// must not leave a client behind that nobody serves, counts for ever and holds
// up Shutdown.
func TestGoexitInACallbackEndsTheClientInOrder(t *testing.T) {
	goexit := func(*gateway.Client, gateway.Message) error {
		runtime.Goexit()
		return nil
	}
	for _, tt := range []struct {
		name  string
		logic *gatewaytest.Recorder
		want  []string
	}{
		{"OnConnect", &gatewaytest.Recorder{Connect: func(c *gateway.Client, r *http.Request) error {
			if r.URL.RawQuery == "" {
				return goexit(c, gateway.Message{})
			}
			return nil
		}}, []string{"connect"}},
		{"OnMessage", &gatewaytest.Recorder{Message: goexit}, []string{"connect", "message x", "close 1006 logic left its goroutine"}},
		{"OnClose", &gatewaytest.Recorder{Closed: func(c *gateway.Client, _ gateway.CloseReason) {
			_ = goexit(c, gateway.Message{})
		}}, []string{"connect", "message x", "close 1006 connection lost"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := serveWith(t, gateway.EndpointOptions{Logic: tt.logic, MaxClients: 1})
				p := connectRaw(t, s)
				p.send(append([]byte(upgradeRequest), frame(fin|text, "x")...))
				synctest.Wait()
				_ = p.Close()
				tt.logic.Want(t, tt.want...)
				synctest.Wait()
				wantCount(t, s.Gateway, gateway.All(), 0)
				p = connectRaw(t, s)
				p.send([]byte(request("GET /test?again HTTP/1.1")))
				p.wantUpgrade() // the limit is free
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				if err := s.Gateway.Shutdown(ctx); err != nil {
					t.Errorf("shutting down: %v", err)
				}
			})
		})
	}
}

// ending is a way for a connection to end.
type ending struct {
	name string

	// end brings it about. c is the client, p its peer.
	end func(t *testing.T, s *gatewaytest.Server, c *gateway.Client, p *rawPeer)

	// returns is what the callback that is running returns in the end.
	returns error

	code   int
	byPeer bool

	// peer is what the peer reads first; empty if it cannot read.
	peer string

	// early is what it may read instead if that was before the handshake's answer.
	early string
}

var endings = []ending{
	{
		name: "the peer's close frame", code: 4001, byPeer: true, peer: "close 4001",
		end: func(_ *testing.T, _ *gatewaytest.Server, _ *gateway.Client, p *rawPeer) {
			p.send(frame(fin|closes, closing(4001, "bye")))
		},
	},
	{
		name: "the peer's empty close frame", code: 1005, byPeer: true, peer: "close",
		end: func(_ *testing.T, _ *gatewaytest.Server, _ *gateway.Client, p *rawPeer) {
			p.send(frame(fin|closes, ""))
		},
	},
	{
		name: "the peer vanishes", code: 1006, byPeer: true,
		end: func(_ *testing.T, _ *gatewaytest.Server, _ *gateway.Client, p *rawPeer) { _ = p.Close() },
	},
	{
		name: "the peer half-closes", code: 1006, byPeer: true, peer: "end",
		end: func(_ *testing.T, _ *gatewaytest.Server, _ *gateway.Client, p *rawPeer) { _ = p.CloseWrite() },
	},
	{
		name: "the peer breaks the protocol", code: 1002, peer: "close 1002",
		end: func(_ *testing.T, _ *gatewaytest.Server, _ *gateway.Client, p *rawPeer) { p.send([]byte{0xFF, 0xFF}) },
	},
	{
		name: "the peer's text is not UTF-8", code: 1007, peer: "close 1007",
		end: func(_ *testing.T, _ *gatewaytest.Server, _ *gateway.Client, p *rawPeer) {
			p.send(frame(fin|text, "\xff"))
		},
	},
	{
		name: "Client.Close", code: 4002, peer: "close 4002 kicked",
		end: func(t *testing.T, _ *gatewaytest.Server, c *gateway.Client, _ *rawPeer) {
			if err := c.Close(4002, "kicked"); err != nil {
				t.Error(err)
			}
		},
	},
	{
		name: "Gateway.Close", code: 4003, peer: "close 4003 all out",
		end: func(t *testing.T, s *gatewaytest.Server, _ *gateway.Client, _ *rawPeer) {
			if n, err := s.Gateway.Close(gateway.All(), 4003, "all out"); n != 1 || err != nil {
				t.Errorf("closed %d (%v)", n, err)
			}
		},
	},
	{name: "the send buffer is full", code: 1013, peer: "binary", early: "close 1013", // a write under way is finished first
		end: func(t *testing.T, _ *gatewaytest.Server, c *gateway.Client, _ *rawPeer) {
			for range 30 {
				_ = c.Send(gateway.Binary(make([]byte, 100_000)))
				synctest.Wait() // the first is being written
			}
			if err := c.Send(gateway.Text("x")); !errors.Is(err, gateway.ErrClosed) {
				t.Errorf("sending to a client that is full: %v", err)
			}
		}},
	{
		name: "the endpoint is removed", code: 1001, peer: "close 1001",
		end: func(_ *testing.T, s *gatewaytest.Server, _ *gateway.Client, _ *rawPeer) {
			go func() { _ = s.Gateway.Serve() }() // names a callback that outlasts the drain timeout
		},
	},
	{
		name: "Shutdown", code: 1001, peer: "close 1001",
		end: func(t *testing.T, s *gatewaytest.Server, _ *gateway.Client, _ *rawPeer) {
			go func() {
				if err := s.Gateway.Shutdown(context.Background()); err != nil {
					t.Error(err)
				}
			}()
		},
	},
	{
		name: "a CloseError", code: 4004, peer: "close 4004 as asked",
		returns: &gateway.CloseError{Code: 4004, Reason: "as asked"},
	},
	{
		name: "an error", code: 1011, peer: "close 1011 logic failed",
		returns: errors.New("no database"),
	},
	{name: "a panic", code: 1011, peer: "close 1011 logic failed", returns: errBoom},
}

var errBoom = errors.New("boom") // asks the callback to panic

// Whatever ends a client, OnClose is called once, after the callback that is
// running has returned, and both sides are told the same.
func TestOnCloseComesOnceAndAfterTheRunningCallback(t *testing.T) {
	for _, e := range endings {
		for _, during := range []string{"OnMessage", "OnConnect", "nothing"} {
			if during == "nothing" && e.returns != nil {
				continue
			}
			if during == "OnConnect" && (e.returns != nil || e.name == "the endpoint is removed") {
				continue // refuses the handshake
			}
			t.Run(e.name+" during "+during, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { endDuring(t, e, during) })
			})
		}
	}
}

func endDuring(t *testing.T, e ending, during string) {
	var busy, closed atomic.Int32
	var seen gateway.CloseReason
	inside, release := make(chan struct{}), make(chan struct{})
	block := func() {
		busy.Add(1)
		close(inside)
		<-release
		time.Sleep(time.Second)
		busy.Add(-1)
	}
	logic := &gatewaytest.Recorder{
		Connect: func(*gateway.Client, *http.Request) error {
			if during == "OnConnect" {
				block()
			}
			return nil
		},
		Message: func(*gateway.Client, gateway.Message) error {
			if during == "OnMessage" {
				block()
			}
			if errors.Is(e.returns, errBoom) {
				panic("boom")
			}
			return e.returns
		},
		Closed: func(c *gateway.Client, r gateway.CloseReason) {
			closed.Add(1)
			seen = r
			if busy.Load() != 0 {
				t.Error("OnClose was called while a callback ran")
			}
			if c.Context().Err() == nil {
				t.Error("OnClose was called while the client's context was not done")
			}
		},
	}
	s := gatewaytest.ServeLogic(t, logic)
	p := connectRaw(t, s)
	p.send([]byte(upgradeRequest))
	if during != "OnConnect" {
		p.wantUpgrade()
	}
	switch during {
	case "OnMessage":
		p.send(frame(fin|text, "x"))
		<-inside
	case "OnConnect":
		<-inside
	}
	if e.end != nil {
		e.end(t, s, logic.Client(t, 0), p)
	}
	if during != "nothing" {
		time.Sleep(5 * time.Second) // less than any time-out
		if closed.Load() != 0 {
			t.Error("OnClose was called before the callback had returned")
		}
		close(release)
	}
	if e.peer != "" {
		if during == "OnConnect" {
			p.wantUpgrade()
		}
		got := p.next()
		if during == "OnConnect" && e.early != "" {
			e.peer = e.early
		}
		if !strings.HasPrefix(got, e.peer) {
			t.Errorf("the peer received %.100q, want %q", got, e.peer)
		}
		for got != "end" && !strings.HasPrefix(got, "error") {
			got = p.next()
		}
	}
	_ = p.Close()
	time.Sleep(time.Minute)
	synctest.Wait()
	if n := closed.Load(); n != 1 {
		t.Errorf("OnClose was called %d times", n)
	}
	if seen.Code != e.code || seen.ByPeer != e.byPeer {
		t.Errorf("OnClose saw %+v, want code %d, by the peer: %t", seen, e.code, e.byPeer)
	}
	wantCount(t, s.Gateway, gateway.All(), 0)
}

// A callback that blocks for longer than a peer is waited for must not be
// overtaken by OnClose, and what was noted first stays what is told.
func TestOnCloseWaitsForACallbackThatOutlastsTheConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		var returned atomic.Bool
		logic := &gatewaytest.Recorder{
			Message: func(*gateway.Client, gateway.Message) error {
				<-release
				returned.Store(true)
				return &gateway.CloseError{Code: 4009, Reason: "too late"}
			},
			Closed: func(*gateway.Client, gateway.CloseReason) {
				if !returned.Load() {
					t.Error("OnClose overtook a callback")
				}
			},
		}
		s := gatewaytest.ServeLogic(t, logic)
		p := dialRaw(t, s, frame(fin|text, "x"))
		c := logic.Client(t, 0)
		synctest.Wait() // the callback runs
		if err := c.Close(4000, "first"); err != nil {
			t.Fatal(err)
		}
		p.want("close 4000 first")
		time.Sleep(time.Hour)
		if c.Context().Err() == nil {
			t.Error("the context is not done although the connection was cut long ago")
		}
		close(release)
		logic.Want(t, "connect", "message x", "close 4000 first")
	})
}

// The close frame must reach a peer on a real connection even if the peer has
// sent more than was read: closing then would reset the connection and take the
// frame with it.
func TestCloseFrameReachesARealPeerThatIsStillSending(t *testing.T) {
	for _, secure := range []bool{false, true} {
		t.Run(fmt.Sprintf("TLS %t", secure), func(t *testing.T) {
			logic := &gatewaytest.Recorder{}
			p := dialReal(t, secure, gateway.EndpointOptions{Logic: logic, MaxMessageSize: 1000})
			written := make(chan error, 1)
			go func() {
				_, err := p.Write(frame(fin|binry, strings.Repeat("x", 8<<20)))
				written <- err
			}()
			time.Sleep(20 * time.Millisecond) // let the kernel's buffers fill before anybody reads
			p.want("close 1009")
			if err := <-written; err != nil {
				t.Errorf("the server stopped taking in what was on its way: %v", err)
			}
			if got := p.next(); got != "end" {
				t.Errorf("then received %q, want the end", got)
			}
			_ = p.Close()
			logic.Want(t, "connect", "close 1009 message has more than 1000 bytes")
		})
	}
}
