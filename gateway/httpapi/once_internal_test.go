package httpapi

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/caddy-websocket/caddy-websocket/gateway"
)

// While the first request is being answered, a second one with its key must
// neither be done nor wait: it is told to come back.
func TestKeyInUseIsAConflict(t *testing.T) {
	g, err := gateway.New(gateway.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = g.Shutdown(context.Background()) }()
	h := New(g, Options{Replay: NewReplay(ReplayOptions{}), Scope: "s"})
	const body = `{"to": {"all": true}, "text": "a"}`
	post := func(body string) *httptest.ResponseRecorder {
		r := httptest.NewRequest(http.MethodPost, "/send", strings.NewReader(body))
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("Idempotency-Key", "k")
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w
	}
	_, begun := h.o.Replay.begin(replayKey{"s", g.Name(), "k"}, fingerprint(&call{method: http.MethodPost, path: "/send"}, nil, []byte(body)))
	if w := post(body); w.Code != http.StatusConflict || !strings.Contains(w.Body.String(), CodeKeyInUse) || w.Header().Get("Retry-After") != "1" {
		t.Errorf("while the first is answered: %d %v %s", w.Code, w.Header(), w.Body)
	}
	if w := post(body + " "); w.Code != http.StatusUnprocessableEntity {
		t.Errorf("another request with its key: %d %s", w.Code, w.Body)
	}
	h.o.Replay.forget(begun)
	if w := post(body); w.Code != http.StatusOK {
		t.Errorf("after the first was refused: %d %s", w.Code, w.Body)
	}
}

// A command that panics must not leave its key in use for ever.
func TestPanicFreesTheKey(t *testing.T) {
	g, err := gateway.New(gateway.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = g.Shutdown(context.Background()) }()
	h := New(g, Options{Replay: NewReplay(ReplayOptions{})})
	r := httptest.NewRequest(http.MethodPost, "/x", nil)
	r.Header.Set("Idempotency-Key", "k")
	func() {
		defer func() { _ = recover() }()
		_ = h.command(httptest.NewRecorder(), r, [32]byte{}, func() (any, error) { panic("x") })
	}()
	if n := len(h.o.Replay.answers); n != 0 {
		t.Errorf("%d keys are in use", n)
	}
}
