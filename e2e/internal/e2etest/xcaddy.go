package e2etest

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// xcaddyTimeout is for compiling all of Caddy with an empty cache.
const xcaddyTimeout = 15 * time.Minute

const modulePath = "github.com/caddy-websocket/caddy-websocket"

// XCaddy builds Caddy with everything stock, by the command that the README gives to
// users of a checkout, and with packages of the product's module beside it, like
// examples/realip; each once per test process. It returns the path of the result.
//
// xcaddy is a tool of this module's go.mod. It sees no network: only modules that the
// checksums of our go.mod files have vouched for, as the module cache has them.
func XCaddy(t testing.TB, packages ...string) string {
	t.Helper()
	return built(t, "xcaddy "+strings.Join(packages, " "), func(path, root string) error {
		ctx, cancel := context.WithTimeout(context.Background(), xcaddyTimeout)
		defer cancel()
		tool := path + "-xcaddy"
		if _, err := run(ctx, filepath.Join(root, "e2e"), nil, "go", "build", "-o", tool, "github.com/caddyserver/xcaddy/cmd/xcaddy"); err != nil {
			return err
		}
		// xcaddy tidies a go.mod of its own, for which go reads more modules than our build does.
		if _, err := run(ctx, root, nil, "go", "mod", "download"); err != nil {
			return err
		}
		caddyVersion, err := run(ctx, root, nil, "go", "list", "-m", "-f", "{{.Version}}", "github.com/caddyserver/caddy/v2")
		if err != nil {
			return err
		}
		modCache, err := run(ctx, root, nil, "go", "env", "GOMODCACHE")
		if err != nil {
			return err
		}
		args := []string{"build", "--output", path, "--with", modulePath + "/caddymodule"}
		for _, pkg := range packages {
			args = append(args, "--with", modulePath+"/"+pkg)
		}
		_, err = run(ctx, root, []string{
			// The version of our go.mod, not the newest: a test must not change by itself.
			"CADDY_VERSION=" + caddyVersion,
			"GOPROXY=file://" + filepath.ToSlash(modCache) + "/cache/download",
			"GOSUMDB=off",
			"GOFLAGS=-mod=mod",
			"GOWORK=off",
		}, tool, append(args, "--replace", modulePath+"=.")...)
		return err
	})
}

// run returns what the command printed on its standard output, trimmed.
func run(ctx context.Context, dir string, env []string, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), env...)
	var stdout, stderr strings.Builder
	cmd.Stdout = &stdout
	cmd.Stderr = &stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s: %w\n%s%s", cmd, err, &stdout, &stderr)
	}
	return strings.TrimSpace(stdout.String()), nil
}
