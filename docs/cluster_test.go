package docs_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Whoever greps a log, or alerts on a line of it, takes the line from the page.
func TestLinesOfTheLogInClusterAreThoseOfTheCode(t *testing.T) {
	var code strings.Builder
	for _, dir := range []string{"../gateway", "../gateway/natsbroker"} {
		files, err := filepath.Glob(filepath.Join(dir, "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			if strings.HasSuffix(file, "_test.go") {
				continue
			}
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			code.Write(text)
		}
	}
	for _, row := range table(t, "cluster.md", "### In the log") {
		for _, line := range spans(row[0]) {
			if !strings.Contains(code.String(), `"`+line+`"`) {
				t.Errorf("cluster.md: nothing logs %q", line)
			}
		}
		for _, name := range spans(row[2]) {
			if !strings.Contains(code.String(), `"`+name+`"`) && name != "send_buffer" && name != "receive_buffer" && name != "prefix" {
				t.Errorf("cluster.md: no line has %q", name)
			}
		}
	}
}

// Metrics that a page tells to watch exist: metrics.md is held to the code.
func TestMetricsInClusterExist(t *testing.T) {
	known := read(t, "metrics.md")
	for _, name := range spans(read(t, "cluster.md")) {
		if strings.HasPrefix(name, "caddy_websocket_") && name != "caddy_websocket_cluster_*" && !strings.Contains(known, "`"+name+"`") {
			t.Errorf("cluster.md: there is no metric %s", name)
		}
	}
}
