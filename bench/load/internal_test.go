package load

import (
	"bytes"
	"strings"
	"testing"
	"time"
)

// However a stream is cut into reads, the same messages are in it; control frames are none.
func TestCounterCountsMessagesHoweverTheyAreCut(t *testing.T) {
	var stream []byte
	for _, size := range []int{0, 1, 125, 126, 300, 70_000} {
		stream = append(stream, unmasked(opText, size)...)
		stream = append(stream, unmasked(opPing, 3)...)
	}
	first := unmasked(opBinary, 2)
	first[0] &^= 0x80 // a fragment,
	stream = append(stream, first...)
	stream = append(stream, unmasked(0, 2)...) // and its last
	const messages, pings = 7, 6
	for _, step := range []int{1, 2, 3, 7, 1000, len(stream)} {
		var c counter
		got := 0
		for rest := stream; len(rest) > 0; rest = rest[min(step, len(rest)):] {
			n, err := c.count(rest[:min(step, len(rest))])
			if err != nil {
				t.Fatal(err)
			}
			got += n
		}
		if got != messages || c.pings != pings {
			t.Errorf("in pieces of %d: %d messages, %d pings, want %d and %d", step, got, c.pings, messages, pings)
		}
	}
	if _, err := new(counter).count(unmasked(opClose, 2)); err == nil {
		t.Error("a close frame is no error")
	}
}

// A server that puts several messages into a frame would else seem to lose them. What control
// frames hold is no message, whatever it is.
func TestCounterCountsTheLinesOfATextIfToldTo(t *testing.T) {
	long := strings.Repeat("m", 300)
	var stream []byte
	for _, text := range []string{"one", "one\ntwo", long + "\n" + long + "\nthree"} {
		stream = append(stream, unmaskedOf(opText, text)...)
		stream = append(stream, unmaskedOf(opPing, "no\nmessage")...)
	}
	first := unmaskedOf(opText, "a fragment\nand")
	first[0] &^= 0x80
	stream = append(stream, first...)
	stream = append(stream, unmaskedOf(0, " its last\nand one more")...)
	for lines, want := range map[bool]int{false: 4, true: 9} {
		for _, step := range []int{1, 2, 3, 7, 1000, len(stream)} {
			c := counter{lines: lines}
			got := 0
			for rest := stream; len(rest) > 0; rest = rest[min(step, len(rest)):] {
				n, err := c.count(rest[:min(step, len(rest))])
				if err != nil {
					t.Fatal(err)
				}
				got += n
			}
			if got != want {
				t.Errorf("lines %t, in pieces of %d: %d messages, want %d", lines, step, got, want)
			}
		}
	}
}

// unmasked returns a frame as a server sends it.
func unmasked(opcode byte, size int) []byte { return unmaskedOf(opcode, string(make([]byte, size))) }

func unmaskedOf(opcode byte, payload string) []byte {
	f := frame(opcode, []byte(payload))
	at := len(f) - len(payload) - len(mask)
	f[1] &^= 0x80
	return append(bytes.Clone(f[:at]), payload...)
}

// What is read off a histogram is at most 1/32 too much, and never more than the largest.
func TestHistogramIsExactToThreePercent(t *testing.T) {
	for d := time.Nanosecond; d < time.Minute; d = d*5/4 + 1 {
		var h Histogram
		h.Add(d, 1)
		h.Add(2*time.Minute, 1)
		if got := h.Quantile(0.5); got < d || float64(got) > float64(d)*(1+1.0/steps) {
			t.Errorf("%s is read off as %s", d, got)
		}
	}
	var h Histogram
	for i := range 1000 {
		h.Add(time.Duration(i+1)*time.Microsecond, 1)
	}
	for q, want := range map[float64]time.Duration{0.5: 500 * time.Microsecond, 0.99: 990 * time.Microsecond, 1: time.Millisecond} {
		if got := h.Quantile(q); got < want || got > want*33/32 {
			t.Errorf("the %g quantile is %s, want %s", q, got, want)
		}
	}
}
