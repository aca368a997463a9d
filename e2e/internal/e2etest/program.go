package e2etest

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// Program builds a main package of the product's module, like ./examples/chat/cmd/caddy,
// once per test process and with the race detector if the test has it too. It returns
// the path of the result. Flags are go build's.
func Program(t testing.TB, pkg string, flags ...string) string {
	t.Helper()
	return built(t, strings.Join(append(flags, pkg), " "), func(path, root string) error { return build(path, root, pkg, flags...) })
}

// Module builds the main package of a folder of the repository that has a go.mod of its
// own, as Program does.
func Module(t testing.TB, dir string) string {
	t.Helper()
	return built(t, dir, func(path, root string) error { return build(path, filepath.Join(root, dir), ".") })
}

func build(path, dir, pkg string, flags ...string) error {
	args := append([]string{"build", "-o", path}, flags...)
	if raceEnabled {
		args = append(args, "-race")
	}
	cmd := exec.CommandContext(context.Background(), "go", append(args, pkg)...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("building %s in %s: %w\n%s", pkg, dir, err, out)
	}
	return nil
}

// programs are what built has built, by what it was called.
var programs struct {
	mu    sync.Mutex
	paths map[string]func() (string, error) // guarded by mu
}

// built returns the path of a program that build makes, once per test process.
func built(t testing.TB, name string, build func(path, root string) error) string {
	t.Helper()
	programs.mu.Lock()
	once, ok := programs.paths[name]
	if !ok {
		n := len(programs.paths)
		once = sync.OnceValues(func() (string, error) {
			if workDir == "" {
				return "", errors.New("the package has no TestMain that calls e2etest.Main")
			}
			root, err := repoRoot()
			if err != nil {
				return "", err
			}
			path := filepath.Join(workDir, fmt.Sprintf("program-%d", n))
			return path, build(path, root)
		})
		if programs.paths == nil {
			programs.paths = make(map[string]func() (string, error))
		}
		programs.paths[name] = once
	}
	programs.mu.Unlock()
	path, err := once()
	if err != nil {
		t.Fatal(err)
	}
	return path
}
