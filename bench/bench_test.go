package main

import (
	"bytes"
	"regexp"
	"strings"
	"testing"
	"time"
)

// make bench is run by hand and seldom: what it needs to be built from changes meanwhile.
func TestTinyRunFillsItsTables(t *testing.T) {
	if testing.Short() {
		t.Skip("left out by -short: it builds Caddy twice, and a NATS server")
	}
	var out bytes.Buffer
	r := &run{
		only:   regexp.MustCompile(`^(echo/32/64/1|half-peak/32|fanout/1000/1|echo/h2|idle/wss|idle/streams|handshake/resumed|cluster/alone|cluster/2/users|cluster/3|cluster/groups)$`),
		peers:  regexp.MustCompile(`^(HTTP/.*|gorilla|centrifuge|bare|caddy-websocket full|caddy-websocket, without|gorilla and nats.go, (. nodes|groups: 1))$`),
		rounds: 1, lasts: 100 * time.Millisecond, conns: 20, out: &out,
	}
	if err := r.all(t.Context()); err != nil {
		t.Fatalf("%v\n%s", err, &out)
	}
	for name, want := range map[string]int{
		"| caddy-websocket |": 5, "| gorilla |": 5, "| centrifuge |": 1, "| bare |": 1, "| caddy-websocket full |": 1,
		"| HTTP/2 |": 2, "| HTTP/3 |": 1, "| HTTP/1.1 |": 2,
		"| caddy-websocket, with a broker |": 1, "| caddy-websocket, without |": 1,
		"| caddy-websocket, 2 nodes |": 1, "| gorilla and nats.go, 2 nodes |": 1, "| gorilla and nats.go, 3 nodes |": 1,
		"| caddy-websocket, groups: 5000 |": 1, "| gorilla and nats.go, groups: 1 |": 1,
	} {
		if got := strings.Count(out.String(), name); got != want {
			t.Errorf("%d lines begin with %q, want %d:\n%s", got, name, want, &out)
		}
	}
}

// Noise that two servers share in a round cancels out, which the ratio of two medians would
// not do.
func TestRatiosAreOfRoundsNotOfMedians(t *testing.T) {
	rounds := func(cpu ...float64) *line {
		l := &line{}
		for _, v := range cpu {
			l.samples = append(l.samples, &sample{cpu: v})
		}
		return l
	}
	of := func(s *sample) float64 { return s.cpu }
	for _, tt := range []struct {
		a, b *line
		want string
	}{
		{rounds(1, 20, 3), rounds(2, 40, 6), "0.50 (0.50..0.50)"},
		{rounds(1, 20, 3), rounds(2, 20), "0.75 (0.50..1.00)"},
		{rounds(1), rounds(), "-"},
	} {
		if got := ratio(tt.a, tt.b, of); got != tt.want {
			t.Errorf("ratio %s, want %s", got, tt.want)
		}
	}
}

// -run selects by these names, and the default must select something.
func TestWorkloadsHaveNamesOfTheirOwn(t *testing.T) {
	names := make(map[string]bool)
	chosen := 0
	for _, w := range workloads(1) {
		if names[w.id] {
			t.Errorf("two workloads are called %s", w.id)
		}
		names[w.id] = true
		if regexp.MustCompile(usual).MatchString(w.id) {
			chosen++
			if w.target == "" && w.id != "burst/32/64/16" && !w.joined {
				t.Errorf("%s is run by default and has no target", w.id)
			}
		}
	}
	if want := 19; chosen != want {
		t.Errorf("%d workloads are run by default, want %d: %s", chosen, want, usual)
	}
}
