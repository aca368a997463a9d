package e2etest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

// Program builds a main package of the product's module, like ./examples/chat/cmd/caddy,
// once per test process and with the race detector if the test has it too. It returns
// the path of the result.
func Program(t testing.TB, pkg string) string {
	t.Helper()
	return built(t, pkg, func(path, root string) error {
		args := []string{"build", "-o", path}
		if raceEnabled {
			args = append(args, "-race")
		}
		cmd := exec.CommandContext(context.Background(), "go", append(args, pkg)...)
		cmd.Dir = root
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("building %s: %w\n%s", pkg, err, out)
		}
		return nil
	})
}

// XCaddyWith is XCaddy with a package of the product's module beside everything stock.
func XCaddyWith(t testing.TB, pkg string) string {
	t.Helper()
	XCaddy(t) // builds the tool, and has all modules downloaded
	return built(t, "xcaddy "+pkg, func(path, root string) error {
		ctx, cancel := context.WithTimeout(context.Background(), xcaddyTimeout)
		defer cancel()
		caddyVersion, err := run(ctx, root, nil, "go", "list", "-m", "-f", "{{.Version}}", "github.com/caddyserver/caddy/v2")
		if err != nil {
			return err
		}
		modCache, err := run(ctx, root, nil, "go", "env", "GOMODCACHE")
		if err != nil {
			return err
		}
		_, err = run(ctx, root, []string{
			"CADDY_VERSION=" + caddyVersion,
			"GOPROXY=file://" + filepath.ToSlash(modCache) + "/cache/download",
			"GOSUMDB=off",
			"GOFLAGS=-mod=mod",
			"GOWORK=off",
		}, filepath.Join(workDir, "xcaddy"), "build", "--output", path,
			"--with", modulePath+"/caddymodule", "--with", modulePath+"/"+pkg, "--replace", modulePath+"=.")
		return err
	})
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

// StartProgram is StartCaddy for another Caddy than Binary, like those of Program and
// XCaddyWith.
func StartProgram(t testing.TB, bin, dir, caddyfile string, env ...string) *Caddy {
	t.Helper()
	private, err := os.MkdirTemp("", "caddy") //nolint:usetesting // with a test name in it, the path of the socket may be too long
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(private) })

	c := &Caddy{
		t:       t,
		private: private,
		dir:     dir,
		admin:   filepath.Join(private, "admin.sock"),
		exited:  make(chan struct{}),
	}
	c.env = append(os.Environ(),
		"HOME="+private,
		"XDG_DATA_HOME="+filepath.Join(private, "data"),
		"XDG_CONFIG_HOME="+filepath.Join(private, "config"),
		"XDG_CACHE_HOME="+filepath.Join(private, "cache"),
		"CADDY_ADMIN=unix/"+c.admin,
		"WS_ADMIN=unix/"+c.admin,
	)
	c.env = append(c.env, env...)
	c.writeConfig(caddyfile)

	c.cmd = exec.Command(bin, "run", "--config", c.configPath(), "--adapter", "caddyfile")
	c.cmd.Dir = dir
	c.cmd.Env = c.env
	c.cmd.Stdout = &c.log
	c.cmd.Stderr = &c.log
	if err := c.cmd.Start(); err != nil {
		t.Fatalf("starting caddy: %v", err)
	}
	go func() {
		c.exitErr = c.cmd.Wait()
		close(c.exited)
	}()
	t.Cleanup(c.finish)

	if err := c.waitReady(); err != nil {
		t.Fatalf("starting caddy: %v", err)
	}
	c.waitCertificates()
	return c
}
