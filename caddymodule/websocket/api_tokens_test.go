package websocket_test

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A token is all that stands between a stranger and everybody's sockets: nothing
// else than the token, in its header, will do, and nothing is done before it was
// seen.
func TestPushNeedsTheToken(t *testing.T) {
	t.Setenv("WS_PUSH_TOKEN", pushToken)
	s := start(t, pushSite("token {env.WS_PUSH_TOKEN}\n\t\ttoken "+strings.Repeat("z", 40)))
	tom := s.dial("ws:/chat?user=tom")
	api := s.caller(t, "http:/push", "")
	const send = `{"to": {"all": true}, "text": "from a stranger"}`
	for _, tt := range []struct {
		name      string
		header    []string
		query     string
		challenge string
	}{
		{"nothing", nil, "", "Bearer"},
		{"nothing behind the name", []string{"Authorization: "}, "", "Bearer"},
		{"the scheme alone", []string{"Authorization: Bearer"}, "", "Bearer"},
		{"an empty token", []string{"Authorization: Bearer "}, "", "Bearer"},
		{"another token", []string{"Authorization: Bearer " + otherToken}, "", `Bearer error="invalid_token"`},
		{"the beginning", []string{"Authorization: Bearer " + pushToken[:len(pushToken)-1]}, "", `Bearer error="invalid_token"`},
		{"more than it", []string{"Authorization: Bearer " + pushToken + "x"}, "", `Bearer error="invalid_token"`},
		{"more behind it", []string{"Authorization: Bearer " + pushToken + " x"}, "", `Bearer error="invalid_token"`},
		{"upper case", []string{"Authorization: Bearer " + strings.ToUpper(pushToken)}, "", `Bearer error="invalid_token"`},
		{"the placeholder", []string{"Authorization: Bearer {env.WS_PUSH_TOKEN}"}, "", `Bearer error="invalid_token"`},
		{"both tokens", []string{"Authorization: Bearer " + pushToken + strings.Repeat("z", 40)}, "", `Bearer error="invalid_token"`},
		{"no scheme", []string{"Authorization: " + pushToken}, "", "Bearer"},
		{"another scheme", []string{"Authorization: Token " + pushToken}, "", "Bearer"},
		{"a password", []string{"Authorization: Basic dG9tOjAxMjM0NTY3ODlhYmNkZWYtZmlyc3Q="}, "", "Bearer"},
		{"two headers", []string{"Authorization: Bearer " + otherToken, "Authorization: Bearer " + pushToken}, "", "Bearer"},
		{"a comma", []string{"Authorization: Bearer " + otherToken + ", Bearer " + pushToken}, "", `Bearer error="invalid_token"`},
		{"a header like it", []string{"X-Authorization: Bearer " + pushToken, "Proxy-Authorization: Bearer " + pushToken}, "", "Bearer"},
		{"a cookie", []string{"Cookie: token=" + pushToken}, "", "Bearer"},
		{"the query", nil, "?token=" + pushToken, "Bearer"},
		{"the query as in RFC 6750", nil, "?access_token=" + pushToken, "Bearer"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			api := *api
			api.t = t
			for _, call := range []struct{ method, path, body string }{
				{"POST", "/send", send},
				{"GET", "/count", ""},
				{"GET", "/openapi.yaml", ""},
				{"OPTIONS", "/send", ""},
				{"GET", "/no-such-call", ""},
			} {
				a := api.ask(call.method, call.path+tt.query, call.body, tt.header...)
				api.refused(a, http.StatusUnauthorized, "unauthorized")
				if got := a.resp.Header.Get("WWW-Authenticate"); got != tt.challenge {
					t.Errorf("WWW-Authenticate is %q, want %q", got, tt.challenge)
				}
			}
		})
	}

	for _, header := range []string{"Bearer " + pushToken, "bearer " + pushToken, "BEARER   " + pushToken, "Bearer " + strings.Repeat("z", 40)} {
		if a := api.ask("POST", "/send", strings.Replace(send, "from a stranger", "ours", 1), "Authorization: "+header); a.body != "{\"clients\":1}\n" {
			t.Errorf("%q is answered with %s %s", header, a.resp.Status, a.body)
		}
		tom.want("ours") // and nothing of a stranger's before
	}
	// With the token in the query, too, it is refused: it would be in logs by now.
	api.token = pushToken
	api.refused(api.ask("GET", "/count?token=x", ""), http.StatusBadRequest, "invalid_query")
	wantNoTokens(t, s)
}

// Who guesses is seen in the log, and cannot fill the disk with it.
func TestRefusedCallsAreLoggedByAddressAndNotEach(t *testing.T) {
	s := startWith(t, "servers {\n\t\ttrusted_proxies static 127.0.0.1/32\n\t}", pushSite("token "+pushToken))
	api := s.caller(t, "http:/push", otherToken)
	const tries = 60
	for range tries {
		api.ask("GET", "/count", "", "X-Forwarded-For: 198.51.100.1")
	}
	const msg = "a call of the push API was refused"
	lines := s.log.find(msg, "level", "warn", "client_ip", "198.51.100.1", "error", "the token is wrong")
	if n := len(lines); n == 0 || n > tries/2 {
		t.Errorf("%d of %d attempts are logged, want one a second", n, tries)
	}
	api.token = ""
	api.ask("GET", "/count", "", "X-Forwarded-For: 198.51.100.2")
	if s.log.wait(t, msg, "client_ip", "198.51.100.2")["error"] == "the token is wrong" {
		t.Error("a missing token is called wrong")
	}
}

// A token that is not there must never become one that everybody has, and the error
// that says so must not show the others.
func TestTokensThatWillNotDoAreRefused(t *testing.T) {
	dir := t.TempDir()
	file := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for name, value := range map[string]string{
		"WS_EMPTY": "", "WS_SHORT": "short-short-sho", "WS_SPACE": "with a space in the middle",
		"WS_TAB": "tab-at-the-end-of-it\t", "WS_LINES": "two-lines-in-one\ntwo-lines-in-one", "WS_UMLAUT": "nicht-nur-ASCII-äöü",
		"WS_LONG": strings.Repeat("long", 1025), "WS_GOOD": pushToken,
	} {
		t.Setenv(name, value)
	}
	t.Setenv("WS_UNSET", "")
	if err := os.Unsetenv("WS_UNSET"); err != nil {
		t.Fatal(err)
	}
	s := newServer(t)
	for _, tt := range []struct{ options, want string }{
		{"token {env.WS_UNSET}", "token 1, {env.WS_UNSET}: the placeholder {env.WS_UNSET} is empty"},
		{"token {env.WS_EMPTY}", "token 1, {env.WS_EMPTY}: the placeholder {env.WS_EMPTY} is empty"},
		{"token {env.WS_GOOD} {env.WS_EMPTY}", "token 2, {env.WS_EMPTY}"},
		{"token {env.WS_GOOD}\n\t\ttoken {env.WS_SHORT}", "token 2, {env.WS_SHORT}: it has 15 characters: allowed are 16 to 4096"},
		{"token a-prefix-that-is-secret-{env.WS_EMPTY}", "token 1: the placeholder {env.WS_EMPTY} is empty"},
		{"token {env.WS_SPACE}", "token 1, {env.WS_SPACE}: there is a space, a control character"},
		{"token {env.WS_TAB}", "token 1, {env.WS_TAB}: there is a space"},
		{"token {env.WS_LINES}", "token 1, {env.WS_LINES}: there is a space"},
		{"token {env.WS_UMLAUT}", "token 1, {env.WS_UMLAUT}: there is a space"},
		{"token {env.WS_LONG}", "token 1, {env.WS_LONG}: it has 4100 characters"},
		{"token {$WS_UNSET}", "token: nothing follows; if a {$VARIABLE} does, it is not set"},
		{"token \"{$WS_UNSET}\"", "token: the value is empty"},
		{"token {$WS_SHORT}", "token: it has 15 characters"},
		{"token {env.IN_JSON}-0123456789", "token 1: {$IN_JSON} is replaced in Caddyfiles only"},
		{"token {file." + filepath.Join(dir, "missing") + "}", "the file of the placeholder {file." + filepath.Join(dir, "missing") + "} cannot be read"},
		{"token {file." + file("empty", "\n") + "}", "the placeholder {file." + filepath.Join(dir, "empty") + "} is empty"},
		{"token {file." + file("lines", pushToken+"\n\n") + "}", "there is a space, a control character"},
		{"token {file." + file("two", pushToken+"\n"+pushToken+"\n") + "}", "there is a space, a control character"},
		{"token {query.token}", "the placeholder {http.request.uri.query.token} is about a request"},
		{"token {header.Authorization}", "the placeholder {http.request.header.Authorization} is about a request"},
		{"token {client_ip}0123456789abcdef", "the placeholder {http.vars.client_ip} is about a request"},
		{"token {system.hostname}0123456789abcdef", "there is a placeholder of another kind"},
		{"token my-{own}-braces-0123456789", "there is a placeholder of another kind"},
		{"token short", "token: it has 5 characters"},
		{"token \"a space in the middle of it\"", "token: there is a space"},
		{"", "write insecure_no_token if something else keeps strangers out"},
		{"gateway default", "give at least one token"},
		{"token {env.WS_GOOD}\n\t\tinsecure_no_token", "token and insecure_no_token contradict each other"},
	} {
		config, err := adapt(t, s.caddyfile("", pushSite(tt.options)))
		if err == nil {
			err = s.loadJSON(bytes.ReplaceAll(config, []byte("{env.IN_JSON}"), []byte("{$IN_JSON}")))
		}
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: the error is %v, want %q", tt.options, err, tt.want)
			continue
		}
		for _, secret := range []string{pushToken, "short-short", "the middle", "at-the-end", "-in-one", "nicht", "longlong", "secret", "own}", "-0123456789"} {
			if strings.Contains(err.Error(), secret) {
				t.Errorf("%s: the error shows %q: %v", tt.options, secret, err)
			}
		}
	}
}

// Secrets come in files with a newline at the end, and are replaced one by one.
func TestTokensComeFromWhereTheyAreKept(t *testing.T) {
	dir := t.TempDir()
	for name, content := range map[string]string{"plain": "from-a-file-0123456789", "lf": "with-a-newline-0123456789\n", "crlf": "written-on-windows-0123456789\r\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("WS_PUSH_TOKEN", "from-the-environment-0123456789")
	s := start(t, pushSite(fmt.Sprintf("token {file.%[1]s/plain} {file.%[1]s/lf}\n\t\ttoken {file.%[1]s/crlf}\n\t\ttoken {env.WS_PUSH_TOKEN} {$WS_PUSH_TOKEN}-2 a-{env.WS_PUSH_TOKEN}-b", dir)))
	for _, token := range []string{
		"from-a-file-0123456789", "with-a-newline-0123456789", "written-on-windows-0123456789",
		"from-the-environment-0123456789", "from-the-environment-0123456789-2", "a-from-the-environment-0123456789-b",
	} {
		s.caller(t, "http:/push", token).want("GET", "/count", "", `{"clients": 0}`)
	}
}
