package load

import (
	"bytes"
	"encoding/binary"
	"errors"
)

// The opcodes of RFC 6455 section 5.2 that are told apart.
const (
	opText   = 1
	opBinary = 2
	opClose  = 8
	opPing   = 9
)

// mask is every frame's. Servers do not look at it, and undoing it costs the same whatever it is.
var mask = [4]byte{0x37, 0xFA, 0x21, 0x3D}

// pong answers a ping without a payload, which is what servers send.
var pong = append([]byte{0x8A, 0x80}, mask[:]...)

// Text returns a masked text frame of n bytes of payload.
func Text(n int) []byte {
	payload := make([]byte, n)
	for i := range payload {
		payload[i] = 'a' + byte(i%26)
	}
	return frame(opText, payload)
}

// Binary returns a masked binary frame.
func Binary(payload []byte) []byte { return frame(opBinary, payload) }

func frame(opcode byte, payload []byte) []byte {
	f := []byte{0x80 | opcode}
	switch n := uint64(len(payload)); {
	case n < 126:
		f = append(f, 0x80|byte(n))
	case n < 1<<16:
		f = binary.BigEndian.AppendUint16(append(f, 0x80|126), uint16(n))
	default:
		f = binary.BigEndian.AppendUint64(append(f, 0x80|127), n)
	}
	f = append(f, mask[:]...)
	for i, b := range payload {
		f = append(f, b^mask[i%4])
	}
	return f
}

// errClosed is what a server's close frame ends in.
var errClosed = errors.New("the server has closed")

// counter counts the messages in a stream of unmasked frames, however it is cut.
type counter struct {
	header  [10]byte
	have    int    // of header
	payload uint64 // bytes of the payload that are still to come
	last    byte   // the first byte of the frame whose payload is coming

	lines bool // each line of a text is a message
	pings int  // that nobody has answered
}

var newline = []byte{'\n'}

// count returns how many messages end in b.
func (c *counter) count(b []byte) (messages int, err error) {
	for {
		n := min(c.payload, uint64(len(b)))
		if c.lines && c.last&0xF <= opBinary {
			messages += bytes.Count(b[:n], newline) // each ends one, but for the last
		}
		c.payload -= n
		b = b[n:]
		if c.have > 0 && c.payload == 0 && c.whole() {
			c.have = 0
			switch opcode := c.last & 0xF; {
			case opcode == opClose:
				return messages, errClosed
			case opcode == opPing:
				c.pings++
			case opcode <= opBinary && c.last&0x80 != 0:
				messages++
			}
		}
		if len(b) == 0 {
			return messages, nil
		}
		for len(b) > 0 && !c.whole() {
			c.header[c.have] = b[0]
			c.have++
			b = b[1:]
		}
		if !c.whole() {
			return messages, nil
		}
		c.last = c.header[0]
		switch length := c.header[1]; length {
		case 126:
			c.payload = uint64(binary.BigEndian.Uint16(c.header[2:]))
		case 127:
			c.payload = binary.BigEndian.Uint64(c.header[2:])
		default:
			c.payload = uint64(length)
		}
	}
}

// whole tells whether a header is there.
func (c *counter) whole() bool {
	if c.have < 2 {
		return false
	}
	switch c.header[1] {
	case 126:
		return c.have == 4
	case 127:
		return c.have == 10
	}
	return c.have == 2
}
