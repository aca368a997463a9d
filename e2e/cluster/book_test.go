package cluster

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// A run that finds nothing is worth something only if the clients see what is wrong.
func TestClientsSeeWhatIsWrong(t *testing.T) {
	const c, i = crowd(60), 4
	mine, others := aim{kind: toUser, n: user(i)}, aim{kind: toUser, n: user(i) + 1}
	for _, tt := range []struct {
		name     string
		messages []string
		want     string // "" for nothing wrong
		count    int    // of sender 1
	}{
		{"in order", []string{message(1, 1, mine), message(2, 9, mine), message(1, 2, aim{kind: toAll})}, "", 2},
		{"a gap", []string{message(1, 1, mine), message(1, 3, mine)}, "", 2},
		{"a mark", []string{message(1, 1, mine), message(1, 2, aim{kind: mark})}, "", 1},
		{"twice", []string{message(1, 1, mine), message(1, 1, mine)}, "twice", 1},
		{"late", []string{message(1, 2, mine), message(1, 1, mine)}, "after number 2", 1},
		{"not for this client", []string{message(1, 1, others)}, "not for it", 0},
		{"something else", []string{"hello"}, "hello", 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var wrong []string
			b := newBook(c, i, func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) })
			b.reset(true)
			for _, m := range tt.messages {
				b.take(m)
			}
			if said := strings.Join(wrong, "\n"); (said == "") != (tt.want == "") || !strings.Contains(said, tt.want) {
				t.Errorf("wrong is %q, want %q", said, tt.want)
			}
			if n, whole := b.count(1); n != tt.count || !whole {
				t.Errorf("counted %d, want %d", n, tt.count)
			}
		})
	}
}

// Groups that were at one node would show nothing, and neither would a kind that means nobody.
func TestTargetsAreSpreadOverNodes(t *testing.T) {
	for _, c := range []crowd{12, 60, 599, 600, 3000} {
		for _, k := range kinds {
			for range 20 {
				a := c.pick(k)
				var at []int
				for i := range int(c) {
					if c.meets(a, i) && !slices.Contains(at, i%nodes) {
						at = append(at, i%nodes)
					}
				}
				want := nodes
				switch k {
				case toClient:
					want = 1
				case toUser:
					want = 2
				default:
				}
				if len(at) < min(want, int(c)/c.groups()) {
					t.Errorf("of %d clients, %s means those of %d nodes, want %d", c, a, len(at), want)
				}
			}
		}
	}
}
