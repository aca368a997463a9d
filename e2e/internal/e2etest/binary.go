package e2etest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

// Binary builds cmd/caddy, once per test process and with the race detector if the
// test has it too, and returns the path of the result.
func Binary(t testing.TB) string {
	t.Helper()
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

var binary = sync.OnceValues(func() (string, error) {
	if workDir == "" {
		return "", errors.New("the package has no TestMain that calls e2etest.Main")
	}
	root, err := repoRoot()
	if err != nil {
		return "", err
	}
	path := filepath.Join(workDir, "caddy")
	args := []string{"build", "-o", path}
	if raceEnabled {
		args = append(args, "-race")
	}
	// In the root module, not from here: the versions are those that users get.
	cmd := exec.Command("go", append(args, "./cmd/caddy")...)
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building cmd/caddy: %w\n%s", err, out)
	}
	return path, nil
})

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
