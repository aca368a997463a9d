package websocket_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
)

// twoSites are a.test and b.test on one port, each with an endpoint and a token for
// it alone, and the operator's API for both.
func twoSites(t *testing.T) (s *server, a, b, all *caller) {
	t.Helper()
	s = newServer(t)
	site := func(name, token string) string {
		return fmt.Sprintf(`http://%[1]s.test:%[2]d {
	websocket /%[1]s {
		user {query.user}
		join {query.group}
		logic probe x
	}
	websocket_api /push/* {
		token %[3]s
		endpoints /%[1]s
	}
}
`, name, s.http.Port(), token)
	}
	s.mustLoad("", site("a", pushToken)+site("b", otherToken)+"HTTP {\n\twebsocket_api {\n\t\ttoken operator-operator\n\t}\n}")
	a, b, all = s.caller(t, "http:/push", pushToken), s.caller(t, "http:/push", otherToken), s.caller(t, "http:", "operator-operator")
	a.host, b.host = "a.test", "b.test"
	return s, a, b, all
}

// Whoever runs a site for somebody else gives him a token for his clients: with no
// wording of any call does it reach, change or show those of another site.
func TestTokenOfOneSiteNeverReachesAnothersClients(t *testing.T) {
	s, a, b, all := twoSites(t)
	ann := s.dial("ws:/a?user=ann&group=room", "Host: a.test")
	eve := s.dial("ws:/b?user=eve&group=room", "Host: b.test")
	id := all.id("eve")

	targets := []string{
		`{"all": true}`,
		`{"all": true, "endpoints": ["/b"]}`,
		`{"all": true, "endpoints": ["/a", "/b"]}`,
		`{"all": true, "endpoints": ["/B", "b", "/b/", "*", "/b*", "websocket", "/a,/b"]}`,
		`{"all": true, "endpoints": null}`,
		`{"users": ["eve"]}`,
		`{"users": ["eve"], "endpoints": ["/b"]}`,
		`{"users": ["eve", "ann"], "except": {"users": ["ann"]}}`,
		`{"clients": ["` + id + `"]}`,
		`{"clients": ["` + id + `"], "endpoints": ["/b"]}`,
		`{"groups": ["room"]}`,
		`{"groups": ["room"], "users": ["eve"], "clients": ["` + id + `"], "endpoints": ["/b", "/a"]}`,
		`{"groups": ["room"], "except": {"users": ["ann"]}}`,
	}
	commands := []struct{ method, path, name, rest string }{
		{"POST", "/send", "send", `, "text": "hit"`},
		{"POST", "/join", "join", `, "groups": ["hit"]`},
		{"POST", "/leave", "leave", `, "groups": ["room"]`},
		{"POST", "/bind", "bind", `, "user": "hit"`},
		{"POST", "/unbind", "unbind", ``},
		{"PUT", "/session", "set_session", `, "session": {"hit": 1}`},
		{"PATCH", "/session", "update_session", `, "session": {"hit": 1}`},
		{"POST", "/close", "close", `, "code": 4000`},
	}
	for _, to := range targets {
		for _, c := range commands {
			if c.name == "close" { // ann may go, and comes back
				ann.Close()
				for strings.Contains(a.ask("GET", "/count?user=ann", "").body, `"clients":1`) { // two of hers would look like both sites'
					time.Sleep(time.Millisecond)
				}
				ann = s.dial("ws:/a?user=ann&group=room", "Host: a.test")
			}
			body := `{"to": ` + to + c.rest + `}`
			for _, got := range []answer{
				a.ask(c.method, c.path, body),
				a.ask("POST", "/batch", `{"commands": [{"`+c.name+`": `+body+`}]}`),
				// The other site's host does not make it that site's token.
				(&caller{s: s, t: t, base: a.base, host: "b.test", token: a.token, http: a.http}).ask(c.method, c.path, body),
			} {
				if strings.Contains(got.body, `"clients":2`) {
					t.Errorf("%s %s is answered with %s", c.name, to, got.body)
				}
			}
		}
	}
	// She is there, as she was, and has received nothing before this.
	b.want("POST", "/send", `{"to": {"clients": ["`+id+`"], "users": ["eve"]}, "text": "end"}`, `{"clients": 1}`)
	eve.want("end")
	eve.ask("user", "eve")
	eve.ask("groups", "room")
	eve.ask("session", "{}")

	for _, path := range []string{
		"/clients", "/clients?endpoint=/b", "/clients?endpoint=/a&endpoint=/b", "/clients?user=eve", "/clients?group=room&fields=session", "/clients?ip=127.0.0.1",
		"/users", "/users?prefix=e", "/users?endpoint=/b", "/groups?endpoint=/b", "/stats", "/stats?endpoint=/b", "/stats?endpoint=/b&endpoint=/a",
		"/count?user=eve", "/count?endpoint=/b", "/count?client=" + id, "/count?group=room&except_user=ann",
	} {
		got := a.ask("GET", path, "")
		if got.resp.StatusCode != http.StatusOK || strings.Contains(got.body, id) || strings.Contains(got.body, "eve") || strings.Contains(got.body, `"/b"`) ||
			strings.HasPrefix(path, "/count") && got.body != "{\"clients\":0}\n" {
			t.Errorf("%s is answered with %s %s", path, got.resp.Status, got.body)
		}
	}
	a.refused(a.ask("GET", "/clients/"+id, ""), http.StatusNotFound, "unknown_client")
	all.want("GET", "/count", "", `{"clients": 2}`)
}

// Clients of another gateway are another application's, with users and groups of the
// same names.
func TestPushAPIIsAboutItsGateway(t *testing.T) {
	s := start(t, `HTTP {
	websocket /main {
		user tom
		logic probe x
	}
	websocket /second {
		gateway second
		user tom
		logic probe x
	}
	websocket_api /push/* {
		token `+pushToken+`
	}
	websocket_api /push2/* {
		token `+pushToken+`
		gateway second
	}
	websocket_api /push3/* {
		token `+pushToken+`
		gateway empty
	}
}`)
	first, second := s.dial("ws:/main"), s.dial("ws:/second")
	for path, reached := range map[string]int{"/push": 1, "/push2": 1, "/push3": 0} {
		s.caller(t, "http:"+path, pushToken).want("POST", "/send", `{"to": {"users": ["tom"]}, "text": "by `+path+`"}`, fmt.Sprintf(`{"clients": %d}`, reached))
	}
	first.want("by /push")
	second.want("by /push2")
}

// Where something else keeps strangers out, a token would be in its way: both are
// the Authorization header's.
func TestBasicAuthStandsInATokensPlace(t *testing.T) {
	s := start(t, strings.Replace(pushSite("insecure_no_token"), "HTTP {", `HTTP {
	basic_auth /push/* {
		# The password is demo.
		shop $2a$10$781oH37k0Zd/ey9A9EZcb.RZ/naW/UL8UzSp4Y1D6fJzeLMnm3lli
	}`, 1))
	tom := s.dial("ws:/chat?user=tom")
	api := s.caller(t, "http:/push", "")
	const body = `{"to": {"users": ["tom"]}, "text": "hi"}`
	for _, header := range []string{"X-None: x", "Authorization: Bearer " + pushToken, "Authorization: Basic c2hvcDp3cm9uZw=="} {
		if a := api.ask("POST", "/send", body, header); a.resp.StatusCode != http.StatusUnauthorized {
			t.Errorf("%s is answered with %s %s", header, a.resp.Status, a.body)
		}
	}
	if a := api.ask("POST", "/send", strings.Replace(body, "hi", "by shop", 1), "Authorization: Basic c2hvcDpkZW1v"); a.body != "{\"clients\":1}\n" {
		t.Errorf("with the password: %s %s", a.resp.Status, a.body)
	}
	tom.want("by shop")
}

// A page's form can send to any host with the visitor's passwords, but no JSON; and
// scripts are not told that they may.
func TestPagesOfOtherSitesCannotPush(t *testing.T) {
	s := start(t, pushSite("insecure_no_token"))
	tom := s.dial("ws:/chat?user=tom")
	api := s.caller(t, "http:/push", "")
	const body = `{"to": {"all": true}, "text": "from a page"}`
	for _, kind := range []string{"text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "text/plain; x=application/json"} {
		raw := s.raw(t, fmt.Sprintf("POST /push/send HTTP/1.1\nHost: 127.0.0.1\nConnection: close\nOrigin: https://elsewhere.example\nContent-Type: %s\nContent-Length: %d\n\n%s", kind, len(body), body))
		api.refused(raw, http.StatusUnsupportedMediaType, "unsupported_media")
	}
	for _, method := range []string{"OPTIONS", "GET"} {
		a := api.ask(method, "/count", "", "Origin: https://elsewhere.example", "Access-Control-Request-Method: POST", "Access-Control-Request-Headers: content-type")
		for name := range a.resp.Header {
			if strings.HasPrefix(name, "Access-Control-") {
				t.Errorf("%s is answered with %s", method, name)
			}
		}
	}
	api.want("POST", "/send", `{"to": {"all": true}, "text": "end"}`, `{"clients": 1}`)
	tom.want("end")
}
