package websocket_test

import (
	"fmt"
	"strings"
	"testing"
)

// drainingSite has endpoints of two gateways, and a page for each that tells whether
// the gateway takes clients.
const drainingSite = `HTTP {
	websocket /ws {
		logic echo
	}
	websocket /game {
		gateway game
		logic echo
	}
	@draining websocket_draining
	handle /up {
		respond @draining 503
		respond up
	}
	@gameDraining websocket_draining game
	handle /up/game {
		respond @gameDraining 503
		respond up
	}
}
`

// A load balancer that sends clients to a node that is drained sends them to be
// refused.
func TestMatcherTellsWhichGatewayIsDraining(t *testing.T) {
	s := start(t, drainingSite)
	want := func(when string, up, game int) {
		t.Helper()
		for path, status := range map[string]int{"/up": up, "/up/game": game} {
			resp, body := s.request(fmt.Sprintf("GET %s HTTP/1.1\nHost: %s\nConnection: close\n\n", path, s.http))
			if resp.StatusCode != status || status == 200 && body != "up" {
				t.Errorf("%s: %s answers %s %q, want %d", when, path, resp.Status, body, status)
			}
		}
	}
	want("at first", 200, 200)
	if err := gatewayNow(t, "game").Drain(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	want("with game drained", 200, 503)
	s.refused(503, "ws:/game")
	s.mustLoad("", drainingSite)
	want("after a reload", 200, 503)
	gatewayNow(t, "game").Resume()
	want("resumed", 200, 200)
	s.dial("ws:/game").ask("x", "x")
}

// A check of a gateway that nobody can be connected to would say for ever that all is
// well.
func TestMatcherOfAGatewayWithoutEndpointsIsRefused(t *testing.T) {
	site := func(matcher string) string {
		return "HTTP {\n websocket /ws {\n gateway game\n logic echo\n}\n@draining " + matcher + "\nrespond @draining 503\n}\n"
	}
	s := start(t, site("websocket_draining game"))
	c := s.dial("ws:/ws")
	for matcher, want := range map[string]string{
		"websocket_draining":                                  `gateway "default" has no endpoint, and would never be drained: those that have are game`,
		"websocket_draining gmae":                             `gateway "gmae" has no endpoint, and would never be drained: those that have are game`,
		"websocket_draining " + strings.Repeat("x", 256):      "255",
		`websocket_draining ""`:                               "the name of the gateway is empty: the syntax is websocket_draining [<gateway>]",
		"websocket_draining game other":                       "wrong number of arguments: the syntax is websocket_draining [<gateway>]",
		"{\n websocket_draining game\n websocket_draining\n}": "websocket_draining is given twice",
	} {
		if err := s.load("", site(matcher)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: the error is %v, want one with %q", matcher, err, want)
		}
	}
	c.ask("x", "x")
}
