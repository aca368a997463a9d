package gateway_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/caddy-websocket/caddy-websocket/gateway"
)

func do(t *testing.T, g *gateway.Gateway, command string) (int, error) {
	t.Helper()
	var c gateway.Command
	if err := json.Unmarshal([]byte(command), &c); err != nil {
		t.Fatal(err)
	}
	return g.Do(&c)
}

// What a program elsewhere writes as JSON does what the methods do.
func TestCommandsAsDataDoWhatTheMethodsDo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tn := newTown(t)
		g := tn.Gateway
		must := func(command string, want int) {
			t.Helper()
			if n, err := do(t, g, command); n != want || err != nil {
				t.Errorf("%s reached %d (%v), want %d", command, n, err, want)
			}
		}
		must(`{"send": {"to": {"users": ["bob"]}, "text": "hi"}}`, 2)
		must(`{"send": {"to": {"groups": ["y"], "except": {"users": ["cid"]}}, "json": {"a": 1}}}`, 1)
		must(`{"send": {"to": {"clients": ["`+tn.id("ann")+`"]}, "binary": "aGk="}}`, 1)
		tn.conns["bob1"].Want("hi")
		tn.conns["bob2"].Want("hi", `{"a": 1}`)
		tn.conns["ann"].Want("hi")
		must(`{"join": {"to": {"users": ["ann"]}, "groups": ["new", "y"]}}`, 1)
		must(`{"leave": {"to": {"users": ["ann"]}, "groups": ["x"]}}`, 1)
		must(`{"bind": {"to": {"users": ["cid"]}, "user": "dan"}}`, 1)
		must(`{"set_session": {"to": {"users": ["dan"]}, "session": {"a": 1, "b": 2}}}`, 1)
		must(`{"update_session": {"to": {"users": ["dan"]}, "session": {"a": null, "c": [3]}}}`, 1)
		ann, dan := g.Client(tn.id("ann")), g.Client(tn.id("cid"))
		if got := ann.Groups(); !slices.Equal(got, []string{"new", "y"}) {
			t.Errorf("ann is in %q", got)
		}
		if b, err := json.Marshal(dan.Session()); err != nil || string(b) != `{"b":2,"c":[3]}` {
			t.Errorf("the session is %s (%v)", b, err)
		}
		must(`{"unbind": {"to": {"users": ["dan"]}}}`, 1)
		if u := dan.User(); u != "" {
			t.Errorf("the user is %q, want none", u)
		}
		must(`{"close": {"to": {"all": true, "endpoints": ["b"]}}}`, 1)
		tn.conns["cid"].WantClose(gateway.CloseNormal)
		must(`{"close": {"to": {"users": ["bob"]}, "code": 4001, "reason": "kicked"}}`, 2)
		if reason := tn.conns["bob1"].WantClose(4001); reason != "kicked" {
			t.Errorf("the reason is %q", reason)
		}
	})
}

// A mistake in a command says what was wrong, and reaches nobody.
func TestCommandThatIsWrongReachesNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tn := newTown(t)
		for command, want := range map[string]string{
			`{}`: "a command is one of send, close",
			`{"send": {"to": {"all": true}, "text": "a"}, "close": {"to": {"all": true}}}`: "a command is one of",
			`{"send": {"to": {"all": true}}}`:                                              "one of text, binary and json: found 0",
			`{"send": {"to": {"all": true}, "text": "a", "json": 1}}`:                      "found 2",
			`{"send": {"to": {}, "text": "a"}}`:                                            "empty target",
			`{"send": {"to": {"all": true, "users": ["bob"]}, "text": "a"}}`:               "name one or the other",
			`{"close": {"to": {"all": true}, "code": 1006}}`:                               "close code 1006 may not be sent",
			`{"join": {"to": {"all": true}}}`:                                              "groups: name at least one",
			`{"join": {"to": {"all": true}, "groups": [""]}}`:                              "the name is empty",
			`{"bind": {"to": {"all": true}}}`:                                              "the name is empty",
			`{"set_session": {"to": {"all": true}}}`:                                       "session: an object is missing",
		} {
			n, err := do(t, tn.Gateway, command)
			if n != 0 || err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s reached %d, %v, want an error with %q", command, n, err, want)
			}
		}
		tn.wantReached(gateway.Groups("x"), "ann", "bob1")
		tn.wantReached(gateway.Groups("y"), "bob2", "cid")
	})
}

// Somebody who is allowed one endpoint must not reach another by any wording.
func TestTargetWithinAllowedEndpointsNeverWidens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tn := newTown(t)
		tn.wantReached(gateway.All().Within("a"), "ann", "bob1", "bob2")
		tn.wantReached(gateway.Groups("y").Within("a"), "bob2")
		tn.wantReached(gateway.Users("cid").Within("a"))
		tn.wantReached(gateway.All().In("a", "b").Within("b", "c"), "cid")
		tn.wantReached(gateway.All().In("b").Within("a"))
		tn.wantReached(gateway.All().Within())
		tn.wantReached(gateway.Clients(tn.id("cid")).In("b").Within("a"))
	})
}
