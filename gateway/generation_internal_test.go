package gateway

import (
	"fmt"
	"testing"
)

// Configurations that fail, each with a new name, must leave nothing.
func TestDroppedGenerationsLeaveNoSlots(t *testing.T) {
	g, err := New(Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := g.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
	}()
	for i := range 10 {
		e, err := NewEndpoint(fmt.Sprint("endpoint ", i), EndpointOptions{})
		if err != nil {
			t.Fatal(err)
		}
		gen, err := g.Prepare(Options{})
		if err != nil {
			t.Fatal(err)
		}
		if err := gen.Add(e); err != nil {
			t.Fatal(err)
		}
		if i%2 == 0 {
			if err := gen.Commit(); err != nil {
				t.Fatal(err)
			}
		}
		gen.Close()
	}
	if n := len(g.slots); n > 0 {
		t.Errorf("%d slots are left of endpoints that nobody serves", n)
	}
}
