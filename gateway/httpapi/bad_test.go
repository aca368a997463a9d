package httpapi_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-websocket/caddy-websocket/gateway"
	"github.com/caddy-websocket/caddy-websocket/gateway/httpapi"
)

// A mistake says what was wrong and what is allowed, and reaches nobody.
func TestMistakesAreNamedAndReachNobody(t *testing.T) {
	const toAnn = `"to": {"users": ["7"]}`
	long := strings.Repeat("x", 300)
	many := strings.Repeat(`"u",`, 20)
	for _, tt := range []struct {
		line, body, header string
		status             int
		code, message      string
	}{
		{"POST /send", ``, "Content-Type: application/json", 400, "malformed", "the body is empty"},
		{"POST /send", ` `, "", 400, "malformed", "the body is empty"},
		{"POST /send", `{`, "", 400, "malformed", "the body is not JSON: unexpected end"},
		{"POST /send", `{"to"}`, "", 400, "malformed", "at byte 6"},
		{"POST /send", `null`, "", 400, "malformed", "the body: found null, want an object"},
		{"POST /send", `[]`, "", 400, "malformed", "the body: found a list, want an object"},
		{"POST /send", `"x"`, "", 400, "malformed", "the body: found text, want an object"},
		{"POST /send", `{` + toAnn + `, "text": "a"} {}`, "", 400, "malformed", "not JSON"},
		{"POST /send", `{` + toAnn + `, "text": "a"}x`, "", 400, "malformed", "not JSON"},
		{"POST /send", "{" + toAnn + ", \"text\": \"\xff\"}", "", 400, "malformed", "not UTF-8"},
		{"POST /send", "{" + toAnn + ", \"text\": \"\x00\"}", "", 400, "malformed", "not JSON"},
		{"POST /send", "\xef\xbb\xbf{" + toAnn + `, "text": "a"}`, "", 400, "malformed", "not JSON"},
		{"POST /send", `{` + toAnn + `, "text": 1}`, "", 400, "malformed", "text: found a number, want text"},
		{"POST /send", `{` + toAnn + `, "text": {"a": 1}}`, "", 400, "malformed", "text: found an object, want text"},
		{"POST /send", `{` + toAnn + `, "text": "a", "text": "b"}`, "", 400, "malformed", `"text" comes twice`},
		{"POST /send", `{` + toAnn + `, "text": "a", "te\u0078t": "b"}`, "", 400, "malformed", `"text" comes twice`},
		{"POST /send", `{"to": {"users": ["7"], "users": ["8"]}, "text": "b"}`, "", 400, "malformed", `to: the field "users" comes twice`},
		{"POST /send", `{"to": {"users": "7"}, "text": "b"}`, "", 400, "malformed", "to.users: found text, want a list"},
		{"POST /send", `{"to": {"users": [7]}, "text": "b"}`, "", 400, "malformed", "to.users[0]: found a number, want text"},
		{"POST /send", `{"to": {"users": ["7", null]}, "text": "b"}`, "", 400, "malformed", "to.users[1]: found null, want text"},
		{"POST /send", `{"to": {"all": 1}, "text": "b"}`, "", 400, "malformed", "to.all: found a number, want true or false"},
		{"POST /send", `{"to": ["7"], "text": "b"}`, "", 400, "malformed", "to: found a list, want an object"},
		{"POST /send", `{` + toAnn + `, "binary": "a"}`, "", 400, "malformed", "binary: not base64"},
		{"POST /send", `{` + toAnn + `, "binary": "_-_-"}`, "", 400, "malformed", "binary: not base64"},
		{"POST /send", `{` + toAnn + `, "json": {]}`, "", 400, "malformed", "not JSON"},
		{"POST /send", `{` + toAnn + `, "json": ` + strings.Repeat("[", 20000) + strings.Repeat("]", 20000) + `}`, "", 400, "malformed", "exceeded max depth"},
		{"POST /send", strings.Repeat("[", 100000), "", 400, "malformed", "exceeded max depth"},
		{"POST /send", strings.Repeat(`{"to":`, 50) + "1" + strings.Repeat("}", 50), "", 400, "unknown_field", `to: unknown field "to"`},
		{"POST /send", `{` + toAnn + `, "Text": "a"}`, "", 400, "unknown_field", `the body: unknown field "Text": allowed are binary, json, text, to`},
		{"POST /send", `{"to": {"user": ["7"]}, "text": "a"}`, "", 400, "unknown_field", `to: unknown field "user": allowed are all, clients, endpoints, except, groups, nodes, users`},
		{"POST /send", `{"to": {"all": true, "except": {"groups": []}}, "text": "a"}`, "", 400, "unknown_field", `to.except: unknown field "groups": allowed are clients, users`},
		{"POST /send", `{` + toAnn + `, "text": "a", "` + long + `": 1}`, "", 400, "unknown_field", "unknown field"},
		{"POST /send", `{"text": "a"}`, "", 400, "invalid_target", "empty target"},
		{"POST /send", `{"to": null, "text": "a"}`, "", 400, "invalid_target", "empty target"},
		{"POST /send", `{"to": {"all": false}, "text": "a"}`, "", 400, "invalid_target", "empty target"},
		{"POST /send", `{"to": {"users": []}, "text": "a"}`, "", 400, "invalid_target", "empty target"},
		{"POST /send", `{"to": {"endpoints": ["chat"]}, "text": "a"}`, "", 400, "invalid_target", "empty target"},
		{"POST /send", `{"to": {"all": true, "endpoints": []}, "text": "a"}`, "", 400, "invalid_target", "to.endpoints: the list is empty"},
		{"POST /send", `{"to": {"all": true, "users": ["7"]}, "text": "a"}`, "", 400, "invalid_target", "name one or the other"},
		{"POST /send", `{"to": {"users": ["7", ""]}, "text": "a"}`, "", 400, "invalid_target", "to.users[1]: the name is empty"},
		{"POST /send", `{"to": {"all": true, "except": {"users": [""]}}, "text": "a"}`, "", 400, "invalid_target", "to.except.users[0]: the name is empty"},
		{"POST /send", `{"to": {"users": [` + many + `"7"]}, "text": "a"}`, "", 400, "too_many", "to: found 21 names, allowed are 20"},
		{"POST /send", `{` + toAnn + `}`, "", 400, "invalid_message", "found 0"},
		{"POST /send", `{` + toAnn + `, "text": null}`, "", 400, "invalid_message", "found 0"},
		{"POST /send", `{` + toAnn + `, "text": "a", "json": null}`, "", 400, "invalid_message", "found 2"},
		{"POST /send", `{` + toAnn + `, "text": "` + strings.Repeat("x", 200000) + `"}`, "", 413, "too_large", "allowed are 100000 bytes"},
		{"POST /send", `{}`, "Content-Type: ", 415, "unsupported_media", "the body has no type"},
		{"POST /send", `{}`, "Content-Type: text/plain", 415, "unsupported_media", `"text/plain": Content-Type: application/json`},
		{"POST /send", `{}`, "Content-Type: application/x-www-form-urlencoded", 415, "unsupported_media", "application/json"},
		{"POST /send", `{}`, "Content-Type: application/json; charset=latin1", 415, "unsupported_media", "allowed is utf-8"},
		{"POST /send", `{}`, "Content-Type: ;;", 415, "unsupported_media", "application/json"},
		{"POST /send", `{}`, "Content-Encoding: gzip", 415, "unsupported_media", "send the body as it is"},
		{"POST /send?until=1s", `{` + toAnn + `, "text": "a"}`, "", 400, "invalid_query", `unknown parameter "until": allowed are wait`},
		{"POST /send?wait=0s", `{` + toAnn + `, "text": "a"}`, "", 400, "invalid_query", `wait: "0s", allowed are durations like "500ms" up to 30s`},
		{"POST /send?wait=-1s", `{` + toAnn + `, "text": "a"}`, "", 400, "invalid_query", `wait: "-1s"`},
		{"POST /close?wait=30.1s", `{` + toAnn + `}`, "", 400, "invalid_query", `wait: "30.1s"`},
		{"PUT /session?wait=2", `{` + toAnn + `, "session": {}}`, "", 400, "invalid_query", `wait: "2"`},
		{"POST /batch?wait=1s&wait=1s", `{"commands": [{"send": {` + toAnn + `, "text": "a"}}]}`, "", 400, "invalid_query", "wait: given 2 times"},
		{"POST /send", `{"to": {"all": true, "nodes": []}, "text": "a"}`, "", 400, "invalid_target", "to.nodes: the list is empty"},
		{"POST /send", `{"to": {"all": true, "nodes": ["self", ""]}, "text": "a"}`, "", 400, "invalid_target", "to.nodes[1]: the name is empty"},
		{"POST /send", `{"to": {"nodes": ["self"]}, "text": "a"}`, "", 400, "invalid_target", "empty target"},
		{"POST /send", `{"to": {"all": true, "nodes": ["self", "nosuch"]}, "text": "a"}`, "", 404, "unknown_node", `no node "nosuch" is known: there are `},
		{"POST /leave", `{"to": {"all": true, "nodes": [` + many + `"u"]}, "groups": ["a"]}`, "", 400, "too_many", "to: found 21 names"},
		{"GET /clients?node=all&node=self", "", "", 400, "invalid_query", "node: all stands alone"},
		{"POST /send", `{"to": {"all": true, "nodes": ["self", "all"]}, "text": "a"}`, "", 400, "invalid_target", "to.nodes: all stands alone"},
		{"GET /users?node=", "", "", 400, "invalid_query", "node: the value is empty"},
		{"GET /groups?node=x&node=self", "", "", 404, "unknown_node", `no node "x"`},
		{"GET /count?node=" + long, "", "", 404, "unknown_node", "is known: there are "},
		{"GET /stats?node=self&node=self", "", "", 400, "invalid_query", "node: given 2 times"},
		{"GET /stats?node=x", "", "", 404, "unknown_node", `no node "x"`},
		{"GET /nodes?node=x", "", "", 400, "invalid_query", "allowed are none"},
		{"POST /drain?node=all&node=self", "", "", 400, "invalid_query", "node: all stands alone"},
		{"POST /drain?node=x", "", "", 404, "unknown_node", `no node "x"`},
		{"POST /resume?node=self&node=x", "", "", 404, "unknown_node", `no node "x"`},
		{"POST /send", `{` + toAnn + `, "text": "a"}`, "Idempotency-Key: k", 400, "invalid_key", "not remembered here"},
		{"POST /close", `{` + toAnn + `, "code": 1006}`, "", 400, "invalid_command", "close code 1006 may not be sent: allowed are"},
		{"POST /close", `{` + toAnn + `, "code": 1e3}`, "", 400, "malformed", "code: 1e3 is no whole number"},
		{"POST /close", `{` + toAnn + `, "code": 99999999999999999999}`, "", 400, "malformed", "code: 99999999999999999999 is no whole number that fits"},
		{"POST /close", `{` + toAnn + `, "code": -1}`, "", 400, "invalid_command", "close code -1"},
		{"POST /close", `{` + toAnn + `, "reason": "` + strings.Repeat("x", 124) + `"}`, "", 400, "invalid_command", "124 bytes: allowed are 123"},
		{"POST /join", `{` + toAnn + `}`, "", 400, "invalid_command", "groups: name at least one"},
		{"POST /join", `{` + toAnn + `, "groups": [""]}`, "", 400, "invalid_command", "the name is empty"},
		{"POST /join", `{` + toAnn + `, "groups": ["` + long + `"]}`, "", 400, "invalid_command", "300 bytes, allowed are 255"},
		{"POST /join", `{` + toAnn + `, "groups": [` + many + `"u"]}`, "", 400, "too_many", "groups: found 21, allowed are 20"},
		{"POST /leave", `{` + toAnn + `, "groups": []}`, "", 400, "invalid_command", "groups: name at least one"},
		{"POST /bind", `{` + toAnn + `}`, "", 400, "invalid_command", "the name is empty"},
		{"POST /bind", `{"to": {"users": ["nobody"]}, "user": "` + long + `"}`, "", 400, "invalid_command", "allowed are 255"},
		{"POST /unbind", `{` + toAnn + `, "user": "7"}`, "", 400, "unknown_field", `"user": allowed are to`},
		{"PUT /session", `{` + toAnn + `}`, "", 400, "invalid_command", "an empty one is {}"},
		{"PUT /session", `{` + toAnn + `, "session": null}`, "", 400, "invalid_command", "an empty one is {}"},
		{"PUT /session", `{` + toAnn + `, "session": []}`, "", 400, "malformed", "session: found a list, want an object"},
		{"PUT /session", `{` + toAnn + `, "session": {"": 1}}`, "", 400, "invalid_command", "the name is empty"},
		{"PUT /session", `{` + toAnn + `, "session": {"a": {"b": 1, "b": 2}}}`, "", 400, "malformed", `session.a: the field "b" comes twice`},
		{"PUT /session", `{` + toAnn + `, "session": {"a": [1, 1e400]}}`, "", 400, "malformed", "session.a[1]: the number 1e400 is too large"},
		{"PUT /session", `{` + toAnn + `, "session": {"a": "` + strings.Repeat("x", 70000) + `"}}`, "", 400, "invalid_command", "allowed are 65536"},
		{"PUT /session", `{"to": {"users": ["nobody"]}, "session": {"a": ` + strings.Repeat("[", 100) + strings.Repeat("]", 100) + `}}`, "", 400, "malformed", "nested deeper than 32"},
		{"PATCH /session", `{` + toAnn + `, "session": {"a": ` + strings.Repeat(`{"a":`, 100) + "1" + strings.Repeat("}", 100) + `}}`, "", 400, "malformed", "nested deeper than 32"},
		{"PATCH /session", `{"to": {"users": ["nobody"]}, "session": {"` + long + `": 1}}`, "", 400, "invalid_command", "allowed are 255"},
		{"POST /batch", `{}`, "", 400, "invalid_command", "at least one command"},
		{"POST /batch", `{"commands": []}`, "", 400, "invalid_command", "at least one command"},
		{"POST /batch", `{"commands": [null]}`, "", 400, "malformed", "commands[0]: found null"},
		{"POST /batch", `{"commands": [` + strings.Repeat(`{},`, 5) + `{}]}`, "", 400, "too_many", "found 6, allowed are 5"},
		{"POST /batch", `{"commands": [{"send": {` + toAnn + `, "text": "a"}}, {"send": {"to": {"usr": []}}}]}`, "", 400, "unknown_field", `commands[1].send.to: unknown field "usr"`},
		{"POST /batch", `{"commands": [{"send": {` + toAnn + `, "text": "a"}}, {"kick": {}}]}`, "", 400, "unknown_field", `commands[1]: unknown field "kick": allowed are bind, close`},
		{"POST /batch", `{"commands": [{"send": {` + toAnn + `, "text": "a"}}, {"send": {` + toAnn + `, "binary": "?"}}]}`, "", 400, "malformed", "binary: not base64"},
		{"GET /clients?usr=7", "", "", 400, "invalid_query", `unknown parameter "usr": allowed are endpoint, user, group, ip, fields, node, limit, cursor`},
		{"GET /clients?user=", "", "", 400, "invalid_query", "user: the value is empty"},
		{"GET /clients?user=7&user=8", "", "", 400, "invalid_query", "user: given 2 times"},
		{"GET /clients?endpoint=", "", "", 400, "invalid_query", "endpoint: the value is empty"},
		{"GET /clients?limit=x", "", "", 400, "invalid_query", `limit: "x" is no whole number`},
		{"GET /clients?limit=-1", "", "", 400, "invalid_query", `limit: "-1"`},
		{"GET /clients?limit=0", "", "", 400, "invalid_query", "limit: 0, allowed are 1 to 10000"},
		{"GET /groups?limit=0", "", "", 400, "invalid_query", "limit: 0, allowed are 1 to 10000"},
		{"GET /clients?cursor=xx", "", "", 400, "invalid_query", `cursor: "xx" is no id of a client: allowed is the next of the last answer`},
		{"GET /clients?limit=10001", "", "", 400, "invalid_query", "limit: 10001, allowed are 1 to 10000"},
		{"GET /clients?limit=99999999999999999999", "", "", 400, "invalid_query", "limit"},
		{"GET /clients?ip=localhost", "", "", 400, "invalid_query", `ip: "localhost" is no IP address`},
		{"GET /clients?fields=groups", "", "", 400, "invalid_query", "allowed is session"},
		{"GET /clients?user=%ff", "", "", 400, "invalid_query", "not UTF-8"},
		{"GET /clients?user=%zz", "", "", 400, "invalid_query", "the query cannot be read"},
		{"GET /clients?user=7;x=1", "", "", 400, "invalid_query", "the query cannot be read"},
		{"GET /clients/x?fields=session", "", "", 400, "invalid_query", "allowed are none"},
		{"GET /groups?prefix=a&prefix=b", "", "", 400, "invalid_query", "prefix"},
		{"GET /users?limit=1.5", "", "", 400, "invalid_query", "limit"},
		{"GET /count?all=true", "", "", 400, "invalid_query", "allowed are endpoint, client"},
		{"GET /count?except_user=7" + strings.Repeat("&except_user=7", 20), "", "", 400, "too_many", "found 21 names"},
		{"GET /stats?x=1", "", "", 400, "invalid_query", "allowed are endpoint"},
		{"GET /openapi.yaml?x", "", "", 400, "invalid_query", "allowed are none"},
		{"GET /tail?messages=yes", "", "", 400, "invalid_query", `messages: "yes" is neither true nor false`},
		{"GET /tail?payload=9", "", "", 400, "invalid_query", "payload: 9, allowed are 8 bytes"},
		{"POST /drain", `{"timeout": "soon"}`, "", 400, "invalid_command", "allowed are durations"},
		{"POST /drain", `{"timeout": "2h"}`, "", 400, "invalid_command", "up to 1h"},
		{"POST /drain", `{"timeout": "-1s"}`, "", 400, "invalid_command", "timeout"},
		{"POST /drain", `{"time": "1s"}`, "", 400, "unknown_field", "allowed are restart, timeout"},
		{"POST /drain", `restart=true`, "Content-Type: application/x-www-form-urlencoded", 415, "unsupported_media", "application/json"},
		{"POST /resume", `{"now": true}`, "", 400, "unknown_field", "allowed are none"},
		{"GET /", "", "", 404, "unknown_call", "POST /send, POST /close"},
		{"GET /Clients", "", "", 404, "unknown_call", "GET /clients/{id}"},
		{"POST /send/", "{}", "", 404, "unknown_call", "POST /send"},
		{"POST //send", "{}", "", 404, "unknown_call", "POST /send"},
		{"POST /x/../send", "{}", "", 404, "unknown_call", "POST /send"},
		{"GET /send", "", "", 405, "method_not_allowed", "POST, OPTIONS"},
		{"POST /clients", "{}", "", 405, "method_not_allowed", "GET, HEAD, OPTIONS"},
		{"POST /session", "{}", "", 405, "method_not_allowed", "PUT, PATCH, OPTIONS"},
		{"post /send", "{}", "", 405, "method_not_allowed", `"post" is no method`},
		{"CONNECT /send", "", "", 405, "method_not_allowed", "POST"},
	} {
		t.Run(fmt.Sprintf("%s %.60s", tt.line, tt.body), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tn := newTown(t, httpapi.Options{MaxBody: 100_000, MaxNames: 20, MaxCommands: 5, Operator: true, Payload: 8})
				method, path, _ := strings.Cut(tt.line, " ")
				r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(tt.body))
				r.Method = method
				r.URL.Path, r.URL.RawQuery, _ = strings.Cut(path, "?")
				if tt.body != "" {
					r.Header.Set("Content-Type", "application/json")
				}
				if name, value, ok := strings.Cut(tt.header, ": "); ok {
					r.Header.Set(name, value)
				}
				w := httptest.NewRecorder()
				tn.api.ServeHTTP(w, r)
				tn.refused(reply{w.Code, w.Header(), w.Body.String()}, tt.status, tt.code, tt.message)
				if w.Code != http.StatusNotFound && w.Code != http.StatusMethodNotAllowed && !documented(t, method, r.URL.Path, w.Code) {
					t.Errorf("%s can answer %d, and openapi.yaml does not say so", tt.line, w.Code)
				}
				if w.Body.Len() > 1000 {
					t.Errorf("the answer repeats %d bytes", w.Body.Len())
				}
				tn.wantReceived("")
				tn.wantEveUntouched(tt.line)
				tn.listed("/clients", "ann", "bob1", "bob2", "eve")
				ann := tn.client("ann")
				if got := fmt.Sprintf("%s %q %v %t", ann.User(), ann.Groups(), ann.Session().All(), tn.Gateway.Draining()); got != `7 ["room:1"] map[as:ann] false` {
					t.Errorf("it made ann %s", got)
				}
			})
		})
	}
}

// A body may come without a length, and too much of it is still too much.
func TestBodyOfUnknownLengthIsBoundedToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tn := newTown(t, httpapi.Options{MaxBody: 1000})
		for _, tt := range []struct {
			body   io.Reader
			status int
			code   string
		}{
			{bytes.NewReader(make([]byte, 1001)), http.StatusRequestEntityTooLarge, httpapi.CodeTooLarge},
			{io.MultiReader(strings.NewReader(`{"to"`), brokenBody{}), http.StatusBadRequest, httpapi.CodeMalformed},
		} {
			r := httptest.NewRequest(http.MethodPost, "/send", struct{ io.Reader }{tt.body})
			r.Header.Set("Content-Type", "Application/JSON ; charset=UTF-8")
			w := httptest.NewRecorder()
			tn.api.ServeHTTP(w, r)
			tn.refused(reply{w.Code, w.Header(), w.Body.String()}, tt.status, tt.code, "")
		}
	})
}

// brokenBody is a connection that is cut.
type brokenBody struct{}

func (brokenBody) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

// A program must learn that this node is no longer there, and try another.
func TestCommandsAfterShutdownAre503(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, err := gateway.New(gateway.Options{})
		if err != nil {
			t.Fatal(err)
		}
		api := httpapi.New(g, httpapi.Options{Operator: true})
		if got := ask(api, http.MethodPost, "/send", `{"to": {"all": true}, "text": "a"}`); got.body != "{\"clients\":0}\n" {
			t.Errorf("before: %d %s", got.status, got.body)
		}
		if err := g.Shutdown(t.Context()); err != nil {
			t.Fatal(err)
		}
		tn := &town{t: t}
		for _, path := range []string{"/send", "/drain", "/batch"} {
			got := ask(api, http.MethodPost, path, `{}`)
			tn.refused(got, http.StatusServiceUnavailable, httpapi.CodeShutdown, `gateway "default" is shut down`)
			if got.header.Get("Retry-After") == "" || !documented(t, http.MethodPost, path, got.status) {
				t.Errorf("%s: %v", path, got.header)
			}
		}
		start := time.Now()
		if got := ask(api, http.MethodGet, "/tail", ""); got.status != http.StatusOK || got.body != "" || time.Since(start) > 0 {
			t.Errorf("the tail answers %d %q after %s, want nothing at once", got.status, got.body, time.Since(start))
		}
		if got := ask(api, http.MethodGet, "/count", ""); got.body != "{\"clients\":0}\n" {
			t.Errorf("/count answers %d %s", got.status, got.body)
		}
	})
}
