package websocket_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-websocket/caddy-websocket/gateway"
)

func init() { caddy.RegisterModule(&flood{}) }

// flood is logic that sends more than anybody's kernel keeps: `logic flood`. It
// echoes what it is not asked for.
type flood struct {
	gateway.NopLogic
	g *gateway.Gateway
}

// flooded is told by floods that have ended how many messages they sent.
var flooded = make(chan int, 1)

func (*flood) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "websocket.logic.flood", New: func() caddy.Module { return new(flood) }}
}

func (f *flood) OnStart(g *gateway.Gateway) error {
	f.g = g
	return nil
}

// OnMessage begins a flood: "flood" until the client is gone, "flood until full"
// until so many messages were dropped that nobody is in doubt.
func (f *flood) OnMessage(c *gateway.Client, m gateway.Message) error {
	text := m.String()
	if !strings.HasPrefix(text, "flood") {
		return c.Send(m)
	}
	f.g.Go("flood", func(ctx context.Context) {
		const size, enough, burst = 32 << 10, 50, 10
		n, forEver, rest := 0, text == "flood", strings.Repeat("x", size)
		for ; ctx.Err() == nil && (forEver || c.Info(false).Dropped < enough); n++ {
			if err := c.Send(gateway.Text(fmt.Sprintf("%08d%s", n, rest))); errors.Is(err, gateway.ErrClosed) {
				break
			}
			if n%burst == 0 {
				time.Sleep(time.Millisecond) // others want to work, too
			}
		}
		if !forEver {
			flooded <- n
		}
	})
	return nil
}

// policySites have an endpoint for each policy, called after it, with and without
// TLS.
func policySites(writeTimeout string) (sites string, paths []string) {
	block := "{\n"
	for _, policy := range []string{"", "close", "drop_newest", "drop_oldest"} {
		path := "/" + policy + "x"
		block += " websocket " + path + " {\n send_buffer 256KiB " + policy + "\n write_timeout " + writeTimeout + "\n user {query.user}\n logic flood\n}\n"
		paths = append(paths, path)
	}
	block += "}\n"
	return "HTTP " + block + "HTTPS " + block, paths
}

// With real sockets, TLS and a kernel that buffers megabytes: a client that stops
// reading is gone soon after write_timeout, the log says why, and those beside it
// on the same endpoint do not notice.
func TestClientThatStopsReadingIsGoneAndItsNeighbourDoesNotNotice(t *testing.T) {
	sites, paths := policySites("1s")
	s := start(t, sites)
	type pair struct {
		path, user string
		neighbour  *client
	}
	var pairs []pair
	for _, path := range paths {
		for _, scheme := range []string{"ws", "wss"} {
			p := pair{path, path[1:] + scheme, s.dial(scheme + ":" + path)}
			pairs = append(pairs, p)
			s.dial(scheme + ":" + path + "?user=" + p.user).send("flood")
		}
	}
	trips := 0
	for _, p := range pairs { // until the last has gone
		for len(s.log.find("client gone", "user", p.user)) == 0 {
			for _, p := range pairs {
				text := fmt.Sprint("round trip ", trips)
				p.neighbour.ask(text, text)
			}
			trips++
		}
	}
	if trips == 0 {
		t.Error("the neighbours had no time for a round trip")
	}
	for _, p := range pairs {
		gone := s.log.wait(t, "client gone", "user", p.user)
		want := []any{"code", float64(gateway.CloseAbnormal), "reason", "took in nothing for 1s", "by_peer", true}
		if !strings.HasPrefix(p.path, "/drop") {
			want = []any{"code", float64(gateway.CloseTryAgainLater), "reason", "send buffer is full", "by_peer", false}
		}
		if want = append(want, "level", "warn", "endpoint", p.path, "client_ip", "127.0.0.1"); !has(gone, want) {
			t.Errorf("the log says %v, want %v", gone, want)
		}
		dropped, _ := gone["messages_dropped"].(float64)
		out, _ := gone["messages_out"].(float64)
		lasted, _ := gone["duration"].(float64)
		if dropped == 0 || out == 0 || lasted < 1 {
			t.Errorf("%s: the log says that %v messages were dropped, %v sent, in %v s", p.user, dropped, out, lasted)
		}
		p.neighbour.leave(gateway.CloseNormal, "")
	}
}

// What a client that pauses finds when it reads again is what the operator chose:
// the newest message, or none of those that came too late.
func TestSendBufferPolicyDecidesWhatASlowClientMisses(t *testing.T) {
	sites, _ := policySites("1m")
	s := start(t, sites)
	for _, policy := range []string{"drop_newest", "drop_oldest"} {
		for _, scheme := range []string{"ws", "wss"} {
			t.Run(policy+" "+scheme, func(t *testing.T) {
				c := s.dial(scheme + ":/" + policy + "x")
				c.t = t
				c.send("flood until full")
				var sent int
				select {
				case sent = <-flooded:
				case <-time.After(wait):
					t.Fatal("nothing was dropped")
				}
				c.send("end") // there is room for it, or it makes some
				last, got := -1, 0
				for ; ; got++ {
					_ = c.SetReadDeadline(time.Now().Add(wait))
					_, data, err := c.ReadMessage()
					if err != nil {
						t.Fatalf("after %d: %v", last, err)
					}
					if string(data) == "end" {
						break
					}
					n, err := strconv.Atoi(string(data[:8]))
					if err != nil || n <= last {
						t.Fatalf("received %.20q after %d", data, last)
					}
					last = n
				}
				if newest := last == sent-1; newest != (policy == "drop_oldest") || got == 0 || got == sent {
					t.Errorf("of %d messages %d came, the last was %d", sent, got, last)
				}
			})
		}
	}
}

// Logic is torn down when its endpoint has been removed. A client that does not
// answer its close frame must not keep Caddy from that, nor be told of its end in
// logic that is gone.
func TestLogicThatWasTornDownIsNotToldOfAClientThatDoesNotAnswer(t *testing.T) {
	site := "HTTP {\n websocket /ws {\n logic echo\n}\n websocket /goes {\n user goes\n logic probe\n}\n}\n"
	s := startWith(t, "websocket {\n drain_timeout 1s\n}\n", site)
	s.dial("ws:/goes") // and never reads
	s.mustLoad("websocket {\n drain_timeout 1s\n}\n", "HTTP {\n websocket /ws {\n logic echo\n}\n}\n")
	s.log.wait(t, "client gone", "user", "goes")
	if n := callsAfterClean.Load(); n > 0 {
		t.Errorf("logic was called %d times after its Cleanup", n)
	}
}
