package httpapi_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/caddy-websocket/caddy-websocket/gateway"
	"github.com/caddy-websocket/caddy-websocket/gateway/httpapi"
)

// Who looks for somebody names what he knows, and all of it must hold.
func TestClientsAreListedByWhatIsKnownOfThem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tn := newTown(t, httpapi.Options{})
		tn.listed("/clients", "ann", "bob1", "bob2", "eve")
		tn.listed("/clients?endpoint=chat", "ann", "bob1", "bob2")
		tn.listed("/clients?endpoint=chat&endpoint=other&endpoint=x", "ann", "bob1", "bob2", "eve")
		tn.listed("/clients?endpoint=nowhere")
		tn.listed("/clients?user=8", "bob1", "bob2")
		tn.listed("/clients?user=8&group=room:2", "bob2")
		tn.listed("/clients?group=room:1&endpoint=other", "eve")
		tn.listed("/clients?ip=2001:DB8::0:1", "eve")
		tn.listed("/clients?ip=192.0.2.1&group=room:1", "ann", "bob1")
		tn.listed("/clients?cursor=", "ann", "bob1", "bob2", "eve")
		if got := tn.ask(http.MethodGet, "/clients", ""); strings.Contains(got.body, "session") {
			t.Errorf("sessions are in %s, and nobody asked", got.body)
		}
	})
}

// An application keeps 64-bit ids in sessions; JavaScript's numbers would round them.
func TestSessionsAreShownWithEveryDigit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tn := newTown(t, httpapi.Options{})
		tn.want(http.MethodPut, "/session", `{"to": {"users": ["7"]}, "session": {"id": 9007199254740993}}`, `{"clients": 1}`)
		for _, path := range []string{"/clients?user=7&fields=session", "/clients/{ann}"} {
			if got := tn.ask(http.MethodGet, path, ""); !strings.Contains(got.body, `"session":{"id":9007199254740993}`) {
				t.Errorf("%s answers %s", path, got.body)
			}
		}
	})
}

// A client by its id is there with all that is known, or is not there.
func TestClientByID(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tn := newTown(t, httpapi.Options{})
		var info gateway.ClientInfo
		got := tn.ask(http.MethodGet, "/clients/{eve}", "")
		if err := json.Unmarshal([]byte(got.body), &info); err != nil || got.status != http.StatusOK {
			t.Fatalf("answered %d %s (%v)", got.status, got.body, err)
		}
		if info.ID != tn.id("eve") || info.User != "eve" || info.RealIP != "2001:db8::1" || info.Endpoint != "other" ||
			fmt.Sprint(info.Groups, info.Session) != `[room:1 secret] {"as":"eve"}` {
			t.Errorf("eve is %+v", info)
		}
		for _, id := range []string{"nobody", "%00", "..", ".", "%FF", "{id}", strings.Repeat("x", 5000)} {
			tn.refused(tn.ask(http.MethodGet, "/clients/"+id, ""), http.StatusNotFound, httpapi.CodeUnknownClient, "no client")
		}
		for _, path := range []string{"/clients/", "/clients/a/b", "/clients/{eve}/", "/clients/{eve}%2F"} {
			tn.refused(tn.ask(http.MethodGet, path, ""), http.StatusNotFound, httpapi.CodeUnknownCall, "GET /clients/{id}")
		}
		tn.client("eve").Close(gateway.CloseNormal, "")
		tn.refused(tn.ask(http.MethodGet, "/clients/{eve}", ""), http.StatusNotFound, httpapi.CodeUnknownClient, "no client")
	})
}

// A list of all visitors is complete for those who stayed, however many came and
// went while it was read.
func TestPagingMissesAndRepeatsNobodyWhoStayed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const clients = 250
		tn := newTown(t, httpapi.Options{})
		for i := range clients {
			tn.connect(fmt.Sprintf("/chat?as=c%d", i))
		}
		seen := make(map[string]int)
		leaves, comes := 0, 0
		for cursor, page := "", 0; page == 0 || cursor != ""; page++ {
			ids, next := idsOf(t, tn.ask(http.MethodGet, "/clients?endpoint=chat&limit=17&cursor="+url.QueryEscape(cursor), ""))
			if len(ids) > 17 || next != "" && len(ids) != 17 {
				t.Fatalf("a page has %d clients, want 17", len(ids))
			}
			for _, id := range ids {
				seen[id]++
			}
			for range 3 { // the even ones go, others come
				if leaves < clients {
					if err := tn.client(fmt.Sprint("c", leaves)).Close(gateway.CloseNormal, ""); err != nil {
						t.Fatal(err)
					}
					leaves += 2
				}
				comes++
				tn.connect(fmt.Sprintf("/chat?as=late%d", comes))
			}
			cursor = next
		}
		for i := range clients {
			if i < leaves && i%2 == 0 {
				continue // has left
			}
			if n := seen[tn.id(fmt.Sprint("c", i))]; n != 1 {
				t.Errorf("client %d was listed %d times", i, n)
			}
		}
		for id, n := range seen {
			if n != 1 || id == tn.id("eve") {
				t.Errorf("%s was listed %d times", id, n)
			}
		}
	})
}

// Which rooms are there, who is online, and how many.
func TestNamesAndCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tn := newTown(t, httpapi.Options{})
		for path, want := range map[string]string{
			"/groups":                                  `{"names": [{"name": "room:1", "clients": 3}, {"name": "room:2", "clients": 1}, {"name": "secret", "clients": 1}]}`,
			"/groups?prefix=room:&limit=1":             `{"names": [{"name": "room:1", "clients": 3}], "next": "room:1"}`,
			"/groups?prefix=room:&cursor=room:1":       `{"names": [{"name": "room:2", "clients": 1}]}`,
			"/groups?endpoint=other":                   `{"names": [{"name": "room:1", "clients": 1}, {"name": "secret", "clients": 1}]}`,
			"/groups?prefix=x":                         `{"names": []}`,
			"/users":                                   `{"names": [{"name": "7", "clients": 1}, {"name": "8", "clients": 2}, {"name": "eve", "clients": 1}]}`,
			"/users?endpoint=chat&prefix=8":            `{"names": [{"name": "8", "clients": 2}]}`,
			"/count":                                   `{"clients": 4}`,
			"/count?endpoint=chat":                     `{"clients": 3}`,
			"/count?endpoint=nowhere":                  `{"clients": 0}`,
			"/count?user=7&user=8":                     `{"clients": 3}`,
			"/count?user=8&group=room:1":               `{"clients": 4}`,
			"/count?group=room:1&endpoint=chat":        `{"clients": 2}`,
			"/count?client={ann}&client=nobody":        `{"clients": 1}`,
			"/count?except_user=8&except_client={ann}": `{"clients": 1}`,
		} {
			tn.want(http.MethodGet, path, "", want)
		}
	})
}

// Counters come by endpoint.
func TestStatsAreThoseOfTheGateway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tn := newTown(t, httpapi.Options{})
		synctest.Wait() // for those who connect to be through with it
		var s gateway.Stats
		got := tn.ask(http.MethodGet, "/stats?endpoint=other", "")
		if err := json.Unmarshal([]byte(got.body), &s); err != nil || got.status != http.StatusOK {
			t.Fatalf("answered %d %s (%v)", got.status, got.body, err)
		}
		if s.Clients != 1 || s.Users != 1 || s.Groups != 2 || len(s.Endpoints) != 1 || s.Endpoints[0].Handshakes[http.StatusSwitchingProtocols] != 1 {
			t.Errorf("the stats of one endpoint are %s", got.body)
		}
	})
}

// Monitoring asks with HEAD, and browsers ask first with OPTIONS.
func TestHeadAndOptions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tn := newTown(t, httpapi.Options{Operator: true})
		get, head := tn.ask(http.MethodGet, "/count", ""), tn.ask(http.MethodHead, "/count", "")
		if head.status != http.StatusOK || head.body != "" || head.header.Get("Content-Length") != get.header.Get("Content-Length") {
			t.Errorf("HEAD /count: %d %q %v", head.status, head.body, head.header)
		}
		if head := tn.ask(http.MethodHead, "/tail", ""); head.status != http.StatusOK || head.body != "" {
			t.Errorf("HEAD /tail: %d %q", head.status, head.body)
		}
		for path, want := range map[string]string{
			"/count": "GET, HEAD, OPTIONS", "/session": "PUT, PATCH, OPTIONS", "/clients/x": "GET, HEAD, OPTIONS",
		} {
			got := tn.ask(http.MethodOptions, path, "")
			if got.status != http.StatusNoContent || got.header.Get("Allow") != want || got.header.Get("Access-Control-Allow-Origin") != "" {
				t.Errorf("OPTIONS %s: %d %v", path, got.status, got.header)
			}
			if got := tn.ask(http.MethodDelete, path, ""); got.header.Get("Allow") != want {
				t.Errorf("DELETE %s: %d %v", path, got.status, got.header)
			}
		}
	})
}
