package e2etest

import (
	"fmt"
	"os"
	"testing"
)

// workDir outlives the tests that use it: what is built once per process is in it.
var workDir string

// Main runs the tests of a package and then removes what its tests shared.
// A package that calls Binary or XCaddy has this TestMain:
//
//	func TestMain(m *testing.M) { os.Exit(e2etest.Main(m)) }
func Main(m *testing.M) int {
	dir, err := os.MkdirTemp("", "caddy-websocket-e2e")
	if err != nil {
		fmt.Fprintln(os.Stderr, "making the folder for builds:", err)
		return 1
	}
	defer os.RemoveAll(dir)
	workDir = dir
	return m.Run()
}
