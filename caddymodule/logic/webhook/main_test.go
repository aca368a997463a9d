package webhook_test

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-websocket/caddy-websocket/caddymodule/logic/webhook"
	"github.com/caddy-websocket/caddy-websocket/gateway"
	"github.com/caddy-websocket/caddy-websocket/gateway/gatewaytest"
)

// TestMain fails if a test left a goroutine of ours behind.
func TestMain(m *testing.M) { gatewaytest.Main(m, "caddy-websocket/") }

// post is a request that the backend has seen.
type post struct {
	*http.Request
	body   []byte
	events []map[string]any
}

func (p *post) id() string     { return p.Header.Get("Webhook-Id") }
func (p *post) kind() string   { return fmt.Sprint(p.events[0]["event"]) }
func (p *post) client() string { return fmt.Sprint(p.events[0]["client"].(map[string]any)["id"]) }

func (p *post) text() string        { return fmt.Sprint(p.events[0]["message"].(map[string]any)["text"]) }
func (p *post) is(kind string) bool { return p.kind() == kind }

// backend is a backend in memory: it works in fake time. Its function answers a
// request; it may block until the request's context is done.
type backend struct {
	t      testing.TB
	answer func(p *post) (*http.Response, error)

	mu    sync.Mutex
	posts []*post // guarded by mu
}

// RoundTrip notes the request and answers it.
func (b *backend) RoundTrip(req *http.Request) (*http.Response, error) {
	p := &post{Request: req}
	var body struct{ Events []map[string]any }
	var err error
	if p.body, err = io.ReadAll(req.Body); err == nil {
		err = json.Unmarshal(p.body, &body)
	}
	if p.events = body.Events; err != nil || len(p.events) == 0 {
		b.t.Errorf("the backend is sent %.500q: %v", p.body, err)
		return nil, errors.New("not a request")
	}
	b.mu.Lock()
	b.posts = append(b.posts, p)
	b.mu.Unlock()
	if b.answer == nil {
		return say(http.StatusNoContent, ""), nil
	}
	return b.answer(p)
}

// seen returns the requests of a kind, or all of them.
func (b *backend) seen(kind string) (found []*post) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, p := range b.posts {
		if kind == "" || p.is(kind) {
			found = append(found, p)
		}
	}
	return found
}

// closes returns the close events of all requests, by client.
func (b *backend) closes() map[string]int {
	ids := make(map[string]int)
	for _, p := range b.seen("close") {
		for _, e := range p.events {
			ids[e["client"].(map[string]any)["id"].(string)]++
		}
	}
	return ids
}

// say returns an answer. Header fields come as "Name: value".
func say(status int, body string, header ...string) *http.Response {
	res := &http.Response{StatusCode: status, Status: fmt.Sprint(status, " ", http.StatusText(status)), Header: make(http.Header), Body: io.NopCloser(strings.NewReader(body))}
	for _, line := range header {
		name, value, _ := strings.Cut(line, ": ")
		res.Header.Add(name, value)
	}
	return res
}

// never waits until the request is given up.
func never(p *post) (*http.Response, error) {
	<-p.Context().Done()
	return nil, p.Context().Err()
}

var errRefused = &net.OpError{Op: "dial", Net: "tcp", Err: errors.New("connection refused")}

// logic returns webhook logic with options of its Caddyfile block, on rt if that is
// not nil.
func logic(t testing.TB, options string, log *slog.Logger, rt http.RoundTripper) *webhook.Webhook {
	t.Helper()
	return logicAt(t, "http://backend.test/events", options, log, rt)
}

func logicAt(t testing.TB, url, options string, log *slog.Logger, rt http.RoundTripper) *webhook.Webhook {
	t.Helper()
	w, err := newLogic("webhook " + url + " {\n" + options + "\n}")
	if err != nil {
		t.Fatal(err)
	}
	if log == nil {
		log = gatewaytest.Logger(t)
	}
	w.Fake(log, rt)
	t.Cleanup(func() { _ = w.Cleanup() })
	return w
}

func newLogic(line string) (*webhook.Webhook, error) {
	w := new(webhook.Webhook)
	if err := w.UnmarshalCaddyfile(caddyfile.NewTestDispenser(line)); err != nil {
		return nil, err
	}
	return w, provision(w)
}

func provision(w *webhook.Webhook) error { return w.Provision(caddy.Context{}) }

// serve serves the logic as endpoint "test".
func serve(t testing.TB, options string, b *backend) *gatewaytest.Server {
	t.Helper()
	return serveLog(t, options, b, nil)
}

func serveLog(t testing.TB, options string, b *backend, log *gatewaytest.Log) *gatewaytest.Server {
	t.Helper()
	var logger *slog.Logger
	if log != nil {
		logger = log.Logger()
	}
	return gatewaytest.ServeLogic(t, logic(t, options, logger, b))
}

// ids returns the ids of the clients that are connected, in the order in which they came.
func ids(t testing.TB, s *gatewaytest.Server) []string {
	t.Helper()
	list, err := s.Gateway.Clients(t.Context(), gateway.Query{})
	if err != nil {
		t.Fatal(err)
	}
	slices.SortStableFunc(list.Clients, func(a, b gateway.ClientInfo) int {
		return cmp.Or(a.ConnectedAt.Compare(b.ConnectedAt), strings.Compare(a.ID, b.ID))
	})
	var ids []string
	for _, c := range list.Clients {
		ids = append(ids, c.ID)
	}
	return ids
}

func quote(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(b)
}
