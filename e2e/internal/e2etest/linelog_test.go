package e2etest

import (
	"fmt"
	"slices"
	"testing"
)

// A process writes in whatever pieces; entries are whole lines all the same.
func TestLineLogSplitsAtLineEnds(t *testing.T) {
	var log lineLog
	for _, piece := range []string{"on", "e\ntwo\nth", "", "ree", "\n", "unended"} {
		if n, err := fmt.Fprint(&log, piece); n != len(piece) || err != nil {
			t.Fatalf("Write(%q): %d, %v", piece, n, err)
		}
	}
	lines, _ := log.since(0)
	got := make([]string, 0, len(lines))
	for _, line := range lines {
		got = append(got, string(line))
	}
	if want := []string{"one", "two", "three"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if rest, _ := log.since(3); len(rest) != 0 {
		t.Errorf("after the last line: got %q, want nothing", rest)
	}
}

// Whoever waits for a line is woken by it, and not before.
func TestLineLogTellsOfTheNextLine(t *testing.T) {
	var log lineLog
	_, more := log.since(0)
	fmt.Fprint(&log, "half")
	select {
	case <-more:
		t.Error("woken by half a line")
	default:
	}
	fmt.Fprint(&log, " and half\n")
	select {
	case <-more:
	default:
		t.Error("not woken by a line")
	}
}
