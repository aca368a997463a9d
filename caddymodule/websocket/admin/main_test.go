package admin_test

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
)

// home is where Caddy keeps its things.
var home string

// TestMain fails if a test left a goroutine of ours behind.
func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	var err error
	if home, err = os.MkdirTemp("", "admintest"); err != nil {
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
	for deadline := time.Now().Add(10 * time.Second); code == 0; time.Sleep(10 * time.Millisecond) {
		left := ours()
		if left == "" {
			break
		}
		if time.Now().After(deadline) {
			fmt.Fprintf(os.Stderr, "goroutines are left:\n%s\n", left)
			code = 1
		}
	}
	return code
}

// ours returns the stacks of goroutines that run code of this module, without the
// tests' own.
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
