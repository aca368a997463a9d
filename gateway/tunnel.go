package gateway

import (
	"fmt"
	"io"
	"sync/atomic"
	"time"
)

// tunnelStall is how long one side of a tunnel may take in nothing of what the
// other sends, before both are cut: what nginx calls send_timeout.
const tunnelStall = 60 * time.Second

// tunnel joins a client to a backend that has accepted its handshake. Bytes pass
// as they are. The frames in them are followed, so that messages can be counted,
// it is known how the connection ends, and a close frame can be placed between
// two of them.
type tunnel struct {
	client *Client
	back   io.ReadWriteCloser
	up     lane // from the client to the backend
	down   lane // from the backend to the client

	activity  atomic.Int64 // when something was last read, from either side
	closingAt atomic.Int64 // when the first close frame was seen or placed, or the first side ended; 0 before
	said      atomic.Bool  // the client's close frame has come
	downOver  atomic.Bool  // nothing more is sent to the client

	saying atomic.Pointer[CloseReason] // what the client is told because the backend is gone
}

func newTunnel(c *Client, back io.ReadWriteCloser) *tunnel {
	t := &tunnel{client: c, back: back}
	t.up = lane{
		to: back, now: c.now, masked: true, bytes: &c.wire.bytesIn,
		message: func(kind MessageType, size int64) {
			c.messagesIn.Add(1)
			c.watchedFrames(EventMessage, kind, size)
		},
		closed: func(code int, reason string) {
			said := CloseReason{Code: code, Reason: reason, ByPeer: true}
			if asked := t.saying.Load(); asked != nil { // it may answer before downEnded goes on
				said = *asked
			}
			t.note(said)
		},
		over: func() {
			t.said.Store(true)
			t.hangUp()
		},
	}
	t.down = lane{
		to: c.wire.conn, now: c.now, bytes: &c.wire.bytesOut,
		message: func(kind MessageType, size int64) {
			c.queue.messages.Add(1)
			c.watchedFrames(EventSend, kind, size)
		},
		closed: func(code int, reason string) { t.note(CloseReason{Code: code, Reason: reason}) },
		over:   func() {},
	}
	t.activity.Store(c.now())
	return t
}

// note notes how the client ends, unless that is known already.
func (t *tunnel) note(reason CloseReason) {
	t.closingAt.CompareAndSwap(0, t.client.now())
	t.client.leave(reason)
}

// run passes bytes on until both sides have ended. early is what the client sent
// with its handshake.
func (t *tunnel) run(early []byte) {
	down := make(chan struct{})
	t.client.helper("tunnel", func() {
		defer close(down)
		_ = t.pump(t.back, &t.down) // however it ended, the backend is gone
		t.downEnded()
	})
	err := t.up.forward(early)
	if err == nil {
		err = t.pump(t.client.wire.conn, &t.up)
	}
	t.upEnded(err)
	<-down
	_ = t.client.wire.bottom().Close() // TLS would wait to say goodbye, which downEnded has done
	_ = t.client.wire.conn.Close()
	_ = t.back.Close()
}

// pump copies one direction until it ends, and returns nil if it ended in order.
func (t *tunnel) pump(from io.Reader, l *lane) error {
	const idle = 1 << 10 // what a connection keeps while nothing passes
	small := make([]byte, idle)
	buf := small
	var pooled *[]byte
	defer func() {
		if pooled != nil {
			scratch.Put(pooled)
		}
	}()
	for {
		n, err := from.Read(buf)
		if n > 0 {
			t.activity.Store(t.client.now())
			if err := l.forward(buf[:n]); err != nil {
				return err
			}
		}
		switch {
		case err == io.EOF:
			return nil
		case err != nil:
			return err
		case n == len(buf) && pooled == nil:
			pooled = scratch.Get().(*[]byte)
			buf = (*pooled)[:cap(*pooled)]
		case n < idle && pooled != nil:
			scratch.Put(pooled)
			pooled, buf = nil, small
		}
	}
}

// upEnded is called when nothing more comes from the client.
func (t *tunnel) upEnded(err error) {
	why := "connection lost"
	if err != nil {
		why += ": " + err.Error()
	}
	t.note(CloseReason{Code: CloseAbnormal, Reason: why, ByPeer: true})
	if err != nil || !closeWrite(t.back) {
		t.client.vanished(why)
	}
}

// downEnded is called when nothing more comes from the backend. If it died
// between two frames the client is told in order, and can come back; if it died
// inside one, nothing can be said any more.
func (t *tunnel) downEnded() {
	reason := CloseReason{Code: CloseGoingAway, Reason: "backend closed the connection"}
	said := reason
	t.saying.Store(&said)
	if !t.down.close(newCloseFrame(reason.Code, reason.Reason)) {
		reason.Code = CloseAbnormal
	}
	if err := t.down.failure(); err != nil { // it is the client who is gone
		reason = CloseReason{Code: CloseAbnormal, Reason: "connection lost: " + err.Error(), ByPeer: true}
	}
	t.note(reason)
	if !closeWrite(t.client.wire.conn) {
		t.client.vanished(reason.Reason)
	}
	t.downOver.Store(true)
	t.hangUp()
}

// hangUp stops waiting for the client when both sides have said goodbye: of the
// two it is the server who closes the connection (RFC 6455 section 7.1.1).
func (t *tunnel) hangUp() {
	if t.said.Load() && t.downOver.Load() {
		_ = t.client.wire.bottom().SetReadDeadline(longAgo) // an error means that it is closed
	}
}

// close places a close frame in both directions. It does not block.
func (t *tunnel) close(reason CloseReason) {
	t.closingAt.CompareAndSwap(0, t.client.now())
	frame := newCloseFrame(reason.Code, reason.Reason)
	t.client.helper("tunnel close", func() { t.down.close(frame) })
	t.client.helper("tunnel close", func() { t.up.close(maskFrame(frame)) })
}

// sweep ends the tunnel if a time-out has passed.
func (t *tunnel) sweep(now int64, o *EndpointOptions) {
	since := func(at int64) time.Duration { return time.Duration(now - at) }
	stuck := func(l *lane) bool {
		p := l.progress.Load()
		return p != 0 && since(p) >= tunnelStall
	}
	switch {
	case stuck(&t.down):
		t.client.slow.CompareAndSwap(0, 1)
		t.client.vanished(fmt.Sprintf("took in nothing for %s", tunnelStall))
		return
	case stuck(&t.up):
		t.client.kill(CloseReason{Code: CloseAbnormal, Reason: fmt.Sprintf("backend took in nothing for %s", tunnelStall)})
		return
	}
	if at := t.closingAt.Load(); at != 0 {
		if since(at) >= o.WriteTimeout {
			t.client.vanished("the close was not answered")
		}
		return
	}
	if o.IdleTimeout > 0 && since(t.activity.Load()) >= o.IdleTimeout {
		t.client.close(CloseReason{Code: CloseGoingAway, Reason: reasonIdle}, false)
	}
}

// closeWrite ends the direction to the other side, if the connection can do
// that.
func closeWrite(conn any) bool {
	half, ok := conn.(interface{ CloseWrite() error })
	return ok && half.CloseWrite() == nil
}
