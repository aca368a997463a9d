package gatewaytest

import (
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// Buffer is how many bytes a connection holds in each direction before a write
// blocks, as the buffers of a kernel would.
const Buffer = 64 << 10

// Pipe returns the two ends of a connection in memory, from DefaultIP. Unlike
// net.Pipe it has a buffer, and unlike a real connection it can be used in a
// synctest bubble: who blocks, blocks durably.
func Pipe() (atClient, atServer *Conn) {
	return pipe(&net.TCPAddr{IP: net.ParseIP(DefaultIP), Port: 1}, serverAddr)
}

func pipe(client, server net.Addr) (atClient, atServer *Conn) {
	up, down := newStream(), newStream()
	atClient = &Conn{in: down, out: up, local: client, remote: server}
	atServer = &Conn{in: up, out: down, local: server, remote: client}
	return atClient, atServer
}

// Conn is one end of a connection in memory. Like a TCP connection it can be
// half-closed; what was written before a close can still be read.
type Conn struct {
	in, out       *stream
	local, remote net.Addr
}

// Read reads what the other end has written.
func (c *Conn) Read(p []byte) (int, error) { return c.in.read(p) }

// Write writes to the other end. It blocks while Buffer bytes are unread.
func (c *Conn) Write(p []byte) (int, error) { return c.out.write(p) }

// Close ends both directions.
func (c *Conn) Close() error {
	c.in.update(func(s *stream) { s.readerGone = true })
	c.out.update(func(s *stream) { s.writerGone = true })
	return nil
}

// CloseWrite ends the direction to the other end, which reads EOF.
func (c *Conn) CloseWrite() error {
	c.out.update(func(s *stream) { s.writerGone = true })
	return nil
}

// LocalAddr returns the address of this end.
func (c *Conn) LocalAddr() net.Addr { return c.local }

// RemoteAddr returns the address of the other end.
func (c *Conn) RemoteAddr() net.Addr { return c.remote }

// SetDeadline sets both deadlines.
func (c *Conn) SetDeadline(t time.Time) error {
	_ = c.SetReadDeadline(t)
	return c.SetWriteDeadline(t)
}

// SetReadDeadline also wakes a Read that is blocked.
func (c *Conn) SetReadDeadline(t time.Time) error {
	c.in.update(func(s *stream) { s.readBy = t })
	return nil
}

// SetWriteDeadline also wakes a Write that is blocked.
func (c *Conn) SetWriteDeadline(t time.Time) error {
	c.out.update(func(s *stream) { s.writeBy = t })
	return nil
}

// stream is one direction.
type stream struct {
	mu         sync.Mutex
	buf        []byte        // guarded by mu
	writerGone bool          // guarded by mu
	readerGone bool          // guarded by mu
	readBy     time.Time     // guarded by mu
	writeBy    time.Time     // guarded by mu
	changed    chan struct{} // guarded by mu; closed and replaced at every change
}

func newStream() *stream { return &stream{changed: make(chan struct{})} }

func (s *stream) update(f func(*stream)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(s)
	s.wake()
}

func (s *stream) wake() {
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *stream) read(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		switch {
		case s.readerGone:
			return 0, net.ErrClosed
		case expired(s.readBy):
			return 0, os.ErrDeadlineExceeded
		case len(s.buf) > 0:
			n := copy(p, s.buf)
			s.buf = s.buf[n:]
			s.wake()
			return n, nil
		case s.writerGone:
			return 0, io.EOF
		case len(p) == 0:
			return 0, nil
		}
		s.wait(s.readBy)
	}
}

func (s *stream) write(p []byte) (n int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		switch {
		case s.writerGone:
			return n, net.ErrClosed
		case s.readerGone:
			return n, syscall.EPIPE
		case expired(s.writeBy):
			return n, os.ErrDeadlineExceeded
		case len(p) == 0:
			return n, nil
		}
		if room := min(Buffer-len(s.buf), len(p)); room > 0 {
			s.buf = append(s.buf, p[:room]...)
			p = p[room:]
			n += room
			s.wake()
			continue
		}
		s.wait(s.writeBy)
	}
}

// wait releases the lock until something changes or the deadline passes.
func (s *stream) wait(deadline time.Time) {
	changed := s.changed
	s.mu.Unlock()
	defer s.mu.Lock()
	if deadline.IsZero() {
		<-changed
		return
	}
	timer := time.NewTimer(time.Until(deadline))
	defer timer.Stop()
	select {
	case <-changed:
	case <-timer.C:
	}
}

func expired(t time.Time) bool { return !t.IsZero() && !time.Now().Before(t) }
