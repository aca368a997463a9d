package gateway

import (
	"encoding/binary"
	"net"
	"sync/atomic"
	"time"
)

// wire is the net.Conn that gorilla/websocket is given. gorilla reads through it
// and never writes to the socket: its answer to the handshake is forgotten, as ours
// has been sent (see takenOver); afterwards it writes only close frames, when the
// peer broke the protocol, and those take their place in the queue.
//
// What gorilla does not check by itself is checked here, on the bytes that it
// is about to be given.
type wire struct {
	client *Client
	conn   net.Conn
	rest   []byte // came in with the handshake
	check  frameCheck
	broken error // what check found; the next Read returns it

	// readAt is when the Read under way began, so since when the peer has been
	// silent; 0 while nothing is being read.
	readAt atomic.Int64

	// waited tells whether the last Read had to wait; for the client's own goroutine.
	waited bool

	// partial is set while a message has begun and not ended.
	partial atomic.Bool

	bytesIn  atomic.Int64
	bytesOut atomic.Int64
}

// atHand is what a Read takes at most whose bytes were there already: a system call
// and the decryption of a record.
const atHand = 8 * time.Microsecond

// Read gives gorilla what the peer sent.
func (w *wire) Read(p []byte) (n int, err error) {
	if w.broken != nil {
		return 0, w.broken
	}
	if len(w.rest) > 0 {
		n = copy(p, w.rest)
		if w.rest = w.rest[n:]; len(w.rest) == 0 {
			w.rest = nil // its array is not kept
		}
		w.waited = false
	} else {
		w.client.unhold()
		began := w.client.now()
		w.readAt.Store(began)
		n, err = w.conn.Read(p)
		w.readAt.Store(0)
		w.waited = w.client.now()-began > int64(atHand)
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
