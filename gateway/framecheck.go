package gateway

import "encoding/binary"

// frameCheck follows the frames in a stream of bytes and finds what RFC 6455
// forbids and gorilla lets pass.
type frameCheck struct {
	header     [10]byte // without the masking key, which is passed over like payload
	have       int      // bytes of header that are there
	payload    uint64   // bytes of masking key and payload still to come
	data       bool     // the payload is of a data frame
	fragmented bool     // a message has begun whose last frame has not
}

// protocolError closes the client with a code of its own.
type protocolError struct {
	code   int
	reason string
}

func (e *protocolError) Error() string { return e.reason }

func broken(reason string) error { return &protocolError{CloseProtocolError, reason} }

// scan follows the stream through p. good is how many bytes come before the
// frame that is broken, if one is.
func (f *frameCheck) scan(p []byte) (good int, err error) {
	for i := 0; i < len(p); {
		if f.payload > 0 {
			n := min(f.payload, uint64(len(p)-i))
			f.payload -= n
			i += int(n) //nolint:gosec // at most len(p)
			continue
		}
		if f.have == 0 {
			good = i
		}
		n := copy(f.header[f.have:f.size()], p[i:])
		f.have += n
		i += n
		if f.have < f.size() {
			continue // the size is known once two bytes are there
		}
		if err := f.frame(); err != nil {
			return good, err
		}
		f.have = 0
	}
	return len(p), nil
}

// size returns how long the header is, as far as that is known.
func (f *frameCheck) size() int {
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

// frame judges a whole header.
func (f *frameCheck) frame() error {
	op := f.header[0] & 0x0F
	length := uint64(f.header[1] &^ bitMask)
	switch length {
	case 126:
		length = uint64(binary.BigEndian.Uint16(f.header[2:]))
		if length < 126 {
			return broken("payload length is not encoded in the fewest bytes")
		}
	case 127:
		length = binary.BigEndian.Uint64(f.header[2:])
		if length>>63 != 0 {
			return broken("the top bit of a 64-bit payload length is set")
		}
		if length <= 0xFFFF {
			return broken("payload length is not encoded in the fewest bytes")
		}
	}
	control := op >= opClose
	if f.header[0]&bitRSV1 != 0 && (control || op == opContinuation) {
		return broken("RSV1 is set on a control or continuation frame")
	}
	if op == opClose && length == 1 {
		return broken("a close frame has half a code")
	}
	f.payload, f.data = length, !control
	if f.header[1]&bitMask != 0 {
		f.payload += maskingKey
	}
	if !control {
		f.fragmented = f.header[0]&bitFIN == 0
	}
	return nil
}

// partial tells whether a message has begun and not ended.
func (f *frameCheck) partial() bool { return f.fragmented || f.data && f.payload > 0 }
