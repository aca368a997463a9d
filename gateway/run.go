package gateway

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/gorilla/websocket"
)

// run is the client's own goroutine: it reads, calls OnMessage, and at the end
// OnClose.
func (c *Client) run() {
	if c.killed.Load() { // before there was a connection to cut
		c.cut()
	}
	c.queue.open(c.wire.conn)
	c.closeIfDue()
	c.listen()
	c.serve()
}

// serve reads until the end of the client, or until it is found to be stuck in
// writing a reply: then another goroutine goes on in its place, and it ends when
// that is written.
func (c *Client) serve() {
	var passed, more bool
	defer func() {
		if !passed {
			c.conns.Done()
		}
	}()
	defer c.recovered("client")
	defer func() {
		if !passed {
			c.finish()
		}
	}()
	passed, more = c.read()
	if passed {
		defer c.helpers.Done() // see takeTurn
	}
	for more {
		more = c.queue.write()
	}
}

// reply writes what was held back while a message was handled, unless more
// messages are in hand. If it returns passed, reading is no longer this goroutine's
// turn, but writing what there is more of.
func (c *Client) reply() (passed, more bool) {
	if c.handled < c.wire.check.messages || !c.queue.held.Load() || !c.queue.release() {
		return false, false
	}
	if !c.wire.waited { // the next message may be here already: its reply goes along
		c.writers.add(c)
		return false, false
	}
	turn := c.turn.Add(1)
	c.attend(c)
	more = c.queue.write()
	if !c.turn.CompareAndSwap(turn, turn+1) {
		return true, more
	}
	if more {
		c.writers.add(c)
	}
	return false, false
}

// unhold ends the holding back before a Read that may take long.
func (c *Client) unhold() {
	if c.queue.held.Load() && c.queue.release() {
		c.writers.add(c)
	}
}

// takeTurn goes on reading in place of a goroutine that has been writing replies
// for too long.
func (c *Client) takeTurn(turn, now int64) {
	const patience = 2 * time.Millisecond
	p := c.queue.progress.Load()
	if p == 0 || time.Duration(now-p) < patience {
		return
	}
	c.helpers.Add(1) // for the one that still writes
	if !c.turn.CompareAndSwap(turn, turn+1) {
		c.helpers.Done()
		return
	}
	go c.serve()
}

// due tells whether and why the client has to go: everybody does, or what it
// connected to is no longer there.
func (c *Client) due() (CloseReason, bool) {
	e, gone, drained := c.slot.current.Load(), c.slot.gone.Load(), c.evacuating.Load()
	switch {
	case gone != nil:
		return *gone, true
	case drained != nil:
		return *drained, true
	case c.draining():
		return CloseReason{Code: CloseGoingAway, Reason: reasonShutdown}, true
	case e.failed != nil:
		return CloseReason{Code: CloseInternalError, Reason: reasonFailed}, true
	case c.forwarded != e.o.Forwarding: // from logic to a backend, or back
		return CloseReason{Code: CloseServiceRestart, Reason: reasonChanged}, true
	}
	return CloseReason{}, false
}

// closeIfDue closes a client that has to go. One whose handshake was under way
// while the others were told asks by itself.
func (c *Client) closeIfDue() {
	if reason, due := c.due(); due {
		c.close(reason, false)
	}
}

// listen says what is done with control frames.
func (c *Client) listen() {
	c.ws.SetPingHandler(func(payload string) error {
		c.queue.pushPong([]byte(payload))
		return c.allow()
	})
	c.ws.SetPongHandler(func(string) error {
		c.queue.ponged()
		return c.allow()
	})
	c.ws.SetCloseHandler(func(code int, reason string) error {
		c.answered = true
		c.close(CloseReason{Code: code, Reason: reason, ByPeer: true}, false)
		return nil
	})
}

// read handles messages until none can follow, and notes why; or until it is no
// longer this goroutine's turn, see reply.
func (c *Client) read() (passed, more bool) {
	for {
		if passed, more := c.reply(); passed {
			return true, more
		}
		kind, r, err := c.ws.NextReader()
		if err != nil {
			c.unreadable(err)
			return false, false
		}
		data, err := c.readMessage(r)
		if err == nil && kind == websocket.TextMessage && !utf8.Valid(data) {
			err = &protocolError{CloseInvalidPayload, "text message is not UTF-8"}
		}
		if err == nil {
			err = c.allow()
		}
		if err != nil {
			c.unreadable(err)
			return false, false
		}
		c.handled++
		if c.isClosing() {
			continue // only the answer to the close frame is waited for
		}
		c.queue.hold()
		c.messagesIn.Add(1)
		c.watchedMessage(EventMessage, Message{Type: MessageType(kind), Data: data})      //nolint:gosec // 1 or 2
		if err := c.onMessage(Message{Type: MessageType(kind), Data: data}); err != nil { //nolint:gosec // 1 or 2
			c.failed(err)
		}
	}
}

// messageBuffers hold a message while it is read and its size is not known.
var messageBuffers = sync.Pool{New: func() any {
	const most = 4 << 10 // larger messages get a buffer that they keep
	b := make([]byte, 0, most)
	return &b
}}

// readMessage reads a whole message into memory of its own, and not more of it
// than the endpoint allows, however far it inflates.
func (c *Client) readMessage(r io.Reader) ([]byte, error) {
	limit := c.slot.current.Load().o.MaxMessageSize
	pooled := messageBuffers.Get().(*[]byte)
	defer messageBuffers.Put(pooled)
	data := (*pooled)[:0]
	if size := c.comesIn(); size > cap(data) {
		data = make([]byte, 0, size)
	}
	for {
		n, err := r.Read(data[len(data):cap(data)])
		data = data[:len(data)+n]
		if int64(len(data)) > limit {
			return nil, &protocolError{CloseMessageTooBig, fmt.Sprintf("message has more than %d bytes", limit)}
		}
		if err == io.EOF {
			if cap(data) == cap(*pooled) {
				data = bytes.Clone(data)
			}
			return data, nil
		}
		if err != nil {
			return nil, err
		}
		if len(data) == cap(data) {
			data = append(data, 0)[:len(data)]
		}
	}
}

// comesIn returns how much room to make for the message that is about to be read,
// as far as a peer is believed that has only said so; 0 if that is not known.
func (c *Client) comesIn() int {
	const believed = 64 << 10
	check := &c.wire.check
	if c.handled < check.messages || !check.data || check.walk.left == 0 {
		return 0 // it is in hand already, and small
	}
	return int(min(check.walk.length(), believed)) + 1 // one more, so that its end is seen without growing
}

// allow counts one message or control frame against the endpoint's rate.
func (c *Client) allow() error {
	rate := c.slot.current.Load().o.MessageRate
	if rate == (Rate{}) {
		return nil // without asking for the time
	}
	if !c.bucket.take(rate, c.now()) {
		return &protocolError{ClosePolicyViolation, fmt.Sprintf("more than %g messages a second", rate.PerSecond)}
	}
	return nil
}

// unreadable notes why nothing can be read any more, unless a close frame of
// either side did already.
func (c *Client) unreadable(err error) {
	if broken, ok := errors.AsType[*protocolError](err); ok {
		c.close(CloseReason{Code: broken.code, Reason: broken.reason}, false)
		return
	}
	if isCorrupt(err) {
		c.close(CloseReason{Code: CloseInvalidPayload, Reason: "compressed data is corrupt"}, false)
		return
	}
	if errors.Is(err, websocket.ErrReadLimit) { // the lengths of fragments add up to more than 63 bits
		c.close(CloseReason{Code: CloseMessageTooBig, Reason: "message is too large"}, false)
		return
	}
	why := "connection lost"
	if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) && !websocket.IsUnexpectedCloseError(err) {
		why += ": " + err.Error()
	}
	c.close(CloseReason{Code: CloseAbnormal, Reason: why, ByPeer: true}, true)
}

// finish ends the connection and calls OnClose.
func (c *Client) finish() {
	c.unhold()
	c.close(CloseReason{Code: CloseAbnormal, Reason: "logic left its goroutine"}, true) // only if nothing else was noted: runtime.Goexit
	c.hangUp()
	c.endContext()
	reason := c.closeReason()
	defer c.forget(reason) // also if OnClose leaves its goroutine
	c.onClose(reason)
}

// forget drops what was counted and known of the client, and says in the log that
// it is gone.
func (c *Client) forget(reason CloseReason) {
	c.slot.tally.leave(c, reason)
	c.watchedClose(reason)
	c.slot.counts.release(limitKey(c.ip))
	level, t := slog.LevelInfo, c.traffic()
	if c.slow.Load() != 0 {
		level = slog.LevelWarn
	}
	c.say(&placeGone, level, "client gone",
		slog.Int("code", reason.Code), slog.String("reason", reason.Reason), slog.Bool("by_peer", reason.ByPeer),
		slog.Duration("duration", time.Since(c.connectedAt)),
		slog.Int64("messages_in", t.MessagesIn), slog.Int64("messages_out", t.MessagesOut),
		slog.Int64("messages_dropped", t.Dropped), slog.Int64("messages_unsent", t.Unsent),
		slog.Int64("bytes_in", t.BytesIn), slog.Int64("bytes_out", t.BytesOut))
}

func (c *Client) closeReason() CloseReason {
	c.mu.Lock()
	defer c.mu.Unlock()
	return *c.reason
}

// hangUp waits until the close frame is out and closes the connection. The
// sweeper sees to it that this does not take for ever.
func (c *Client) hangUp() {
	reason := c.closeReason()
	if flushed := c.queue.wait(); flushed != nil {
		<-flushed
		if !c.answered {
			c.linger()
		}
	}
	if reason.Code == CloseAbnormal || c.killed.Load() {
		_ = c.wire.bottom().Close() // TLS would send an alert, to nobody
	}
	_ = c.wire.Close() // an error means that it is closed
}

// linger reads until the peer closes, too. Closing with bytes unread would reset
// the connection, and the peer might never see the close frame. A stream ends with
// what was written to it, whatever was not read.
func (c *Client) linger() {
	if _, ok := c.wire.conn.(*stream); ok {
		return
	}
	closeWrite(c.wire.conn)                 // the peer may be gone already
	_, _ = io.Copy(io.Discard, c.wire.conn) // whatever ends it, the connection is closed next
}
