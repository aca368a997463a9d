package websocket_test

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	_ "github.com/caddyserver/caddy/v2/modules/standard"

	_ "github.com/caddy-websocket/caddy-websocket/caddymodule"
	_ "github.com/caddy-websocket/caddy-websocket/gateway/extendedconnect"
)

// home is where Caddy keeps what a configuration does not say where to keep, and
// its authority for certificates, which one run of the tests makes once.
var home string

// TestMain fails if a test left a goroutine of ours behind.
func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) int {
	if config := os.Getenv(childConfig); config != "" {
		return runChild(config)
	}
	var err error
	if home, err = os.MkdirTemp("", "caddytest"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(home)
	for _, name := range []string{"HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME"} {
		_ = os.Setenv(name, home)
	}
	caddy.ConfigAutosavePath = filepath.Join(home, "autosave.json")
	code := m.Run()
	_ = caddy.Stop() // says nothing that a test does not see
	if left := goroutines(); code == 0 && left != "" {
		fmt.Fprintf(os.Stderr, "goroutines are left:\n%s\n", left)
		code = 1
	}
	return code
}

// ours returns the stacks of goroutines that run code of this module, without
// the tests' own.
func ours() string {
	var left []string
	buf := make([]byte, 8<<20)
	for stack := range strings.SplitSeq(string(buf[:runtime.Stack(buf, true)]), "\n\n") {
		if strings.Contains(stack, "caddy-websocket/gateway") || strings.Contains(stack, "caddymodule/") && !strings.Contains(stack, "_test.") {
			left = append(left, stack)
		}
	}
	return strings.Join(left, "\n\n")
}

func countOurs() int {
	if stacks := ours(); stacks != "" {
		return strings.Count(stacks, "\n\n") + 1
	}
	return 0
}

// goroutines returns ours, when it has waited a moment for those that are about
// to end.
func goroutines() string {
	const bound, pause = 10 * time.Second, 10 * time.Millisecond
	for deadline := time.Now().Add(bound); ; time.Sleep(pause) {
		if left := ours(); left == "" || time.Now().After(deadline) {
			return left
		}
	}
}
