package extendedconnect_test

import (
	"os"
	"os/exec"
	"reflect"
	"slices"
	"testing"

	_ "github.com/caddy-websocket/caddy-websocket/gateway/extendedconnect"
	"github.com/caddy-websocket/caddy-websocket/gateway/extendedconnect/internal/offer"
)

// Whether the import works is decided by the order in which Go initializes packages
// and by what net/http and golang.org/x/net/http2, which Caddy serves with, look at in
// their init. If one of them takes the way away, browsers go back to HTTP/1.1 and
// nobody is told: this test is.
func TestImportIsEnough(t *testing.T) {
	for name, err := range offer.Ask(t) {
		if err != nil {
			t.Errorf("%s offers no extended CONNECT: %v", name, err)
		}
	}
}

// An operator can turn off by the environment what was built in, and keeps what the
// environment says otherwise.
func TestEnvironmentHasTheLastWord(t *testing.T) {
	if godebug := os.Getenv("EXTENDEDCONNECT_TEST"); godebug != "" {
		report(t, godebug)
		return
	}
	for given, want := range map[string][]string{
		"GODEBUG=http2xconnect=0":                    {"off", "http2xconnect=0"},
		"GODEBUG=http2xconnect=1":                    {"on", "http2xconnect=1"},
		"GODEBUG=":                                   {"on", "http2xconnect=1"},
		"GODEBUG=madvdontneed=1":                     {"on", "madvdontneed=1,http2xconnect=1"},
		"GODEBUG=madvdontneed=1,http2xconnect=0,a=b": {"off", "madvdontneed=1,http2xconnect=0,a=b"},
	} {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestEnvironmentHasTheLastWord$", "-test.v") //nolint:gosec // this program
		cmd.Env = append(slices.DeleteFunc(os.Environ(), func(s string) bool { return len(s) > 8 && s[:8] == "GODEBUG=" }),
			given, "EXTENDEDCONNECT_TEST="+want[0]+" "+want[1])
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("with %q: %v\n%s", given, err, out)
		}
	}
}

// report is what the other process does.
func report(t *testing.T, want string) {
	t.Helper()
	got := map[bool]string{true: "on ", false: "off "}
	for name, err := range offer.Ask(t) {
		if state := got[err == nil] + os.Getenv("GODEBUG"); state != want {
			t.Errorf("%s: %s (%v), want %s", name, state, err, want)
		}
	}
}

// What the package imports is initialized before it. It must be nothing that has to
// wait for more than net/http2 itself waits for.
func TestImportsOnlyOS(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "go", "list", "-f", "{{.Imports}}", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	if got := string(out); !reflect.DeepEqual(got, "[os]\n") {
		t.Errorf("imports %s, want os alone", got)
	}
}
