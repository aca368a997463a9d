package e2etest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// Binary builds cmd/caddy as Program does.
func Binary(t testing.TB) string {
	t.Helper()
	return Program(t, "./cmd/caddy")
}

// repoRoot returns the folder of the product's go.mod: the parent of this module's.
// go test runs a test in the folder of its package, which is somewhere below.
func repoRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("finding the repository: %w", err)
	}
	for ; dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return filepath.Dir(dir), nil
		}
	}
	return "", errors.New("finding the repository: no go.mod above the test")
}

// RepoRoot returns the folder of the repository, where Caddyfile.example is.
func RepoRoot(t testing.TB) string {
	t.Helper()
	root, err := repoRoot()
	if err != nil {
		t.Fatal(err)
	}
	return root
}
