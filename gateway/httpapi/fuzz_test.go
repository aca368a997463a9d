package httpapi_test

import (
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/gorilla/websocket"

	"github.com/caddy-websocket/caddy-websocket/gateway"
	"github.com/caddy-websocket/caddy-websocket/gateway/gatewaytest"
	"github.com/caddy-websocket/caddy-websocket/gateway/httpapi"
)

// Whatever comes in, the API answers: never with 5xx, never so that a client of an
// endpoint that is not allowed is reached, and with a refusal only if nobody was.
func FuzzBodies(f *testing.F) {
	for _, op := range []string{"send", "close", "join", "leave", "bind", "unbind", "set_session", "update_session"} {
		f.Add(true, `{"commands": [{"`+op+`": {"to": {"all": true}, "text": "a", "groups": ["g"], "user": "u", "session": {"a": 1}}}]}`)
	}
	for _, body := range []string{
		`{"to": {"all": true}, "text": "a"}`,
		`{"to": {"users": ["user"], "groups": ["group"], "endpoints": ["other"], "except": {"users": ["x"]}}, "json": [1e999]}`,
		`{"to": {"all": true}, "binary": "AA=="}`,
		`{"to": {"all": true}, "text": "\ud800\u0000"}`,
		`{"to": {"all": true}, "text": "a"}{}`,
		`{"to": {"all": true, "endpoints": ["", "other"]}, "text": "a"}`,
		strings.Repeat(`{"to":`, 100), `null`, `[]`, ``, "\xff", `{"commands": [{"close": {"to": {"users": ["user"]}}}]}`,
		`{"commands": [{"update_session": {"to": {"all": true}, "session": {"a": {"b": {"c": null}}}}}, {"send": {"to": {"all": true}, "json": null}}]}`,
	} {
		f.Add(false, body)
		f.Add(true, body)
	}
	w := newFuzzed(f)
	f.Fuzz(func(t *testing.T, batch bool, body string) {
		path := "/send"
		if batch {
			path = "/batch"
		}
		w.connect(t)
		got := ask(w.api, http.MethodPost, path, body, "Content-Type: application/json")
		if got.status >= http.StatusInternalServerError {
			t.Errorf("answered %d %s", got.status, got.body)
		}
		w.check(t, got.status == http.StatusOK)
	})
}

// fuzzed is a gateway with a client that may be reached, one after the other, and
// one that may not.
type fuzzed struct {
	*gatewaytest.Server
	api     http.Handler
	watcher *gateway.Watcher
	allowed *gateway.Client
	other   *gateway.Client

	mu   sync.Mutex
	last *gateway.Client // guarded by mu
}

// joins is their logic.
type joins struct {
	gateway.NopLogic
	w *fuzzed
}

func (j *joins) OnConnect(c *gateway.Client, _ *http.Request) error {
	j.w.mu.Lock()
	j.w.last = c
	j.w.mu.Unlock()
	if err := c.Bind("user"); err != nil {
		return err
	}
	return c.Join("group")
}

func newFuzzed(f *testing.F) *fuzzed {
	w := &fuzzed{}
	logic := &joins{w: w}
	quiet := (&gatewaytest.Log{}).Logger()
	w.Server = gatewaytest.Serve(f,
		gatewaytest.Endpoint(f, "allowed", gateway.EndpointOptions{Logic: logic, Logger: quiet}),
		gatewaytest.Endpoint(f, "other", gateway.EndpointOptions{Logic: logic, Logger: quiet}))
	w.api = httpapi.New(w.Gateway, httpapi.Options{Endpoints: []string{"allowed"}})
	w.watcher = w.Gateway.Watch(gateway.WatchOptions{Messages: true, Buffer: 1 << 16})
	f.Cleanup(w.watcher.Close)
	w.other = w.dial(f, "/other")
	return w
}

// dial connects a client that takes in everything.
func (w *fuzzed) dial(t testing.TB, path string) *gateway.Client {
	dialer := websocket.Dialer{NetDialContext: w.DialContext}
	conn, _, err := dialer.Dial("ws://gateway.test"+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	go func() { // ends with the connection
		for {
			if _, _, err := conn.ReadMessage(); err != nil {
				_ = conn.Close()
				return
			}
		}
	}()
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.last
}

// connect sees to it that there is somebody to reach, as he was at first.
func (w *fuzzed) connect(t *testing.T) {
	if w.allowed == nil || w.Gateway.Client(w.allowed.ID()) == nil {
		w.allowed = w.dial(t, "/allowed")
	}
	for _, err := range []error{
		w.allowed.Bind("user"), w.allowed.Leave(w.allowed.Groups()...), w.allowed.Join("group"), w.allowed.Session().Replace(nil),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	w.drain(nil)
}

func (w *fuzzed) drain(f func(gateway.Event)) {
	for {
		select {
		case e := <-w.watcher.Events():
			if f != nil {
				f(e)
			}
		default:
			return
		}
	}
}

func (w *fuzzed) check(t *testing.T, ok bool) {
	untouched := func(c *gateway.Client) bool {
		return w.Gateway.Client(c.ID()) == c && c.User() == "user" && slices.Equal(c.Groups(), []string{"group"}) && len(c.Session().All()) == 0
	}
	if !untouched(w.other) {
		t.Error("a client that is not allowed was changed")
	}
	if !ok && !untouched(w.allowed) {
		t.Error("refused, and a client was changed")
	}
	w.drain(func(e gateway.Event) {
		switch {
		case e.Type == gateway.EventConnect: // may come late, from newFuzzed
		case e.Client == w.other.ID():
			t.Errorf("a client that is not allowed has a %s", e.Type)
		case !ok && e.Client == w.allowed.ID() && e.Type == gateway.EventSend:
			t.Errorf("refused, and a client has a %s", e.Type)
		}
	})
}
