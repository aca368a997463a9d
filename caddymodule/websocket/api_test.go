package websocket_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
)

// Tokens of tests.
const (
	pushToken  = "0123456789abcdef-first"
	otherToken = "fedcba9876543210-other"
)

// caller is a program that pushes.
type caller struct {
	s     *server
	t     testing.TB
	base  string // the URL that paths are relative to
	host  string // the Host header, if another
	token string // "" sends none
	http  *http.Client
}

// caller returns one whose calls are below url, "http:/push" or "https:/push".
func (s *server) caller(t testing.TB, url, token string) *caller {
	c := &caller{s: s, t: t, token: token}
	transport := &http.Transport{DisableKeepAlives: true}
	path, secure := strings.CutPrefix(url, "https:")
	if secure {
		c.base = fmt.Sprintf("https://localhost:%d%s", s.https.Port(), path)
		transport.TLSClientConfig = s.tls()
	} else {
		c.base = "http://" + s.http.String() + strings.TrimPrefix(url, "http:")
	}
	c.http = &http.Client{Transport: transport, Timeout: wait}
	return c
}

// ask sends a request, with a body of JSON if there is one, and header lines "Name:
// value", and reads the answer.
func (c *caller) ask(method, path, body string, header ...string) answer {
	c.t.Helper()
	for deadline := time.Now().Add(wait); ; {
		req, err := http.NewRequestWithContext(c.t.Context(), method, c.base+path, strings.NewReader(body))
		if err != nil {
			c.t.Fatal(err)
		}
		req.Host = c.host
		if c.token != "" {
			req.Header.Set("Authorization", "Bearer "+c.token)
		}
		if body != "" {
			req.Header.Set("Content-Type", "application/json")
		}
		for _, line := range header {
			name, value, _ := strings.Cut(line, ": ")
			req.Header.Add(name, value)
		}
		resp, err := c.http.Do(req)
		if c.s.lost(err) && time.Now().Before(deadline) {
			continue
		}
		if err != nil {
			c.t.Fatalf("%s %s: %v", method, path, err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			c.t.Fatalf("%s %s: reading the answer: %v", method, path, err)
		}
		return answer{resp, string(b)}
	}
}

// admitted waits until the token is taken, time after time: for a moment after a reload the
// old server still answers some.
func (c *caller) admitted() {
	c.t.Helper()
	const enough = 20
	for deadline, n := time.Now().Add(wait), 0; n < enough; {
		a := c.ask("GET", "/count", "")
		if n++; a.resp.StatusCode != http.StatusOK {
			n = 0
		}
		if time.Now().After(deadline) {
			c.t.Fatalf("after a reload GET /count is answered with %s", a.resp.Status)
		}
	}
}

// want fails the test unless a call is answered with 200 and this JSON.
func (c *caller) want(method, path, body, want string) {
	c.t.Helper()
	a := c.ask(method, path, body)
	if a.resp.StatusCode != http.StatusOK || !sameJSON(a.body, want) {
		c.t.Errorf("%s %s %s is answered with %s %s, want %s", method, path, body, a.resp.Status, a.body, want)
	}
}

// refused fails the test unless an answer is an error in JSON, with this status and
// code.
func (c *caller) refused(a answer, status int, code string) {
	c.t.Helper()
	var got struct {
		Error struct{ Code, Message string }
	}
	if err := json.Unmarshal([]byte(a.body), &got); err != nil || a.resp.StatusCode != status || got.Error.Code != code || got.Error.Message == "" {
		c.t.Errorf("answered with %s %q, want %d and the error %s in JSON", a.resp.Status, a.body, status, code)
	}
	if got := a.resp.Header.Get("Content-Type"); got != "application/json" {
		c.t.Errorf("the error is declared as %q", got)
	}
}

// id returns the client id of a user with one connection.
func (c *caller) id(user string) string {
	c.t.Helper()
	var list struct{ Clients []struct{ ID string } }
	a := c.ask("GET", "/clients?user="+user, "")
	if err := json.Unmarshal([]byte(a.body), &list); err != nil || len(list.Clients) != 1 {
		c.t.Fatalf("the list of %s's connections is %s %s", user, a.resp.Status, a.body)
	}
	return list.Clients[0].ID
}

func sameJSON(a, b string) bool {
	var x, y any
	return json.Unmarshal([]byte(a), &x) == nil && json.Unmarshal([]byte(b), &y) == nil && reflect.DeepEqual(x, y)
}

// pushSite is a site with an endpoint, whose clients say who they are, and the API.
func pushSite(options string) string {
	return `HTTP {
	websocket /chat {
		user {query.user}
		join {query.group}
		logic probe x
	}
	websocket_api /push/* {
		` + options + `
	}
}`
}

// What the directive promises: another program reaches real clients by plain HTTP,
// with every call that is documented.
func TestEveryCallOfThePushAPIReachesRealClients(t *testing.T) {
	s := start(t, pushSite("token "+pushToken))
	api := s.caller(t, "http:/push", pushToken)
	tom, ann := s.dial("ws:/chat?user=tom&group=room:1"), s.dial("ws:/chat?user=ann&group=room:1")
	id := api.id("tom")

	for _, c := range []struct{ method, path, body, want string }{
		{"POST", "/send", `{"to": {"users": ["tom"]}, "text": "hi"}`, `{"clients": 1}`},
		{"POST", "/send", `{"to": {"clients": ["` + id + `"]}, "json": {"a": [1, "<b>"]}}`, `{"clients": 1}`},
		{"POST", "/send", `{"to": {"groups": ["room:1"], "except": {"users": ["ann"]}}, "binary": "aGVsbG8="}`, `{"clients": 1}`},
		{"POST", "/send", `{"to": {"all": true}, "text": "all"}`, `{"clients": 2}`},
		{"POST", "/join", `{"to": {"users": ["tom"]}, "groups": ["vip", "new"]}`, `{"clients": 1}`},
		{"POST", "/leave", `{"to": {"users": ["tom"]}, "groups": ["new"]}`, `{"clients": 1}`},
		{"PUT", "/session", `{"to": {"users": ["tom"]}, "session": {"a": 1, "b": 12345678901234567890}}`, `{"clients": 1}`},
		{"PATCH", "/session", `{"to": {"users": ["tom"]}, "session": {"a": null, "c": "x"}}`, `{"clients": 1}`},
		{"POST", "/bind", `{"to": {"users": ["tom"]}, "user": "7"}`, `{"clients": 1}`},
		{"GET", "/count", "", `{"clients": 2}`},
		{"GET", "/count?user=7&user=ann", "", `{"clients": 2}`},
		{"GET", "/count?user=tom", "", `{"clients": 0}`},
		{"GET", "/groups", "", `{"names": [{"name": "room:1", "clients": 2}, {"name": "vip", "clients": 1}]}`},
		{"GET", "/users?prefix=7", "", `{"names": [{"name": "7", "clients": 1}]}`},
		{"POST", "/batch", `{"commands": [{"unbind": {"to": {"users": ["ann"]}}}, {"send": {"to": {"users": ["ann"]}, "text": "lost"}}]}`, `{"results": [{"clients": 1}, {"clients": 0}]}`},
	} {
		api.want(c.method, c.path, c.body, c.want)
	}
	for _, text := range []string{"hi", `{"a": [1, "<b>"]}`, "hello", "all"} {
		tom.want(text)
	}
	ann.want("all")
	tom.ask("user", "7")
	tom.ask("groups", "room:1 vip")
	tom.ask("session", `{"b":12345678901234567890,"c":"x"}`)
	ann.ask("user", "")

	for path, part := range map[string]string{
		"/clients/" + id:                          `"session":{"b":12345678901234567890,"c":"x"}`,
		"/clients?group=vip":                      `"id":"` + id + `"`,
		"/clients?ip=127.0.0.1&endpoint=/chat":    `"client_ip":"127.0.0.1"`,
		"/stats":                                  `"endpoint":"/chat"`,
		"/openapi.yaml":                           "openapi: 3.1.0",
		"/clients?limit=1":                        `"next":"`,
		"/clients?fields=session&user=7":          `"session":{`,
		"/count?group=room:1&except_client=" + id: `{"clients":1}`,
	} {
		if a := api.ask("GET", path, ""); a.resp.StatusCode != http.StatusOK || !strings.Contains(a.body, part) {
			t.Errorf("GET %s is answered with %s %.300s, want %s in it", path, a.resp.Status, a.body, part)
		}
	}

	api.want("POST", "/close", `{"to": {"users": ["7"]}, "code": 4001, "reason": "bye"}`, `{"clients": 1}`)
	tom.wantClose(4001)
	api.refused(api.ask("GET", "/clients/"+id, ""), http.StatusNotFound, "unknown_client")
	// What is about the whole process is the operator's, not a token's.
	for _, path := range []string{"/drain", "/resume", "/tail"} {
		api.refused(api.ask("POST", path, ""), http.StatusNotFound, "unknown_call")
	}
}

// Programs parse what they get: an error page of the site would be no JSON. The
// access log is the same as for everything else, without the token.
func TestPushAPIErrorsAreItsOwnAndLogged(t *testing.T) {
	t.Setenv("WS_PUSH_TOKEN", pushToken)
	site := strings.Replace(pushSite("token {env.WS_PUSH_TOKEN}"), "HTTP {", "HTTP {\n\tlog\n\thandle_errors {\n\t\trespond \"the site's page\"\n\t}\n\tencode gzip", 1)
	s := start(t, site)
	api := s.caller(t, "http:/push", pushToken)
	api.refused(api.ask("POST", "/send", `{"to": {}, "text": "x"}`), http.StatusBadRequest, "invalid_target")
	api.refused(api.ask("GET", "/send", ""), http.StatusMethodNotAllowed, "method_not_allowed")
	api.refused(api.ask("GET", "/nothing", ""), http.StatusNotFound, "unknown_call")
	api.token = otherToken
	api.refused(api.ask("GET", "/count", ""), http.StatusUnauthorized, "unauthorized")
	for status := range map[int]bool{400: true, 405: true, 404: true, 401: true} {
		line := s.log.wait(t, "handled request", "status", float64(status))
		if got := fmt.Sprint(line["request"].(map[string]any)["headers"].(map[string]any)["Authorization"]); got != "[REDACTED]" {
			t.Errorf("the access log has Authorization %s", got)
		}
	}
	wantNoTokens(t, s)
}

// wantNoTokens fails the test if a token is in the log. (One that is written into the
// configuration is: at level DEBUG, Caddy logs that.)
func wantNoTokens(t *testing.T, s *server) {
	t.Helper()
	for _, token := range []string{pushToken, otherToken} {
		if strings.Contains(s.log.String(), token) {
			t.Errorf("the token %s is in the log", token)
		}
	}
}

// Neither the option's limit nor the site's own can be gone around by not saying how
// long a body is.
func TestPushAPIBodiesAreBounded(t *testing.T) {
	const large = 3 << 10
	body := `{"to": {"users": ["tom"]}, "text": "` + strings.Repeat("x", large) + `"}`
	for name, site := range map[string]string{
		"max_body":     pushSite("token " + pushToken + "\n\t\tmax_body 2KiB"),
		"request_body": strings.Replace(pushSite("token "+pushToken), "HTTP {", "HTTP {\n\trequest_body {\n\t\tmax_size 2KiB\n\t}", 1),
	} {
		t.Run(name, func(t *testing.T) {
			s := start(t, site)
			api := s.caller(t, "http:/push", pushToken)
			tom := s.dial("ws:/chat?user=tom")
			if a := api.ask("POST", "/send", body); a.resp.StatusCode != http.StatusRequestEntityTooLarge {
				t.Errorf("answered with %s %s", a.resp.Status, a.body)
			}
			a := s.raw(t, "POST /push/send HTTP/1.1\nHost: 127.0.0.1\nConnection: close\nContent-Type: application/json\nAuthorization: Bearer "+pushToken+
				"\nTransfer-Encoding: chunked\n\n"+fmt.Sprintf("%x\n%s\n0\n\n", len(body), body))
			api.refused(a, http.StatusRequestEntityTooLarge, "too_large")
			api.want("POST", "/send", `{"to": {"users": ["tom"]}, "text": "small"}`, `{"clients": 1}`)
			tom.want("small")
		})
	}
}

// A binary message arrives as one: gorilla tells which.
func TestPushedBinaryIsBinary(t *testing.T) {
	s := start(t, pushSite("token "+pushToken))
	tom := s.dial("ws:/chat?user=tom")
	s.caller(t, "http:/push", pushToken).want("POST", "/send", `{"to": {"users": ["tom"]}, "binary": "AP8="}`, `{"clients": 1}`)
	_ = tom.SetReadDeadline(time.Now().Add(wait))
	if kind, data, err := tom.ReadMessage(); kind != websocket.BinaryMessage || string(data) != "\x00\xff" || err != nil {
		t.Errorf("received %d %q %v", kind, data, err)
	}
}
