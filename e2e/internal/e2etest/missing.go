package e2etest

import (
	"os"
	"testing"
)

// Missing ends a test for which something is not installed, as Tool does: it is skipped,
// or fails if CI=true.
func Missing(t testing.TB, what string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal("missing: " + what + " (CI=true: what is missing is a failure)")
	}
	t.Skip("missing: " + what)
}
