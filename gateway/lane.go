package gateway

import (
	"crypto/rand"
	"encoding/binary"
	"io"
	"sync"
	"sync/atomic"
)

// lane is one direction of a tunnel.
type lane struct {
	to      io.Writer
	now     func() int64
	masked  bool // the frames are a client's
	bytes   *atomic.Int64
	message func(t MessageType, size int64) // is told of each whole message that passes
	closed  func(code int, reason string)   // is told the close frame that passes, if none was placed before
	over    func()                          // is told that a close frame has come

	// progress is when the write under way began; 0 while nothing is written.
	progress atomic.Int64

	mu      sync.Mutex  // held while writing
	walk    frameWalk   // guarded by mu
	kind    MessageType // guarded by mu; of the message that passes
	size    int64       // guarded by mu; of what has passed of it
	payload []byte      // guarded by mu; of the close frame that passes, with its mask; nil if none does
	pending []byte      // guarded by mu; a close frame of ours that waits for the end of a frame
	failed  error       // guarded by mu; why nothing can be written any more
	done    bool        // guarded by mu; a close frame has passed or been placed: nothing may follow
}

// forward writes p, with the pending close frame at the first place where it can
// stand.
func (l *lane) forward(p []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.bytes.Add(int64(len(p)))
	end := len(p) // what of p is passed on
	for i := 0; i < len(p); {
		if l.done || l.pending != nil && l.walk.between() {
			end = min(end, i)
		}
		n, whole := l.walk.step(p[i:])
		switch {
		case whole:
			l.begin()
		case l.payload != nil:
			l.payload = append(l.payload, p[i:i+n]...)
		}
		i += n
		if l.walk.left == 0 && l.payload != nil {
			l.end()
			end = min(end, i)
		}
	}
	if err := l.write(p[:end]); err != nil {
		return err
	}
	return l.place()
}

// begin looks at the header of a frame.
func (l *lane) begin() {
	op := l.walk.opcode()
	switch {
	case op < opClose:
		if op != opContinuation {
			l.kind, l.size = MessageType(op), 0
		}
		if l.size += int64(l.walk.length()); l.walk.final() { //nolint:gosec // a length of 64 bits is the peer's joke
			l.message(l.kind, l.size)
		}
	case op == opClose && l.walk.length() <= maxControlPayload && l.payload == nil:
		l.payload = make([]byte, 0, maskingKey+maxControlPayload)
	}
}

// end tells about the close frame that has passed.
func (l *lane) end() {
	payload := l.payload
	if l.walk.header[1]&bitMask != 0 {
		payload = payload[maskingKey:]
		for i := range payload {
			payload[i] ^= l.payload[i%maskingKey]
		}
	}
	l.payload = nil
	defer l.over()
	first := !l.done
	l.done = true
	l.pending = nil
	if !first {
		return
	}
	code, reason := CloseNoStatus, ""
	if len(payload) >= 2 {
		code, reason = int(binary.BigEndian.Uint16(payload)), string(payload[2:])
	}
	l.closed(code, reason)
}

// close places a close frame, now or at the end of the frame that is passing. It
// reports whether the frame, or another one, is out. It blocks as long as a write
// does.
func (l *lane) close(frame []byte) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.done {
		l.pending = frame
		_ = l.place() // the other side learns of it by reading
	}
	return l.done
}

// place writes the pending close frame if it can stand here.
func (l *lane) place() error {
	if l.pending == nil || l.done || !l.walk.between() {
		return nil
	}
	l.done = true
	return l.write(l.pending)
}

func (l *lane) write(p []byte) error {
	if len(p) == 0 {
		return nil
	}
	l.progress.Store(l.now())
	defer l.progress.Store(0)
	_, err := l.to.Write(p)
	if err != nil {
		l.failed = err
	}
	return err
}

// failure returns why nothing can be written any more, or nil.
func (l *lane) failure() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.failed
}

// maskFrame returns a short frame as a client sends it.
func maskFrame(frame []byte) []byte {
	const head = 2
	masked := append(make([]byte, 0, len(frame)+maskingKey), frame[0], frame[1]|bitMask)
	var key [maskingKey]byte
	_, _ = rand.Read(key[:]) // never fails
	masked = append(masked, key[:]...)
	for i, b := range frame[head:] {
		masked = append(masked, b^key[i%maskingKey])
	}
	return masked
}
