package httpapi_test

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"
)

// TestMain fails if a test left a goroutine of ours behind.
func TestMain(m *testing.M) {
	code := m.Run()
	if left := leaked(); code == 0 && left != "" {
		fmt.Fprintf(os.Stderr, "goroutines are left:\n%s\n", left)
		code = 1
	}
	os.Exit(code)
}

// leaked returns the stacks of goroutines that run code of this module, waiting
// a moment for those that are about to end.
func leaked() string {
	const tries, pause = 100, 20 * time.Millisecond
	var left []string
	for range tries {
		buf := make([]byte, 4<<20)
		left = nil
		for stack := range strings.SplitSeq(string(buf[:runtime.Stack(buf, true)]), "\n\n") {
			if strings.Contains(stack, "caddy-websocket/gateway") && !strings.Contains(stack, "httpapi_test.TestMain") {
				left = append(left, stack)
			}
		}
		if len(left) == 0 {
			return ""
		}
		time.Sleep(pause)
	}
	return strings.Join(left, "\n\n")
}
