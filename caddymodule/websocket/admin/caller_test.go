package admin_test

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// fake is an admin endpoint that answers as the test says.
func fake(t testing.TB, handler http.HandlerFunc) (address string) {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	return server.Listener.Addr().String()
}

// The most common mistake is another address: the error must say which was tried and
// what to do.
func TestUnreachableServerIsExplained(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := listener.Addr().String()
	listener.Close()
	for _, line := range []string{"list", "list users", "show a", "stats", "nodes", "send --all a", "close --all", "tail", "drain", "drain --resume"} {
		got := runCommand(t, "", append(strings.Fields(line), "--address", nobody)...)
		if got.code != 1 || got.out != "" || !strings.Contains(got.errs, nobody) || !strings.Contains(got.errs, "is Caddy running?") || !strings.Contains(got.errs, "--address") {
			t.Errorf("caddy websocket %s: %s", line, got)
		}
	}
}

// What else may listen there: Caddy with a check that fails, Caddy without this
// module, something else altogether.
func TestAnswersOfOthersAreExplained(t *testing.T) {
	for _, tt := range []struct {
		status     int
		body, want string
	}{
		{http.StatusForbidden, `{"error":"host not allowed: \u001b[2J"}`, `answered 403: host not allowed: \x1b[2J`},
		{http.StatusNotFound, "404 page not found\n", "a binary without this module"},
		{http.StatusBadGateway, "<html>nginx\x1b</html>", `answered 502: <html>nginx\x1b</html>`},
		{http.StatusOK, "welcome", "reading the answer of the admin endpoint"},
	} {
		address := fake(t, func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(tt.status)
			_, _ = w.Write([]byte(tt.body))
		})
		if got := runCommand(t, "", "stats", "--address", address); got.code != 1 || !strings.Contains(got.errs, tt.want) {
			t.Errorf("after %q: %s", tt.body, got)
		}
	}
}

// Over a hundred thousand clients come in pages: all of them, and not more than asked
// for.
func TestListFollowsPagesUpToTheLimit(t *testing.T) {
	for args, want := range map[string]string{
		"":              "limit=10000 cursor=, limit=10000 cursor=10000, limit=10000 cursor=20000: 25000 clients",
		"--limit 5":     "limit=5 cursor=: 5 clients",
		"--limit 12000": "limit=10000 cursor=, limit=2000 cursor=10000: 12000 clients",
		"--limit 30000": "limit=10000 cursor=, limit=10000 cursor=10000, limit=10000 cursor=20000: 25000 clients",
	} {
		var asked []string
		address := fake(t, func(w http.ResponseWriter, r *http.Request) {
			q := r.URL.Query()
			asked = append(asked, fmt.Sprintf("limit=%s cursor=%s", q.Get("limit"), q.Get("cursor")))
			var limit, from int
			_, _ = fmt.Sscan(q.Get("limit"), &limit)
			_, _ = fmt.Sscan(q.Get("cursor"), &from)
			to := min(from+limit, 25000)
			var entries []string
			for i := from; i < to; i++ {
				entries = append(entries, fmt.Sprintf(`{"id":"%d"}`, i))
			}
			next := ""
			if to < 25000 {
				next = fmt.Sprint(to)
			}
			fmt.Fprintf(w, `{"clients":[%s],"next":%q}`, strings.Join(entries, ","), next)
		})
		got := runCommand(t, "", append([]string{"list", "--json", "--address", address}, strings.Fields(args)...)...)
		if n := strings.Count(got.out, "\n"); fmt.Sprintf("%s: %d clients", strings.Join(asked, ", "), n) != want || got.code != 0 {
			t.Errorf("list %s asked for %s and printed %d, want %s", args, strings.Join(asked, ", "), n, want)
		}
	}
}

// A reload can cut the connection before the answer: the command is sent again, under
// the same key, so that the server does it once.
func TestCommandIsSentAgainUnderTheSameKey(t *testing.T) {
	var keys []string
	address := fake(t, func(w http.ResponseWriter, r *http.Request) {
		keys = append(keys, r.Header.Get("Idempotency-Key"))
		if len(keys) < 3 {
			panic(http.ErrAbortHandler)
		}
		fmt.Fprint(w, `{"clients":1}`)
	})
	got := runCommand(t, "", "send", "--all", "hello", "--address", address)
	if got.code != 0 || len(keys) != 3 || keys[0] == "" || keys[0] != keys[1] || keys[1] != keys[2] {
		t.Errorf("keys %q: %s", keys, got)
	}
}

// The address is found as by caddy reload: in the configuration.
func TestAddressComesFromTheConfiguration(t *testing.T) {
	s := start(t, twoGateways)
	caddyfile := filepath.Join(t.TempDir(), "Caddyfile")
	for _, address := range []string{"unix/" + s.path("admin"), "unix/" + s.path("admin") + "|0600", "unix/{$ADMIN_TEST_SOCKET}", "unix/{env.ADMIN_TEST_SOCKET}"} {
		t.Setenv("ADMIN_TEST_SOCKET", s.path("admin"))
		if err := os.WriteFile(caddyfile, fmt.Appendf(nil, "{\n\tadmin %s\n}\n", address), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := runCommand(t, "", "stats", "--config", caddyfile); got.code != 0 || !strings.Contains(got.out, "gateway other") {
			t.Errorf("admin %s: %s", address, got)
		}
	}
	if got := runCommand(t, "", "stats", "--config", caddyfile+".missing"); got.code != 1 || !strings.Contains(got.errs, "finding the address of the admin endpoint") {
		t.Errorf("without the file: %s", got)
	}
}
