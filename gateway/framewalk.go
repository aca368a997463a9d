package gateway

import "encoding/binary"

// frameWalk follows the frames in a stream of bytes, however it is cut.
type frameWalk struct {
	header [10]byte // without the masking key, which is passed over like payload
	have   uint8    // bytes of header that are there
	left   uint64   // bytes of masking key and payload still to come
}

// step goes on by a header or a payload, or what p has of it, and returns how many
// bytes that were. whole is set when a header has just become whole.
func (f *frameWalk) step(p []byte) (n int, whole bool) {
	if f.left > 0 {
		n = int(min(f.left, uint64(len(p)))) //nolint:gosec // at most len(p)
		f.left -= uint64(n)
		return n, false
	}
	for n < len(p) && f.have < f.size() { // the size is known once two bytes are there
		f.header[f.have] = p[n]
		f.have++
		n++
	}
	if f.have < f.size() {
		return n, false
	}
	f.have = 0
	f.left = f.length()
	if f.header[1]&bitMask != 0 {
		f.left = max(f.left, f.left+maskingKey) // no end is in sight of a length that overflows
	}
	return n, true
}

// between tells whether a frame has ended and the next has not begun.
func (f *frameWalk) between() bool { return f.have == 0 && f.left == 0 }

// size returns how long the header is, as far as that is known.
func (f *frameWalk) size() uint8 {
	if f.have < 2 {
		return 2
	}
	switch f.header[1] &^ bitMask {
	case 126:
		return 2 + 2
	case 127:
		return 2 + 8
	}
	return 2
}

// opcode, final and length are those of the header that became whole last.
func (f *frameWalk) opcode() byte { return f.header[0] & 0x0F }

func (f *frameWalk) final() bool { return f.header[0]&bitFIN != 0 }

func (f *frameWalk) length() uint64 {
	switch n := f.header[1] &^ bitMask; n {
	case 126:
		return uint64(binary.BigEndian.Uint16(f.header[2:]))
	case 127:
		return binary.BigEndian.Uint64(f.header[2:])
	default:
		return uint64(n)
	}
}
