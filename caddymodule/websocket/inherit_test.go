package websocket_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	gorilla "github.com/gorilla/websocket"

	"github.com/caddy-websocket/caddy-websocket/gateway"
)

// heir is logic that counts messages, and goes on counting where the one before it
// is: `logic heir <text>`.
type heir struct {
	Text string `json:"text"`

	count   *atomic.Int64
	ready   atomic.Bool // OnStart was called
	cleaned atomic.Bool
}

func (*heir) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "websocket.logic.heir", New: func() caddy.Module { return new(heir) }}
}

func (h *heir) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next()
	d.AllArgs(&h.Text)
	return nil
}

func (h *heir) Provision(caddy.Context) error {
	h.count = new(atomic.Int64)
	return nil
}

// Inherit takes over the counter, which both then use.
func (h *heir) Inherit(old gateway.Logic) {
	from := fmt.Sprintf("%T", old)
	if o, ok := old.(*heir); ok {
		h.count, from = o.count, o.Text
	}
	heirs.note(from + " to " + h.Text)
	if h.ready.Load() {
		heirs.note("Inherit of " + h.Text + " comes after OnStart")
	}
}

func (h *heir) OnStart(*gateway.Gateway) error {
	if h.ready.Swap(true) {
		heirs.note("second OnStart of " + h.Text)
	}
	return nil
}

func (h *heir) called() {
	if !h.ready.Load() {
		heirs.note("callback of " + h.Text + " before it began")
	}
	if h.cleaned.Load() {
		callsAfterClean.Add(1)
	}
}

func (h *heir) OnConnect(*gateway.Client, *http.Request) error {
	h.called()
	return nil
}

func (h *heir) OnMessage(c *gateway.Client, _ gateway.Message) error {
	h.called()
	return c.Send(gateway.Text(fmt.Sprint(h.Text, " ", h.count.Add(1))))
}

func (h *heir) OnClose(*gateway.Client, gateway.CloseReason) { h.called() }

func (h *heir) Cleanup() error {
	h.cleaned.Store(true)
	return nil
}

// notes is what instances of heir have to say.
type notes struct {
	mu   sync.Mutex
	list []string // guarded by mu
}

var heirs notes

func (n *notes) reset() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.list = nil
}

func (n *notes) note(s string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.list = append(n.list, s)
}

func (n *notes) events() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.list)
}

func (n *notes) want(t *testing.T, events ...string) {
	t.Helper()
	if got := n.events(); !slices.Equal(got, events) {
		t.Errorf("the logic says %q, want %q", got, events)
	}
}

// What logic knows of more than one client, such as a counter, would otherwise be
// lost with every change of the configuration. A message that comes while it is handed over
// must be counted as well, once.
func TestInheritCarriesStateThroughReloads(t *testing.T) {
	s := newServer(t)
	heirs.reset()
	site := func(text string) string { return "HTTP {\n websocket /ws {\n logic heir " + text + "\n}\n}\n" }
	s.mustLoad("", site("a"))
	c := s.dial("ws:/ws")
	quit, sent := make(chan struct{}), make(chan int)
	go func() { // never stops talking
		n := 0
		defer func() { sent <- n }()
		for {
			select {
			case <-quit:
				return
			default:
			}
			if err := c.WriteMessage(gorilla.TextMessage, []byte("x")); err != nil {
				t.Errorf("sending: %v", err)
				return
			}
			n++
			_ = c.SetReadDeadline(time.Now().Add(wait))
			_, data, err := c.ReadMessage()
			if err != nil {
				t.Errorf("receiving: %v", err)
				return
			}
			if _, count, _ := strings.Cut(string(data), " "); count != fmt.Sprint(n) {
				t.Errorf("message %d was counted as %q", n, data)
				return
			}
		}
	}()
	for _, text := range []string{"b", "c", "d"} {
		s.mustLoad("", site(text))
	}
	close(quit)
	n := <-sent
	c.ask("x", fmt.Sprint("d ", n+1))
	heirs.want(t, "a to b", "b to c", "c to d")
	if n := callsAfterClean.Load(); n != 0 {
		t.Errorf("logic was called %d times after its Cleanup", n)
	}
}

// Whoever inherits from logic that goes on has taken its state away from it.
func TestNothingIsInheritedByAReloadThatFails(t *testing.T) {
	s := newServer(t)
	heirs.reset()
	site := func(text string) string { return "HTTP {\n websocket /ws {\n logic heir " + text + "\n}\n}\n" }
	s.mustLoad("", site("a"))
	c := s.dial("ws:/ws")
	c.ask("x", "a 1")
	f := func() error { return errors.New("neighbour cannot start") }
	neighbourStart.Store(&f)
	for range 4 { // apps start in any order
		if err := s.load("neighbour", site("b")); err == nil {
			t.Error("loaded")
		}
	}
	neighbourStart.Store(nil)
	c.ask("x", "a 2")
	heirs.want(t)
	s.mustLoad("", site("c"))
	c.ask("x", "c 3")
	heirs.want(t, "a to c")
}

// The logic of an endpoint may be replaced by something else: the heir is told
// what it was, and must look.
func TestInheritIsGivenLogicOfAnotherType(t *testing.T) {
	s := newServer(t)
	heirs.reset()
	site := func(logic string) string { return "HTTP {\n websocket /ws {\n logic " + logic + "\n}\n}\n" }
	s.mustLoad("", site("probe old"))
	c := s.dial("ws:/ws")
	c.ask("text", "old")
	s.mustLoad("", site("heir a"))
	c.ask("x", "a 1")
	s.mustLoad("", site("echo")) // inherits nothing
	c.ask("x", "x")
	s.mustLoad("", site("heir b"))
	c.ask("x", "b 1")
	s.mustLoad("", "HTTP {\n websocket /ws\n}\n") // leaves nothing
	s.mustLoad("", site("heir c"))
	c.ask("x", "c 1")
	heirs.want(t, "*websocket_test.probe to a", "*echo.Echo to b")
}

// One line that is two servers is one endpoint, with one state: to inherit twice
// would be to lose one of them.
func TestSharedEndpointInheritsOnce(t *testing.T) {
	s := newServer(t)
	heirs.reset()
	second := reserve(t, loopback4).String()
	site := func(text string) string {
		return "HTTP, http://" + second + " {\n websocket /ws {\n logic heir " + text + "\n}\n}\n"
	}
	s.mustLoad("", site("a"))
	one, two := s.dial("ws:/ws"), s.dialBy(connection{network: "tcp", address: second}, "ws:/ws")
	one.ask("x", "a 1")
	two.ask("x", "a 2")
	s.mustLoad("", site("b"))
	two.ask("x", "b 3")
	one.ask("x", "b 4")
	heirs.want(t, "a to b")
}

// What a gateway has to say goes where the configuration in force says, not where
// the first one did, whose log file may be closed by now.
func TestGatewayLogsWhereTheConfigurationInForceSays(t *testing.T) {
	s := newServer(t)
	load := func(writer string) {
		t.Helper()
		text, err := adapt(t, s.caddyfile("", "HTTP {\n websocket /ws {\n logic probe x\n}\n}\n"))
		if err != nil {
			t.Fatal(err)
		}
		var config map[string]any
		if err := json.Unmarshal(text, &config); err != nil {
			t.Fatal(err)
		}
		config["apps"].(map[string]any)["websocket"] = map[string]any{"drain_timeout": "100ms"}
		config["logging"].(map[string]any)["logs"].(map[string]any)["default"].(map[string]any)["writer"] = map[string]any{"output": writer}
		if text, err = json.Marshal(config); err != nil {
			t.Fatal(err)
		}
		if err := s.loadJSON(text); err != nil {
			t.Fatal(err)
		}
	}
	load("discard")
	load("websocket_test")
	begun, release := make(chan struct{}), make(chan struct{})
	hook := func(*gateway.Client, *http.Request) {
		close(begun)
		<-release
	}
	probeConnect.Store(&hook)
	defer probeConnect.Store(nil)
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		if conn, _, err := s.tryDial(connection{}, "ws:/ws", nil); err == nil {
			_ = conn.Close()
		}
	}()
	<-begun
	load("websocket_test") // cannot wait for the callback
	close(release)
	<-answered
	if len(s.log.find("callback still runs and is not waited for")) == 0 {
		t.Error("the callback that a reload did not wait for is not in the log of the configuration")
	}
}
