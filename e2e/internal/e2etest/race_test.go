package e2etest

import (
	"strings"
	"testing"
)

// A race in Caddy itself is no failure of ours, and one of ours must not hide behind it.
func TestOnlyRacesWithOurCodeAreReported(t *testing.T) {
	const line = "==================\n"
	theirs := "WARNING: DATA RACE\nWrite at 0x1 by goroutine 7:\n  github.com/caddyserver/caddy/v2/modules/caddytls.(*TLS).Start()\n"
	ours := "WARNING: DATA RACE\nRead at 0x2 by goroutine 8:\n  github.com/caddy-websocket/caddy-websocket/gateway.(*Client).run()\n"
	output := "{\"level\":\"info\"}\n" + line + theirs + line + "{}\n" + line + ours + line + "{}"
	found := ourRaces([]byte(output))
	if len(found) != 1 || !strings.Contains(string(found[0]), "gateway.(*Client).run()") {
		t.Errorf("found %q, want the second", found)
	}
}
