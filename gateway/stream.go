package gateway

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"
)

// stream is the connection of a client that came by an extended CONNECT over
// HTTP/2 (RFC 8441) or HTTP/3 (RFC 9220): the body of the request and that of the
// answer. Such a connection cannot be taken over. It lives in the handler of the
// request, which waits, see stay, and must not touch anything of it once it has
// returned; so everything that uses it is counted in and out.
type stream struct {
	body io.ReadCloser
	out  streamWriter

	mu        sync.Mutex
	reading   int           // guarded by mu; Reads under way
	writing   int           // guarded by mu; Writes under way
	closed    bool          // guarded by mu; no more Read or Write begins
	writeOver bool          // guarded by mu; no more Write begins
	aborted   bool          // guarded by mu; something was written in part: the stream is to be reset
	left      bool          // guarded by mu; free is closed
	free      chan struct{} // closed when the handler may return
	readTimer *time.Timer   // guarded by mu; nil without a deadline
}

// streamWriter is what the innermost http.ResponseWriter of an HTTP/2 or HTTP/3
// server can do.
type streamWriter interface {
	http.ResponseWriter
	FlushError() error
	SetReadDeadline(time.Time) error
	SetWriteDeadline(time.Time) error
}

// errNoStream is returned for middleware that hides the stream.
var errNoStream = errors.New("the stream cannot be used: the innermost http.ResponseWriter has no FlushError, SetReadDeadline and SetWriteDeadline")

// streamOf returns the innermost writer. Those around it limit how long a request
// or a pause in it may last, and count and compress what is a page's.
func streamOf(w http.ResponseWriter) (streamWriter, error) {
	for {
		u, ok := w.(interface{ Unwrap() http.ResponseWriter })
		if !ok {
			break
		}
		w = u.Unwrap()
	}
	if out, ok := w.(streamWriter); ok {
		return out, nil
	}
	return nil, errNoStream
}

// openStream makes a stream of a request whose answer has begun, and sends what
// there is of that.
func openStream(body io.ReadCloser, out streamWriter) (*stream, error) {
	// A server's limits of a request's duration are not meant for a connection: they
	// do not hold for one that was taken over either.
	for _, clear := range []func(time.Time) error{out.SetReadDeadline, out.SetWriteDeadline} {
		if err := clear(time.Time{}); err != nil {
			return nil, fmt.Errorf("clearing the server's time-outs: %w", err)
		}
	}
	if err := out.FlushError(); err != nil {
		return nil, fmt.Errorf("sending the answer: %w", err)
	}
	return &stream{body: body, out: out, free: make(chan struct{})}, nil
}

// begin counts a Read or Write in.
func (s *stream) begin(count *int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || count == &s.writing && s.writeOver {
		return false
	}
	*count++
	return true
}

// end counts it out.
func (s *stream) end(count *int, failed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	*count--
	if failed {
		s.aborted = true
	}
	s.leaveIfFree()
}

// leaveIfFree lets the handler return if nothing uses the stream, or will. The
// caller holds mu.
func (s *stream) leaveIfFree() {
	if s.closed && s.reading == 0 && s.writing == 0 && !s.left {
		s.left = true
		if s.readTimer != nil {
			s.readTimer.Stop()
		}
		close(s.free)
	}
}

// stay is called by the handler: it returns when that may. If not all of a write
// went out, it panics with http.ErrAbortHandler, so that the server resets the
// stream: to end it in order, in the middle of a frame, is an error of the whole
// connection in HTTP/3 (RFC 9114 section 7.1).
func (s *stream) stay() {
	<-s.free
	if s.aborted { // nobody changes it any more
		panic(http.ErrAbortHandler)
	}
}

// Read reads what the client has sent.
func (s *stream) Read(p []byte) (int, error) {
	if !s.begin(&s.reading) {
		return 0, net.ErrClosed
	}
	defer s.end(&s.reading, false)
	return s.body.Read(p)
}

// Write sends p, at once.
func (s *stream) Write(p []byte) (n int, err error) {
	if !s.begin(&s.writing) {
		return 0, net.ErrClosed
	}
	defer func() { s.end(&s.writing, err != nil) }()
	if n, err = s.out.Write(p); err == nil {
		err = s.out.FlushError()
	}
	return n, err
}

// CloseWrite ends the direction to the client, which learns of it when the stream
// is closed.
func (s *stream) CloseWrite() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.writeOver = true
	return nil
}

// Close lets the handler return, and wakes whoever reads or writes.
func (s *stream) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.close()
	return nil
}

// close is Close with mu held.
func (s *stream) close() {
	if s.closed {
		return
	}
	s.closed = true
	if s.writing > 0 {
		s.aborted = true
		_ = s.out.SetWriteDeadline(longAgo) // an error means that it has ended
	}
	if s.reading > 0 {
		_ = s.body.Close() // a deadline in the past would do for HTTP/3 only, and only for now
	}
	s.leaveIfFree()
}

// SetDeadline ends the stream if the deadline has passed: no deadline of a stream
// can be taken back, nor does one wait for a Read or Write.
func (s *stream) SetDeadline(t time.Time) error {
	if !passed(t) {
		return errors.ErrUnsupported
	}
	return s.Close()
}

// SetReadDeadline ends reading at that time.
func (s *stream) SetReadDeadline(t time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.left:
		return net.ErrClosed
	case s.readTimer != nil:
		s.readTimer.Stop()
		s.readTimer = nil
	}
	switch {
	case t.IsZero():
	case passed(t):
		return s.body.Close()
	default:
		s.readTimer = time.AfterFunc(time.Until(t), func() { _ = s.SetReadDeadline(longAgo) })
	}
	return nil
}

// SetWriteDeadline ends the stream if the deadline has passed, like SetDeadline.
func (s *stream) SetWriteDeadline(t time.Time) error { return s.SetDeadline(t) }

func passed(deadline time.Time) bool { return !deadline.IsZero() && !deadline.After(time.Now()) }

// LocalAddr and RemoteAddr are asked for by nobody: the server in front knows the
// client's address.
func (*stream) LocalAddr() net.Addr  { return streamAddr{} }
func (*stream) RemoteAddr() net.Addr { return streamAddr{} }

type streamAddr struct{}

func (streamAddr) Network() string { return "http" }
func (streamAddr) String() string  { return "stream" }
