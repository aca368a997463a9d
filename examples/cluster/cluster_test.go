package main

import (
	"bytes"
	"strings"
	"testing"
)

// Who mistypes is told what was wrong, and not only what could be typed.
func TestWhatCannotBeDoneIsNamed(t *testing.T) {
	for line, want := range map[string]string{
		"foo":     `"foo" is not understood`,
		"2 3":     `"2 3" is not understood`,
		"kill":    `"kill" is not understood`,
		"kill x":  `"kill x" is not understood`,
		"7":       "there is no node 7: there are 1 to 2",
		"0":       "there is no node 0",
		"kill 7":  "there is no node 7",
		"kill 2":  "node 2 does not run",
		"nats":    "the NATS server is not ours",
		"":        "Ctrl-C ends all.",
		" ":       "Ctrl-C ends all.",
		" help  ": "Ctrl-C ends all.",
	} {
		var out bytes.Buffer
		c := &cluster{out: &out, nodes: []*node{{number: 1, out: &out}, {number: 2, out: &out}}}
		c.do(t.Context(), line)
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q prints %q, want %q", line, out.String(), want)
		}
		if help := strings.Contains(out.String(), "Ctrl-C"); help != strings.HasPrefix(want, "Ctrl-C") {
			t.Errorf("%q prints %q", line, out.String())
		}
	}
}

// The page and the configuration are found in the folder of the example only.
func TestWhoRunsItElsewhereIsToldWhereToRunIt(t *testing.T) {
	t.Chdir(t.TempDir())
	one := []string{"127.0.0.1:1"}
	err := run(t.Context(), one, one, one, ".", "")
	if err == nil || !strings.Contains(err.Error(), "run it in the folder examples/cluster") {
		t.Errorf("it says %v", err)
	}
}

// A site without an admin endpoint or a port of its own would be that of another node.
func TestEachNodeHasPortsOfItsOwn(t *testing.T) {
	one, two := []string{"127.0.0.1:1"}, []string{"127.0.0.1:1", "127.0.0.1:2"}
	for _, all := range [][3][]string{{two, one, one}, {one, two, one}, {one, one, two}} {
		if err := run(t.Context(), all[0], all[1], all[2], t.TempDir(), ""); err == nil || !strings.Contains(err.Error(), "each node has one of each") {
			t.Errorf("%d sites, %d admin endpoints, %d ports: %v", len(all[0]), len(all[1]), len(all[2]), err)
		}
	}
}
