package e2etest

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

// Tool returns the path of the first of names that is in PATH. If none is, the
// test is skipped, or fails if CI=true: a skip there would hide that nothing ran.
func Tool(t testing.TB, names ...string) string {
	t.Helper()
	for _, name := range names {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	missing := "not in PATH: " + strings.Join(names, " or ")
	if os.Getenv("CI") == "true" {
		t.Fatal(missing + " (CI=true: a missing tool is a failure)")
	}
	t.Skip(missing)
	return ""
}
