package gateway

import (
	"encoding/binary"
	"net"
	"sync/atomic"
	"time"
)

// wire is the net.Conn that gorilla/websocket is given. gorilla reads through it
// and never writes to the socket: before the upgrade its one write is the
// handshake's answer, which goes out through net/http; afterwards it writes only
// close frames, when the peer broke the protocol, and those take their place in
// the queue.
//
// What gorilla does not check by itself is checked here, on the bytes that it
// is about to be given.
type wire struct {
	client *Client
	conn   net.Conn
	answer *answer // nil after the upgrade, so that nothing of the request is kept
	rest   []byte  // came in with the handshake
	check  frameCheck
	broken error // what check found; the next Read returns it

	// readAt is when the Read under way began, so since when the peer has been
	// silent; 0 while nothing is being read.
	readAt atomic.Int64

	// partial is set while a message has begun and not ended.
	partial atomic.Bool

	bytesIn  atomic.Int64
	bytesOut atomic.Int64
}

// Read gives gorilla what the peer sent.
func (w *wire) Read(p []byte) (n int, err error) {
	if w.broken != nil {
		return 0, w.broken
	}
	if len(w.rest) > 0 {
		n = copy(p, w.rest)
		w.rest = w.rest[n:]
	} else {
		w.readAt.Store(w.client.now())
		n, err = w.conn.Read(p)
		w.readAt.Store(0)
	}
	w.bytesIn.Add(int64(n))
	good, broken := w.check.scan(p[:n])
	if partial := w.check.partial(); partial != w.partial.Load() {
		w.partial.Store(partial)
	}
	if broken != nil {
		w.broken = broken
		if good == 0 {
			return 0, broken
		}
		return good, nil
	}
	return n, err
}

// Write takes what gorilla wants to write.
func (w *wire) Write(p []byte) (int, error) {
	if w.answer != nil {
		conn, rest, err := w.answer.send(p)
		if err != nil {
			return 0, err
		}
		w.conn, w.rest, w.answer = conn, rest, nil
		return len(p), nil
	}
	if len(p) >= 2 && p[0] == bitFIN|opClose {
		code, reason := CloseNoStatus, ""
		if payload := p[2:]; len(payload) >= 2 {
			code, reason = int(binary.BigEndian.Uint16(payload)), string(payload[2:])
		}
		w.client.close(CloseReason{Code: code, Reason: closeReason(reason)}, false)
	}
	return len(p), nil
}

// Close closes the connection if there is one yet.
func (w *wire) Close() error {
	if w.conn == nil {
		return nil
	}
	return w.conn.Close()
}

// LocalAddr and RemoteAddr are asked for by nobody before the upgrade.
func (w *wire) LocalAddr() net.Addr  { return w.conn.LocalAddr() }
func (w *wire) RemoteAddr() net.Addr { return w.conn.RemoteAddr() }

// The deadlines that gorilla sets would hit the queue's writes: the sweeper
// watches instead.
func (w *wire) SetDeadline(time.Time) error      { return nil }
func (w *wire) SetReadDeadline(time.Time) error  { return nil }
func (w *wire) SetWriteDeadline(time.Time) error { return nil }

// bottom returns the connection below TLS. A deadline set there wakes whoever
// reads or writes, and closing it never blocks, whereas a tls.Conn sends an
// alert first.
func (w *wire) bottom() net.Conn {
	conn := w.conn
	for {
		inner, ok := conn.(interface{ NetConn() net.Conn })
		if !ok {
			return conn
		}
		conn = inner.NetConn()
	}
}

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
