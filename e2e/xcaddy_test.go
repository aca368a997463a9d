package e2e

import (
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/caddy-websocket/caddy-websocket/e2e/internal/e2etest"
)

// Whoever builds Caddy with xcaddy names one package and gets all that is stock.
func TestXCaddyBuildHasEveryStockModule(t *testing.T) {
	modules := strings.Fields(output(t, e2etest.XCaddy(t), "list-modules"))
	for _, id := range []string{
		"http.handlers.websocket",
		"websocket",
		"websocket.logic.echo",
		"websocket.logic.reply",
		"websocket.logic.rooms",
	} {
		if !slices.Contains(modules, id) {
			t.Errorf("caddy list-modules does not list %s", id)
		}
	}
}

// The version is Caddy's, which is what a user compares with Caddy's release notes.
func TestXCaddyBuildTellsCaddysVersion(t *testing.T) {
	if version := output(t, e2etest.XCaddy(t), "version"); !strings.HasPrefix(version, "v2.") {
		t.Errorf("caddy version: got %q, want v2 and more", version)
	}
}

// output runs a command that needs no configuration.
func output(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}
