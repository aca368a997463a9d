package gateway

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/gorilla/websocket"
)

// rawFrame returns a masked frame; bits says how wide its length is written.
func rawFrame(b0 byte, bits int, length uint64, payload []byte) []byte {
	f := []byte{b0}
	switch bits {
	case 7:
		f = append(f, bitMask|byte(length))
	case 16:
		f = binary.BigEndian.AppendUint16(append(f, bitMask|126), uint16(length))
	default:
		f = binary.BigEndian.AppendUint64(append(f, bitMask|127), length)
	}
	return append(append(f, 0, 0, 0, 0), payload...)
}

// masked returns a well-made frame with a mask of zeros.
func masked(b0 byte, payload []byte) []byte {
	bits := 7
	switch n := len(payload); {
	case n > 0xFFFF:
		bits = 64
	case n > maxControlPayload:
		bits = 16
	}
	return rawFrame(b0, bits, uint64(len(payload)), payload)
}

// verdict is what frameCheck finds in a stream: where the first broken frame
// begins, and what is wrong with it.
type verdict struct {
	good    int
	err     string
	partial bool
}

// judge feeds a stream to frameCheck in pieces that end where cuts say. Bytes of
// a header that came with an earlier piece count as good: they were passed on.
func judge(stream []byte, cuts []int) verdict {
	var f frameCheck
	from := 0
	for _, to := range append(slices.Clone(cuts), len(stream)) {
		good, err := f.scan(stream[from:to])
		if err != nil {
			return verdict{from + good, err.Error(), false}
		}
		if good != to-from {
			return verdict{from + good, "stopped without an error", false}
		}
		from = to
	}
	return verdict{from, "", f.partial()}
}

func TestFrameCheckFindsWhatGorillaLetsPass(t *testing.T) {
	good := masked(bitFIN|opText, []byte("good"))
	for _, tt := range []struct {
		name   string
		frame  []byte
		broken bool
	}{
		{"text", masked(bitFIN|opText, nil), false},
		{"ping of 125 bytes", masked(bitFIN|opPing, make([]byte, 125)), false},
		{"126 bytes", masked(bitFIN|opBinary, make([]byte, 126)), false},
		{"65535 bytes", masked(bitFIN|opBinary, make([]byte, 65535)), false},
		{"65536 bytes", masked(bitFIN|opBinary, make([]byte, 65536)), false},
		{"2^63-1 bytes", rawFrame(bitFIN|opBinary, 64, 1<<63-1, nil), false},
		{"RSV1 on text, which compression would set", masked(bitFIN|bitRSV1|opText, nil), false},
		{"empty close", masked(bitFIN|opClose, nil), false},
		{"close with a code", masked(bitFIN|opClose, []byte{3, 0xE8}), false},

		{"close with half a code", masked(bitFIN|opClose, []byte{3}), true},
		{"RSV1 on continuation", masked(bitFIN|bitRSV1|opContinuation, nil), true},
		{"RSV1 on ping", masked(bitFIN|bitRSV1|opPing, nil), true},
		{"RSV1 on pong", masked(bitFIN|bitRSV1|opPong, nil), true},
		{"RSV1 on close", masked(bitFIN|bitRSV1|opClose, nil), true},
		{"0 in 16 bits", rawFrame(bitFIN|opText, 16, 0, nil), true},
		{"125 in 16 bits", rawFrame(bitFIN|opText, 16, 125, make([]byte, 125)), true},
		{"125 in 64 bits", rawFrame(bitFIN|opText, 64, 125, make([]byte, 125)), true},
		{"65535 in 64 bits", rawFrame(bitFIN|opText, 64, 65535, make([]byte, 65535)), true},
		{"2^63", rawFrame(bitFIN|opText, 64, 1<<63, nil), true},
		{"2^64-1", rawFrame(bitFIN|opText, 64, 1<<64-1, nil), true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			stream := append(slices.Clone(good), tt.frame...)
			if v := judge(stream, nil); (v.err != "") != tt.broken {
				t.Fatalf("judged %+v, want broken: %t", v, tt.broken)
			} else if tt.broken && v.good != len(good) {
				t.Errorf("%d bytes are good, want the %d of the frame before", v.good, len(good))
			}
			for cut := range min(len(stream), 40) {
				if v := judge(stream, []int{cut}); (v.err != "") != tt.broken {
					t.Errorf("cut after %d bytes it is judged %+v, want broken: %t", cut, v, tt.broken)
				}
			}
		})
	}
}

// gorilla is given the length as soon as it is there, before the mask. What it
// must not see has to be found by then.
func TestFrameCheckJudgesALengthBeforeItIsPassedOn(t *testing.T) {
	for name, header := range map[string][]byte{
		"top bit":   rawFrame(bitFIN|opText, 64, 1<<63|5, nil)[:10],
		"too wide":  rawFrame(bitFIN|opText, 64, 5, nil)[:10],
		"too wide2": rawFrame(bitFIN|opText, 16, 5, nil)[:4],
		"RSV1":      masked(bitFIN|bitRSV1|opPing, nil)[:2],
		"half code": masked(bitFIN|opClose, []byte{3})[:2],
	} {
		if v := judge(header, nil); v.err == "" {
			t.Errorf("%s: % x passed before its mask was there", name, header)
		}
	}
}

// A stream is partial from the first byte of a message's payload that is
// outstanding, or of a further fragment, to the last.
func TestFrameCheckKnowsWhenAMessageHasBegun(t *testing.T) {
	for _, tt := range []struct {
		name    string
		stream  []byte
		partial bool
	}{
		{"nothing", nil, false},
		{"whole message", masked(bitFIN|opText, []byte("x")), false},
		{"half a payload", masked(bitFIN|opText, []byte("xy"))[:7], true},
		{"first fragment", masked(opText, []byte("x")), true},
		{"empty first fragment", masked(opText, nil), true},
		{"first fragment and a ping", append(masked(opText, []byte("x")), masked(bitFIN|opPing, []byte("p"))...), true},
		{"first fragment and half a ping", append(masked(opText, []byte("x")), masked(bitFIN|opPing, []byte("ping"))[:8]...), true},
		{"both fragments", append(masked(opText, []byte("x")), masked(bitFIN|opContinuation, nil)...), false},
		{"half a ping", masked(bitFIN|opPing, []byte("ping"))[:8], false},
	} {
		if v := judge(tt.stream, nil); v.err != "" || v.partial != tt.partial {
			t.Errorf("%s: judged %+v, want partial: %t", tt.name, v, tt.partial)
		}
	}
}

// How a stream is cut into packets must not change what is found in it, nor may
// any stream make the check panic or stand still.
func FuzzFrameCheck(f *testing.F) {
	for _, seed := range [][]byte{
		nil,
		masked(bitFIN|opText, []byte("tom")),
		append(masked(opText, []byte("to")), masked(bitFIN|opContinuation, []byte("m"))...),
		append(masked(bitFIN|opPing, nil), masked(bitFIN|opClose, []byte{3})...),
		rawFrame(bitFIN|opText, 64, 1<<63|5, []byte("12345")),
		rawFrame(bitFIN|opText, 16, 5, []byte("12345")),
		masked(bitFIN|opBinary, make([]byte, 300)),
		{bitFIN | opText, 5, 'p', 'l', 'a', 'i', 'n', bitFIN | bitRSV1 | opPing, 0x80},
	} {
		f.Add(seed, uint64(1))
	}
	f.Fuzz(func(t *testing.T, stream []byte, seed uint64) {
		whole := judge(stream, nil)
		rnd := rand.New(rand.NewPCG(seed, 0))
		var some, all []int
		for i := range len(stream) {
			if rnd.IntN(4) == 0 {
				some = append(some, i)
			}
			all = append(all, i)
		}
		for _, cuts := range [][]int{some, all} {
			got := judge(stream, cuts)
			if got.err != whole.err || got.partial != whole.partial {
				t.Fatalf("in pieces it is judged %+v, whole %+v", got, whole)
			}
			// A broken header that was cut is good up to the cut, never beyond itself.
			if got.good < whole.good || got.good > whole.good+14 {
				t.Fatalf("in pieces %d bytes are good, whole %d", got.good, whole.good)
			}
		}
	})
}

// FuzzWireStream lets gorilla read a stream through frameCheck, whole and in
// pieces: the same messages must come out before the same end.
func FuzzWireStream(f *testing.F) {
	f.Add(masked(bitFIN|opText, []byte("tom")), uint64(1))
	f.Add(append(masked(opText, []byte("to")), masked(bitFIN|opContinuation, []byte("m"))...), uint64(2))
	f.Add(append(masked(bitFIN|opText, []byte("x")), rawFrame(bitFIN|opText, 64, 1<<63|5, []byte("12345"))...), uint64(3))
	f.Add(append(masked(bitFIN|opBinary, make([]byte, 300)), masked(bitFIN|opClose, []byte{3})...), uint64(4))
	f.Add(append(masked(bitFIN|opBinary, make([]byte, 3000)), 0xFF, 0xFF), uint64(5))
	f.Fuzz(func(t *testing.T, stream []byte, seed uint64) {
		whole, wholeErr := readThrough(stream, nil)
		rnd := rand.New(rand.NewPCG(seed, 0))
		pieces, piecesErr := readThrough(stream, rnd)
		if !slices.EqualFunc(whole, pieces, bytes.Equal) {
			t.Fatalf("in pieces %d messages come out, whole %d", len(pieces), len(whole))
		}
		if wholeErr != piecesErr {
			t.Fatalf("in pieces it ends with %q, whole with %q", piecesErr, wholeErr)
		}
	})
}

// readThrough returns the messages in a stream and what ended it. The two judges
// see a header at the same moment, so which of them names a fault may differ;
// that one did, is what is compared.
func readThrough(stream []byte, rnd *rand.Rand) (messages [][]byte, end string) {
	c := &Client{shared: &shared{epoch: time.Now().Add(-time.Second)}}
	c.queue.owner = c
	c.wire.client = c
	c.wire.conn = &pieces{data: stream, rnd: rnd}
	ws, err := takenOver(&c.wire, false)
	if err != nil {
		return nil, err.Error()
	}
	ws.SetPingHandler(func(string) error { return nil })
	for {
		_, r, err := ws.NextReader()
		if err == nil {
			var data []byte
			data, err = io.ReadAll(r)
			if err == nil {
				messages = append(messages, data)
				continue
			}
		}
		var closed *websocket.CloseError
		switch {
		case errors.As(err, &closed) && closed.Code != CloseAbnormal:
			return messages, fmt.Sprint("closed ", closed.Code)
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), closed != nil:
			return messages, "cut"
		}
		return messages, "broken"
	}
}

// SetDeadline is called by gorilla when it takes over.
func (*pieces) SetDeadline(time.Time) error { return nil }

// pieces is a connection that gives its data in random pieces, or whole.
type pieces struct {
	net.Conn
	data []byte
	rnd  *rand.Rand
}

func (p *pieces) Read(b []byte) (int, error) {
	if len(p.data) == 0 {
		return 0, io.EOF
	}
	n := len(p.data)
	if p.rnd != nil {
		n = 1 + p.rnd.IntN(min(n, 20))
	}
	n = copy(b, p.data[:n])
	p.data = p.data[n:]
	return n, nil
}

// BenchmarkFrameCheck is what the check costs for a Read that brings one message,
// or as much of one as the read buffer takes. Beside BenchmarkEcho it tells
// whether the check keeps within 3 % of an echo (DESIGN section 4):
//
//	go test -run '^$' -bench 'FrameCheck|Echo' ./gateway
func BenchmarkFrameCheck(b *testing.B) {
	for _, size := range []int{16, 125, 1000, 4096, 65536} {
		stream := masked(bitFIN|opText, make([]byte, size))
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			var f frameCheck
			b.SetBytes(int64(len(stream)))
			for b.Loop() {
				for rest := stream; len(rest) > 0; rest = rest[min(readBuffer, len(rest)):] {
					if _, err := f.scan(rest[:min(readBuffer, len(rest))]); err != nil {
						b.Fatal(err)
					}
				}
			}
		})
	}
	b.Run("60 messages of 10 bytes in one read", func(b *testing.B) {
		stream := bytes.Repeat(masked(bitFIN|opText, make([]byte, 10)), 60)
		var f frameCheck
		for b.Loop() {
			if _, err := f.scan(stream); err != nil {
				b.Fatal(err)
			}
		}
	})
}
