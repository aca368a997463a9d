package e2etest

import (
	"strings"
	"testing"
)

// As for tools: a user gets a skip, CI a failure, and both are told what to install.
func TestWhatIsMissingSkipsExceptInCI(t *testing.T) {
	for ci, want := range map[string]string{"": "skip", "true": "fatal"} {
		t.Setenv("CI", ci)
		tb := &verdict{TB: t}
		done := make(chan struct{})
		go func() { // Skip and Fatal end their goroutine
			defer close(done)
			Missing(tb, "a library: run this")
		}()
		<-done
		if tb.end != want || !strings.Contains(tb.said, "a library: run this") {
			t.Errorf("CI=%q: got %s %q, want %s with the command", ci, tb.end, tb.said, want)
		}
	}
}
