package api_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/caddy-websocket/caddy-websocket/caddymodule/websocket/api"
)

// Somebody with many addresses, and any /64 has more than memory, must neither fill
// the disk nor the memory with his attempts; and somebody with one must not hide
// another.
func TestLinesAboutRefusalsAreBounded(t *testing.T) {
	var f api.Failures
	now := time.Unix(1e9, 0)
	lines := func(addresses int) (lines, suppressed int) {
		for i := range addresses {
			if n, ok := f.Take(fmt.Sprint("2001:db8::", i), now); ok {
				lines++
				suppressed += n
			}
		}
		return lines, suppressed
	}
	if n, _ := lines(100_000); n < 2 || n > 100 {
		t.Errorf("%d lines in a second, want some", n)
	}
	now = now.Add(time.Second)
	if n, ok := f.Take("192.0.2.1", now); !ok || n < 99_900 {
		t.Errorf("a second later: a line %t, and it counts %d that were none", ok, n)
	}
	if _, ok := f.Take("192.0.2.1", now.Add(999*time.Millisecond)); ok {
		t.Error("the same address has two lines in a second")
	}
	if n, ok := f.Take("192.0.2.2", now); !ok || n != 1 {
		t.Errorf("another address: a line %t, with %d that were none, want 1", ok, n)
	}
}

// A request that outlasts its configuration's grace_period is answered, and does not
// end in a panic.
func TestCallAfterCleanupIsToTryAgain(t *testing.T) {
	h := &api.Handler{InsecureNoToken: true}
	if err := h.Cleanup(); err != nil {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	if err := h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/count", http.NoBody), nil); err != nil {
		t.Fatal(err)
	}
	if w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") == "" || !strings.Contains(w.Body.String(), `"code":"shutdown"`) {
		t.Errorf("answered %d %v %s", w.Code, w.Header(), w.Body)
	}
}
