package gatewaytest

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"
)

// Main runs a package's tests and exits, with an error if one of them has left a
// goroutine behind in which code of the gateway runs, or of a package whose path
// contains one of also:
//
//	func TestMain(m *testing.M) { gatewaytest.Main(m, "example.com/you/hello") }
func Main(m *testing.M, also ...string) {
	code := m.Run()
	if left := leaked(append(also, "caddy-websocket/gateway.")); code == 0 && left != "" {
		fmt.Fprintf(os.Stderr, "goroutines are left:\n%s\n", left)
		code = 1
	}
	os.Exit(code)
}

// leaked returns the stacks of goroutines that run code of the packages, waiting a
// moment for those that are about to end.
func leaked(packages []string) string {
	const tries, pause = 100, 20 * time.Millisecond
	var left []string
	for range tries {
		buf := make([]byte, 4<<20)
		left = nil
		for stack := range strings.SplitSeq(string(buf[:runtime.Stack(buf, true)]), "\n\n") {
			if !strings.Contains(stack, "gatewaytest.Main(") && containsAny(stack, packages) {
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

func containsAny(text string, parts []string) bool {
	for _, part := range parts {
		if strings.Contains(text, part) {
			return true
		}
	}
	return false
}
