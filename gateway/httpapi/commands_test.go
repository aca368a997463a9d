package httpapi_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/caddy-websocket/caddy-websocket/gateway"
	"github.com/caddy-websocket/caddy-websocket/gateway/httpapi"
)

// A program pushes to whom it names, and the number says how many those were.
func TestSendReachesTheTargetAndSaysHowMany(t *testing.T) {
	for _, tt := range []struct{ to, want string }{
		{`{"all": true}`, "ann bob1 bob2 eve"},
		{`{"all": true, "endpoints": ["chat"]}`, "ann bob1 bob2"},
		{`{"clients": ["{bob2}"]}`, "bob2"},
		{`{"clients": ["{ann}", "{ann}", "nobody"]}`, "ann"},
		{`{"users": ["8"]}`, "bob1 bob2"},
		{`{"groups": ["room:1"]}`, "ann bob1 eve"},
		{`{"groups": ["room:1", "room:2"], "users": ["8"], "clients": ["{eve}"]}`, "ann bob1 bob2 eve"},
		{`{"all": true, "except": {"users": ["8"]}}`, "ann eve"},
		{`{"groups": ["room:1"], "except": {"clients": ["{ann}", "nobody"], "users": ["eve"]}}`, "bob1"},
		{`{"groups": ["room:1"], "endpoints": ["other", "nowhere"]}`, "eve"},
		{`{"users": ["zoe"]}`, ""},
	} {
		synctest.Test(t, func(t *testing.T) {
			tn := newTown(t, httpapi.Options{})
			who := strings.Fields(tt.want)
			tn.want(http.MethodPost, "/send", `{"to": `+tt.to+`, "text": "hit"}`, fmt.Sprintf(`{"clients": %d}`, len(who)))
			tn.wantReceived("hit", who...)
		})
	}
}

// What arrives is what was written: text, bytes, and JSON to the last blank.
func TestMessagesArriveAsTheyWereWritten(t *testing.T) {
	for body, want := range map[string]string{
		`"text": "grüß Gott 👋 <&>"`: "grüß Gott 👋 <&>",
		`"text": ""`:                "",
		`"text": "\u0000"`:          "\x00",
		`"binary": "AAEC/w=="`:      "\x00\x01\x02\xff",
		`"binary": ""`:              "",
		`"json": {"n": 9007199254740993,  "a":1, "a" : 2, "h": "<"}`: `{"n": 9007199254740993,  "a":1, "a" : 2, "h": "<"}`,
		`"json": null`:              "null",
		`"json": 1e999`:             "1e999",
		`"json": "x", "text": null`: `"x"`,
	} {
		synctest.Test(t, func(t *testing.T) {
			tn := newTown(t, httpapi.Options{})
			tn.want(http.MethodPost, "/send", `{"to": {"users": ["7"]}, `+body+`}`, `{"clients": 1}`)
			tn.wantReceived(want, "ann")
		})
	}
}

// Each call does what its name says to everybody it says.
func TestCommandsChangeTheirTargets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tn := newTown(t, httpapi.Options{})
		groups := func(who string, want ...string) {
			t.Helper()
			if got := tn.client(who).Groups(); !slices.Equal(got, want) {
				t.Errorf("%s is in %q, want %q", who, got, want)
			}
		}
		session := func(who, want string) {
			t.Helper()
			if b, err := tn.client(who).Session().MarshalJSON(); err != nil || string(b) != want {
				t.Errorf("the session of %s is %s (%v), want %s", who, b, err, want)
			}
		}
		tn.want(http.MethodPost, "/join", `{"to": {"users": ["8"]}, "groups": ["new", "room:2"]}`, `{"clients": 2}`)
		groups("bob1", "new", "room:1", "room:2")
		groups("bob2", "new", "room:2")
		tn.want(http.MethodPost, "/leave", `{"to": {"groups": ["new"]}, "groups": ["room:2", "new"]}`, `{"clients": 2}`)
		groups("bob1", "room:1")
		groups("bob2")
		tn.want(http.MethodPost, "/bind", `{"to": {"clients": ["{bob1}"]}, "user": "9"}`, `{"clients": 1}`)
		tn.want(http.MethodPost, "/unbind", `{"to": {"users": ["8"]}}`, `{"clients": 1}`)
		if a, b := tn.client("bob1").User(), tn.client("bob2").User(); a != "9" || b != "" {
			t.Errorf("the users are %q and %q, want 9 and none", a, b)
		}
		tn.want(http.MethodPut, "/session", `{"to": {"users": ["9"]}, "session": {"a": {"b": 1, "c": 2}, "id": 9007199254740993}}`, `{"clients": 1}`)
		session("bob1", `{"a":{"b":1,"c":2},"id":9007199254740993}`)
		tn.want(http.MethodPatch, "/session", `{"to": {"users": ["9"]}, "session": {"a": {"b": null, "d": 18446744073709551615}, "e": []}}`, `{"clients": 1}`)
		session("bob1", `{"a":{"c":2,"d":18446744073709551615},"e":[],"id":9007199254740993}`)
		tn.want(http.MethodPut, "/session", `{"to": {"users": ["9"]}, "session": {}}`, `{"clients": 1}`)
		session("bob1", `{}`)
		session("bob2", `{"as":"bob2"}`)
		tn.want(http.MethodPost, "/close", `{"to": {"users": ["9"]}}`, `{"clients": 1}`)
		tn.conns["bob1"].WantClose(gateway.CloseNormal)
		tn.want(http.MethodPost, "/close", `{"to": {"all": true, "endpoints": ["other"]}, "code": 4001, "reason": "kicked"}`, `{"clients": 1}`)
		if reason := tn.conns["eve"].WantClose(4001); reason != "kicked" {
			t.Errorf("the reason is %q", reason)
		}
		tn.listed("/clients", "ann", "bob2")
	})
}

// A batch saves round trips; what is wrong with one of its commands is that
// command's business.
func TestBatchAnswersEachCommandAndStopsForNone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tn := newTown(t, httpapi.Options{})
		tn.want(http.MethodPost, "/batch", `{"commands": [
			{"send": {"to": {"users": ["8"]}, "text": "1"}},
			{"send": {"to": {}, "text": "2"}},
			{"join": {"to": {"users": ["7"]}, "groups": ["fresh"]}},
			{},
			{"send": {"to": {"groups": ["fresh"]}, "json": 3}},
			{"update_session": {"to": {"users": ["7"]}, "session": {"as": null}}}
		]}`, `{"results": [
			{"clients": 2},
			{"error": {"code": "invalid_target", "message": "to: empty target: name all, or clients, users or groups"}},
			{"clients": 1},
			{"error": {"code": "invalid_command", "message": "a command is one of send, close, join, leave, bind, unbind, set_session, update_session"}},
			{"clients": 1},
			{"clients": 1}
		]}`)
		got := tn.received()
		if fmt.Sprint(got) != "map[ann:[3] bob1:[1] bob2:[1]]" {
			t.Errorf("received %v", got)
		}
	})
}

// What one client cannot take, because it is in a thousand groups already or its
// session is full, is said, and so is how many others took it.
func TestLimitOfOneClientIsSaidAndTheOthersAreServed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tn := newTown(t, httpapi.Options{Replay: httpapi.NewReplay(httpapi.ReplayOptions{})})
		bob := tn.client("bob1")
		for i := range gateway.MaxGroupsPerClient - 1 {
			if err := bob.Join(fmt.Sprint("g", i)); err != nil {
				t.Fatal(err)
			}
		}
		body := `{"to": {"all": true}, "groups": ["one more"]}`
		got := tn.ask(http.MethodPost, "/join", body, "Idempotency-Key: k")
		tn.refused(got, http.StatusConflict, httpapi.CodeLimitExceeded, "1000")
		if !strings.Contains(got.body, `"clients":3`) {
			t.Errorf("answered %s, want 3 clients", got.body)
		}
		if again := tn.ask(http.MethodPost, "/join", body, "Idempotency-Key: k"); again.status != got.status || again.body != got.body {
			t.Errorf("the second time it is %d %s", again.status, again.body)
		}
		if err := bob.Session().Set("full", strings.Repeat("x", gateway.MaxSessionSize-100)); err != nil {
			t.Fatal(err)
		}
		got = tn.ask(http.MethodPatch, "/session", `{"to": {"users": ["7", "8"]}, "session": {"more": "`+strings.Repeat("y", 200)+`"}}`)
		tn.refused(got, http.StatusConflict, httpapi.CodeLimitExceeded, "session of")
		if !strings.Contains(got.body, `"clients":2`) {
			t.Errorf("answered %s, want 2 clients", got.body)
		}
	})
}

// A large application has many groups, and a push to one finds that one.
func TestPushToOneOfTenThousandGroups(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const clients, each = 20, 500
		tn := newTown(t, httpapi.Options{})
		var commands []string
		for i := range clients {
			tn.connect(fmt.Sprintf("/chat?as=c%d&user=u%d", i, i%10))
			var groups []string
			for j := range each {
				groups = append(groups, fmt.Sprintf(`"g%d"`, i*each+j))
			}
			commands = append(commands, fmt.Sprintf(`{"join": {"to": {"clients": ["{c%d}"]}, "groups": [%s]}}`, i, strings.Join(groups, ",")))
		}
		if got := tn.ask(http.MethodPost, "/batch", `{"commands": [`+strings.Join(commands, ",")+`]}`); strings.Count(got.body, `{"clients":1}`) != clients {
			t.Fatalf("joining: %d %s", got.status, got.body)
		}
		tn.want(http.MethodPost, "/send", `{"to": {"groups": ["g7777"]}, "text": "you"}`, `{"clients": 1}`)
		tn.wantReceived("you", "c15")
		tn.want(http.MethodGet, "/groups?prefix=g777&limit=3", "", `{"names": [{"name": "g777", "clients": 1}, {"name": "g7770", "clients": 1}, {"name": "g7771", "clients": 1}], "next": "g7771"}`)

		tn.connect("/other?as=third&user=u3")
		tn.want(http.MethodPost, "/send", `{"to": {"users": ["u3"]}, "text": "user"}`, `{"clients": 3}`)
		tn.wantReceived("user", "c3", "c13", "third")
		tn.want(http.MethodPost, "/send", `{"to": {"all": true, "except": {"clients": ["{c0}", "{c1}"], "users": ["8", "u5"]}}, "text": "rest"}`, `{"clients": 19}`)
	})
}
