package websocket_test

import (
	"fmt"
	"net/http"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddy-websocket/caddy-websocket/caddymodule/websocket"
	"github.com/caddy-websocket/caddy-websocket/gateway"
)

func init() { caddy.RegisterModule(&hoarder{}) }

// ballast is what a guest may have in memory: a dictionary, a cache.
type ballast [1 << 20]byte

// hoarder is logic with a lot of state, which it drops in Cleanup as it should:
// `logic hoarder <text>`. It does so without locks: whoever calls it after Cleanup is
// found by the race detector.
type hoarder struct {
	Text string `json:"text"`

	state *ballast
}

func (*hoarder) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "websocket.logic.hoarder", New: func() caddy.Module { return new(hoarder) }}
}

func (h *hoarder) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next()
	d.AllArgs(&h.Text)
	return nil
}

func (h *hoarder) Provision(caddy.Context) error {
	h.state = new(ballast)
	if c := collected.Load(); c != nil {
		runtime.AddCleanup(h, increment, &c.logic)
		runtime.AddCleanup(h.state, increment, &c.state)
	}
	return nil
}

func (h *hoarder) Cleanup() error {
	h.state = nil
	return nil
}

func (h *hoarder) OnConnect(*gateway.Client, *http.Request) error {
	h.state[0]++
	h.state[0]--
	return nil
}

func (h *hoarder) OnMessage(c *gateway.Client, _ gateway.Message) error {
	return c.Send(gateway.Text(fmt.Sprint(h.Text, " ", len(h.state))))
}

func (h *hoarder) OnClose(*gateway.Client, gateway.CloseReason) {}

// garbage counts what has been collected of the configurations that were loaded
// since watchGarbage.
type garbage struct{ logic, state, app, http atomic.Int64 }

var collected atomic.Pointer[garbage]

func increment(n *atomic.Int64) { n.Add(1) }

// watchGarbage begins to count, until the test ends. It needs the global option
// `neighbour`.
func watchGarbage(t *testing.T) *garbage {
	g := new(garbage)
	collected.Store(g)
	f := func(ctx caddy.Context) error {
		app, err := ctx.App("websocket")
		if err != nil {
			return err
		}
		runtime.AddCleanup(app.(*websocket.App), increment, &g.app)
		if app, err = ctx.App("http"); err != nil {
			return err
		}
		runtime.AddCleanup(app.(*caddyhttp.App), increment, &g.http)
		return nil
	}
	neighbourProvision.Store(&f)
	t.Cleanup(func() {
		neighbourProvision.Store(nil)
		collected.Store(nil)
	})
	return g
}

func (g *garbage) String() string {
	return fmt.Sprintf("%d logic, %d states, %d websocket apps, %d http apps",
		g.logic.Load(), g.state.Load(), g.app.Load(), g.http.Load())
}

// hoard is a site where each way of connecting is there, with logic number n.
func hoard(n int, backend string) string {
	block := fmt.Sprintf(" {\n websocket /ws {\n name %%s-ws\n logic hoarder %d\n}\n websocket /proxied {\n name %%[1]s-proxied\n reverse_proxy %s\n}\n}\n", n, backend)
	return "HTTP" + fmt.Sprintf(block, "plain") + "HTTPS" + fmt.Sprintf(block, "secure")
}

// wantAlive fails the test unless a client is served by configuration n.
func wantAlive(t *testing.T, c *client, url string, n int) {
	t.Helper()
	if strings.HasSuffix(url, "proxied") {
		c.ask("tom", "tom")
		return
	}
	c.ask("x", fmt.Sprint(n, " ", len(ballast{})))
}

// accumulate reloads configurations 1 to n, each with a socket that was opened before,
// and returns the sockets.
func accumulate(t *testing.T, s *server, url, backend string, n int) (clients []*client) {
	t.Helper()
	for i := 1; i <= n; i++ {
		c := s.dial(url)
		if strings.HasSuffix(url, "proxied") {
			fields(t, c)
		}
		clients = append(clients, c)
		s.mustLoad("neighbour", hoard(i, backend))
		for _, c := range clients {
			wantAlive(t, c, url, i)
		}
	}
	return clients
}

// A server that is reloaded for years, with sockets that live for days, must not
// keep what it was in the meantime. With TLS a socket keeps the settings that it was
// accepted under, and through them Caddy's modules; the state of guests, which may be
// large, must be free even then.
func TestLiveSocketsKeepNoOldConfigurations(t *testing.T) {
	const reloads = 5
	guests := func(g *garbage) bool { return g.state.Load() == 2*reloads } // on two sites
	everything := func(g *garbage) bool {
		return guests(g) && g.logic.Load() == 2*reloads && g.app.Load() == reloads && g.http.Load() == reloads
	}
	for _, tt := range []struct {
		url  string
		free func(g *garbage) bool
	}{
		{"ws:/ws", everything},
		{"ws:/proxied", everything},
		{"wss:/ws", guests},
		{"wss:/proxied", guests},
	} {
		t.Run(tt.url, func(t *testing.T) {
			b := newBackend(t, false).addr()
			g := watchGarbage(t)
			s := startWith(t, "neighbour", hoard(0, b))
			clients := accumulate(t, s, tt.url, b, reloads)
			t.Cleanup(func() { t.Logf("of %d old configurations with a live socket each were collected: %s", reloads, g) })
			s.waitFor("old configurations to be collected", func() bool {
				runtime.GC()
				return tt.free(g)
			})
			for _, c := range clients {
				wantAlive(t, c, tt.url, reloads)
			}
		})
	}
}

// heap returns how much memory is in use.
func heap() int64 {
	for range 3 { // what cleanups and pools let go is free after the next
		runtime.GC()
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// What a configuration leaves behind is little, whatever kind of socket holds on to
// it: a figure that a server can be planned with.
func TestOldConfigurationsCostLittle(t *testing.T) {
	const reloads = 16
	for _, tt := range []struct {
		url  string
		most int64 // bytes that each old configuration may cost: three times what was seen
	}{
		{"ws:/ws", 15 << 10}, // nothing, but for chance
		{"ws:/proxied", 15 << 10},
		{"wss:/ws", 210 << 10}, // 70 KB, which are Caddy's but for 6
		{"wss:/proxied", 210 << 10},
	} {
		t.Run(tt.url, func(t *testing.T) {
			b := newBackend(t, false).addr()
			s := startWith(t, "neighbour", hoard(0, b))
			logs.set(nil) // what the test keeps of the log is no cost of Caddy's
			goroutines, ours := runtime.NumGoroutine(), countOurs()
			first := accumulate(t, s, tt.url, b, 2) // what is made only once
			empty := heap()
			var clients []*client
			for range reloads {
				c := s.dial(tt.url)
				if strings.HasSuffix(tt.url, "proxied") {
					fields(t, c)
				}
				wantAlive(t, c, tt.url, 2)
				clients = append(clients, c)
			}
			before := heap()
			socket := (before - empty) / reloads
			for _, c := range append(clients, first...) {
				c.leave(1000, "")
			}
			s.waitFor("as many goroutines of ours as before", func() bool { return countOurs() <= ours })
			before = heap()
			clients = accumulate(t, s, tt.url, b, reloads)
			s.waitFor(fmt.Sprintf("an old configuration to cost at most %d bytes", tt.most), func() bool {
				each := (heap()-before)/reloads - socket
				t.Logf("a socket (both ends) costs %d bytes, an old configuration that one was opened in %d", socket, each)
				return each <= tt.most
			})
			for _, c := range clients {
				c.leave(1000, "")
			}
			s.waitFor("all goroutines to end that were not there before", func() bool {
				return countOurs() <= ours && runtime.NumGoroutine() <= goroutines
			})
		})
	}
}
