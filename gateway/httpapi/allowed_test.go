package httpapi_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/caddy-websocket/caddy-websocket/gateway/httpapi"
)

// One site's token must not reach another site's clients, by no wording of any
// call: not send to them, not close, group, rename or describe them.
func TestCallerOfOneEndpointReachesNoOther(t *testing.T) {
	targets := []string{
		`{"all": true}`,
		`{"all": true, "endpoints": ["other"]}`,
		`{"all": true, "endpoints": ["other", "chat"]}`,
		`{"all": true, "endpoints": ["chat", "chat", "other"]}`,
		`{"all": true, "endpoints": ["OTHER", "other ", "other\u0000", "*"]}`,
		`{"all": true, "endpoints": null}`,
		`{"clients": ["{eve}"]}`,
		`{"clients": ["{eve}"], "endpoints": ["other"]}`,
		`{"clients": ["{ann}", "{eve}"]}`,
		`{"users": ["eve"]}`,
		`{"users": ["eve"], "endpoints": ["other"], "except": {"users": ["7"]}}`,
		`{"groups": ["secret"]}`,
		`{"groups": ["room:1", "secret"], "users": ["eve"], "clients": ["{eve}"]}`,
		`{"groups": ["room:1"], "except": {"clients": ["{ann}", "{bob1}"]}}`,
	}
	commands := map[string]string{
		"POST /send":     `"text": "hit"`,
		"POST /close":    `"code": 4000`,
		"POST /join":     `"groups": ["gotcha"]`,
		"POST /leave":    `"groups": ["secret", "room:1"]`,
		"POST /bind":     `"user": "gotcha"`,
		"POST /unbind":   ``,
		"PUT /session":   `"session": {"gotcha": 1}`,
		"PATCH /session": `"session": {"as": null}`,
	}
	for _, to := range targets {
		synctest.Test(t, func(t *testing.T) {
			for line, rest := range commands {
				tn := newTown(t, httpapi.Options{Endpoints: []string{"chat"}})
				method, path, _ := strings.Cut(line, " ")
				body := `{"to": ` + to + `}`
				if rest != "" {
					body = `{"to": ` + to + `, ` + rest + `}`
				}
				name := map[string]string{"PUT /session": "set_session", "PATCH /session": "update_session"}[line]
				if name == "" {
					name = path[1:]
				}
				tn.ask(http.MethodPost, "/batch", `{"commands": [{"`+name+`": `+body+`}]}`)
				if got := tn.ask(method, path, body); got.status != http.StatusOK || strings.Contains(got.body, `"clients":4`) {
					t.Errorf("%s %s: %d %s", line, body, got.status, got.body)
				}
				tn.wantEveUntouched(line + " " + body)
			}
		})
	}
}

func (tn *town) wantEveUntouched(by string) {
	tn.t.Helper()
	eve := tn.Gateway.Client(tn.id("eve"))
	if eve == nil {
		tn.t.Errorf("%s closed her", by)
		return
	}
	if got := fmt.Sprintf("%s %q %v", eve.User(), eve.Groups(), eve.Session().All()); got != `eve ["room:1" "secret"] map[as:eve]` {
		tn.t.Errorf("%s made her %s", by, got)
	}
	if got := tn.received()["eve"]; got != nil {
		tn.t.Errorf("%s sent her %q", by, got)
	}
}

// Nor does any list tell one site who visits another, or that anybody does.
func TestListsShowNobodyOfAnotherEndpoint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tn := newTown(t, httpapi.Options{Endpoints: []string{"chat"}, Operator: true})
		synctest.Wait()
		for path, want := range map[string]string{
			"/clients":                              "",
			"/clients?endpoint=other":               `"clients":[]`,
			"/clients?endpoint=other&endpoint=chat": "",
			"/clients?user=eve":                     `"clients":[]`,
			"/clients?group=secret&endpoint=other":  `"clients":[]`,
			"/clients?group=room:1&fields=session":  "",
			"/clients?ip=2001:db8::1":               `"clients":[]`,
			"/clients?cursor=aaaaaaaa-aaaaaaaaaaaaaaaaaaaaaaaaaa&limit=10000": "",
			"/groups":                             `"room:1","clients":2`,
			"/groups?prefix=secret":               `"names":[]`,
			"/groups?endpoint=other":              `"names":[]`,
			"/users":                              "",
			"/users?prefix=e&endpoint=other":      `"names":[]`,
			"/count":                              `"clients":3`,
			"/count?endpoint=other":               `"clients":0`,
			"/count?endpoint=other&endpoint=chat": `"clients":3`,
			"/count?client={eve}":                 `"clients":0`,
			"/count?user=eve&group=secret":        `"clients":0`,
			"/count?group=room:1":                 `"clients":2`,
			"/stats":                              `"clients":3,"users":2,"groups":2`,
			"/stats?endpoint=other":               `"clients":0,"users":0,"groups":0`,
			"/stats?endpoint=other&endpoint=chat": `"clients":3,"users":2,"groups":2`,
		} {
			got := tn.ask(http.MethodGet, path, "")
			if got.status != http.StatusOK || !strings.Contains(got.body, want) {
				t.Errorf("%s: %d %.300s, want %s", path, got.status, got.body, want)
			}
			for _, hers := range []string{tn.id("eve"), "eve", "secret", "other", "2001:db8"} {
				if strings.Contains(got.body, hers) {
					t.Errorf("%s tells of %q: %.300s", path, hers, got.body)
				}
			}
		}
		// Who is not allowed looks like who is not there.
		hers, nobodys := tn.ask(http.MethodGet, "/clients/{eve}", ""), tn.ask(http.MethodGet, "/clients/nobody", "")
		if hers.status != http.StatusNotFound || strings.ReplaceAll(hers.body, tn.id("eve"), "nobody") != nobodys.body {
			t.Errorf("her id answers %d %s, nobody's %d %s", hers.status, hers.body, nobodys.status, nobodys.body)
		}
		// What is about everybody is not for who is allowed a part.
		for _, path := range []string{"/drain", "/resume"} {
			tn.refused(tn.ask(http.MethodPost, path, ""), http.StatusNotFound, httpapi.CodeUnknownCall, "no such call")
		}
		tn.wantEveUntouched("a list")
	})
}

// Options are copied: a caller that reuses its slice must not widen a handler.
func TestAllowListIsCopied(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		allowed := []string{"chat", "x"}
		tn := newTown(t, httpapi.Options{Endpoints: allowed})
		allowed[1] = "other"
		tn.listed("/clients", "ann", "bob1", "bob2")
	})
}

// Group names are shared, as the documentation says: a caller may invite others'
// messages, but not invite others.
func TestJoinChangesOnlyOnesOwnClients(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tn := newTown(t, httpapi.Options{Endpoints: []string{"chat"}})
		tn.want(http.MethodPost, "/join", `{"to": {"all": true}, "groups": ["secret"]}`, `{"clients": 3}`)
		if got := tn.client("ann").Groups(); !slices.Contains(got, "secret") {
			t.Errorf("ann is in %q", got)
		}
		tn.want(http.MethodPost, "/send", `{"to": {"groups": ["secret"]}, "text": "hit"}`, `{"clients": 3}`)
		tn.wantReceived("hit", "ann", "bob1", "bob2")
	})
}
