package httpapi_test

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-websocket/caddy-websocket/gateway/httpapi"
)

const toAnn = `{"to": {"users": ["7"]}, "text": "once"}`

// times returns how often ann has received a message since the last time.
func (tn *town) times() int {
	tn.t.Helper()
	return len(tn.received()["ann"])
}

// A program that lost the answer asks again, and its visitors do not hear it twice.
func TestCommandWithAKeyIsDoneOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tn := newTown(t, httpapi.Options{Replay: httpapi.NewReplay(httpapi.ReplayOptions{})})
		first := tn.ask(http.MethodPost, "/send", toAnn, "Idempotency-Key: k")
		if first.status != http.StatusOK || first.header.Get("Idempotency-Replayed") != "" {
			t.Errorf("first: %d %v", first.status, first.header)
		}
		again := tn.ask(http.MethodPost, "/send", toAnn, "Idempotency-Key: k")
		if again.status != first.status || again.body != first.body || again.header.Get("Idempotency-Replayed") != "true" ||
			again.header.Get("Content-Type") != first.header.Get("Content-Type") {
			t.Errorf("again: %d %v %s", again.status, again.header, again.body)
		}
		if n := tn.times(); n != 1 {
			t.Errorf("ann heard it %d times", n)
		}
		for _, header := range []string{"Idempotency-Key: other", "Idempotency-Key: K", "X: y"} {
			if got := tn.ask(http.MethodPost, "/send", toAnn, header); got.header.Get("Idempotency-Replayed") != "" {
				t.Errorf("%s is taken for the first", header)
			}
		}
		if n := tn.times(); n != 3 {
			t.Errorf("with other keys, ann heard it %d times, want 3", n)
		}
		batch := `{"commands": [{"send": ` + toAnn + `}, {"send": {}}]}`
		for range 2 {
			tn.ask(http.MethodPost, "/batch", batch, "Idempotency-Key: b")
			tn.ask(http.MethodPatch, "/session", `{"to": {"users": ["7"]}, "session": {"a": 1}}`, "Idempotency-Key: s")
		}
		if n := tn.times(); n != 1 {
			t.Errorf("of a batch, ann heard it %d times", n)
		}
	})
}

// The same key for another request is a mistake of the program, and says so.
func TestKeyBelongsToItsRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tn := newTown(t, httpapi.Options{Replay: httpapi.NewReplay(httpapi.ReplayOptions{})})
		tn.ask(http.MethodPost, "/join", `{"to": {"users": ["7"]}, "groups": ["a"]}`, "Idempotency-Key: k")
		tn.refused(tn.ask(http.MethodPost, "/join", `{"to": {"users": ["7"]}, "groups": ["b"]}`, "Idempotency-Key: k"),
			http.StatusUnprocessableEntity, httpapi.CodeKeyReused, "belongs to another request")
		tn.refused(tn.ask(http.MethodPost, "/leave", `{"to": {"users": ["7"]}, "groups": ["a"]}`, "Idempotency-Key: k"),
			http.StatusUnprocessableEntity, httpapi.CodeKeyReused, "belongs to another request")
		if got := fmt.Sprint(tn.client("ann").Groups()); got != "[a room:1]" {
			t.Errorf("ann is in %s", got)
		}
	})
}

// What was refused did nothing: corrected, it may come under the same key.
func TestRefusalIsNotRemembered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tn := newTown(t, httpapi.Options{Replay: httpapi.NewReplay(httpapi.ReplayOptions{})})
		for _, body := range []string{`{`, `{"to": {}}`, `{"to": {"users": ["7"]}}`} {
			if got := tn.ask(http.MethodPost, "/send", body, "Idempotency-Key: k"); got.status != http.StatusBadRequest {
				t.Errorf("%s: %d %s", body, got.status, got.body)
			}
		}
		if got := tn.ask(http.MethodPost, "/send", toAnn, "Idempotency-Key: k"); got.status != http.StatusOK || tn.times() != 1 {
			t.Errorf("corrected: %d %s", got.status, got.body)
		}
	})
}

// Keys are made up by callers, who do not know of each other.
func TestKeysOfCallersAreApart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		replay := httpapi.NewReplay(httpapi.ReplayOptions{})
		tn := newTown(t, httpapi.Options{Replay: replay, Scope: "one"})
		key := "Idempotency-Key: k"
		tn.ask(http.MethodPost, "/send", toAnn, key)
		other := httpapi.New(tn.Gateway, httpapi.Options{Replay: replay, Scope: "two"})
		if got := ask(other, http.MethodPost, "/send", toAnn, key); got.header.Get("Idempotency-Replayed") != "" {
			t.Error("one caller is given another's answer")
		}
		// After a reload there is a new handler, and the key is known.
		reloaded := httpapi.New(tn.Gateway, httpapi.Options{Replay: replay, Scope: "one"})
		if got := ask(reloaded, http.MethodPost, "/send", toAnn, key); got.header.Get("Idempotency-Replayed") != "true" {
			t.Error("a new handler with the same memory does it again")
		}
		if n := tn.times(); n != 2 {
			t.Errorf("ann heard it %d times, want 2", n)
		}
	})
}

// A retry storm is one message: everybody else is told the answer, or to wait.
func TestManyAtOnceWithOneKeyAreDoneOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const callers = 50
		tn := newTown(t, httpapi.Options{Replay: httpapi.NewReplay(httpapi.ReplayOptions{})})
		var wg sync.WaitGroup
		replies := make([]reply, callers)
		for i := range callers {
			wg.Go(func() { replies[i] = ask(tn.api, http.MethodPost, "/send", toAnn, "Idempotency-Key: k") })
		}
		wg.Wait()
		firsts := 0
		for _, got := range replies {
			switch {
			case got.status == http.StatusConflict && got.header.Get("Retry-After") != "":
			case got.status != http.StatusOK || got.body != "{\"clients\":1}\n":
				t.Errorf("answered %d %s", got.status, got.body)
			case got.header.Get("Idempotency-Replayed") == "":
				firsts++
			}
		}
		if n := tn.times(); n != 1 || firsts != 1 {
			t.Errorf("ann heard it %d times, %d were told that theirs was the first", n, firsts)
		}
	})
}

// Memory ends after ten minutes, and is bounded in both ways before.
func TestAnswersAreForgotten(t *testing.T) {
	done := func(tn *town, key string) bool {
		tn.t.Helper()
		got := tn.ask(http.MethodPost, "/send", toAnn, "Idempotency-Key: "+key)
		if got.status != http.StatusOK {
			tn.t.Errorf("%s: %d %s", key, got.status, got.body)
		}
		return got.header.Get("Idempotency-Replayed") == ""
	}
	synctest.Test(t, func(t *testing.T) {
		tn := newTown(t, httpapi.Options{Replay: httpapi.NewReplay(httpapi.ReplayOptions{})})
		done(tn, "k")
		time.Sleep(10*time.Minute - time.Nanosecond)
		if done(tn, "k") {
			t.Error("it was forgotten before ten minutes")
		}
		time.Sleep(time.Nanosecond) // a replay does not prolong it
		if !done(tn, "k") {
			t.Error("it was remembered for longer than ten minutes")
		}
	})
	for name, o := range map[string]httpapi.ReplayOptions{"answers": {MaxAnswers: 10}, "bytes": {MaxBytes: 10 * 500}} {
		synctest.Test(t, func(t *testing.T) {
			tn := newTown(t, httpapi.Options{Replay: httpapi.NewReplay(o)})
			for i := range 100 {
				done(tn, fmt.Sprint("k", i))
			}
			if done(tn, "k99") || done(tn, "k92") {
				t.Errorf("bounded in %s, it has forgotten what is new", name)
			}
			if !done(tn, "k80") {
				t.Errorf("bounded in %s, it remembers everything", name)
			}
		})
	}
}

// A key is what a program can write into a header without thinking.
func TestKeysAreChecked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tn := newTown(t, httpapi.Options{Replay: httpapi.NewReplay(httpapi.ReplayOptions{})})
		for key, ok := range map[string]bool{
			`"8e03978e-40d5-43dd-bc93-6894a57f9324"`: true,
			"a b":                                    true,
			strings.Repeat("x", 255):                 true,
			strings.Repeat("x", 256):                 false,
			"ü":                                      false,
			"\x00":                                   false,
			"a\x7f":                                  false,
		} {
			got := tn.ask(http.MethodPost, "/send", toAnn, "Idempotency-Key: "+key)
			if ok && got.status == http.StatusOK {
				continue
			}
			if ok {
				t.Errorf("%q: %d %s", key, got.status, got.body)
				continue
			}
			tn.refused(got, http.StatusBadRequest, httpapi.CodeInvalidKey, "Idempotency-Key")
		}
		tn.refused(tn.ask(http.MethodPost, "/send", toAnn, "Idempotency-Key: a", "Idempotency-Key: b"), http.StatusBadRequest, httpapi.CodeInvalidKey, "2 times")
		if got := tn.ask(http.MethodGet, "/count", "", "Idempotency-Key: \x00"); got.status != http.StatusOK {
			t.Errorf("on a list the key has a meaning: %d", got.status)
		}
	})
}
