package gateway

// frameCheck follows the frames in a stream of bytes and finds what RFC 6455
// forbids and gorilla lets pass.
type frameCheck struct {
	walk       frameWalk
	data       bool  // the frame is a data frame
	fragmented bool  // a message has begun whose last frame has not
	messages   int64 // how many have ended
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
		if f.walk.between() {
			good = i
		}
		n, whole := f.walk.step(p[i:])
		i += n
		if whole {
			if err := f.judge(); err != nil {
				return good, err
			}
		}
		if f.data && !f.fragmented && f.walk.between() {
			f.data = false
			f.messages++
		}
	}
	return len(p), nil
}

// judge looks at a header.
func (f *frameCheck) judge() error {
	length, smallest := f.walk.length(), uint64(0)
	switch f.walk.header[1] &^ bitMask {
	case 126:
		smallest = 126
	case 127:
		smallest = 1 << 16
	}
	op := f.walk.opcode()
	control := op >= opClose
	switch {
	case length>>63 != 0:
		return broken("the top bit of a 64-bit payload length is set")
	case length < smallest:
		return broken("payload length is not encoded in the fewest bytes")
	case f.walk.header[0]&bitRSV1 != 0 && (control || op == opContinuation):
		return broken("RSV1 is set on a control or continuation frame")
	case op == opClose && length == 1:
		return broken("a close frame has half a code")
	}
	f.data = !control
	if f.data {
		f.fragmented = !f.walk.final()
	}
	return nil
}

// partial tells whether a message has begun and not ended.
func (f *frameCheck) partial() bool { return f.fragmented || f.data && f.walk.left > 0 }
