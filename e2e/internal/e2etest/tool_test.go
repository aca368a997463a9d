package e2etest

import (
	"runtime"
	"strings"
	"testing"
)

// A user without a browser gets a skip, CI a failure; both name what is missing.
func TestMissingToolSkipsExceptInCI(t *testing.T) {
	for ci, want := range map[string]string{"": "skip", "false": "skip", "true": "fatal"} {
		t.Setenv("CI", ci)
		tb := &verdict{TB: t}
		done := make(chan struct{})
		go func() { // Skip and Fatal end their goroutine
			defer close(done)
			Tool(tb, "no-such-tool", "nor-this-one")
		}()
		<-done
		if tb.end != want || !strings.Contains(tb.said, "no-such-tool or nor-this-one") {
			t.Errorf("CI=%q: got %s %q, want %s with the names", ci, tb.end, tb.said, want)
		}
	}
}

func TestToolTakesTheFirstThatThereIs(t *testing.T) {
	if path := Tool(t, "no-such-tool", "go"); !strings.HasSuffix(path, "/go") {
		t.Errorf("got %q, want a path of go", path)
	}
}

// verdict is a testing.TB that remembers how it ended.
type verdict struct {
	testing.TB
	end, said string
}

func (v *verdict) Helper() {}

func (v *verdict) Skip(args ...any) { v.stop("skip", args) }

func (v *verdict) Fatal(args ...any) { v.stop("fatal", args) }

func (v *verdict) stop(end string, args []any) {
	v.end = end
	v.said, _ = args[0].(string)
	runtime.Goexit()
}
