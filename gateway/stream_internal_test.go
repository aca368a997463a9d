package gateway

import (
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// fakeStream is a server's side of a stream: its body can be read until it is
// closed, and a Write blocks while nobody takes what is written.
type fakeStream struct {
	http.ResponseWriter // none

	body *io.PipeReader
	sent *io.PipeWriter // to the body

	mu       sync.Mutex
	calls    []string      // guarded by mu
	full     chan struct{} // closed when a blocked Write is to fail; nil if none blocks
	left     bool          // guarded by mu; the handler has returned
	misused  bool          // guarded by mu; it was used after that
	flushErr error         // guarded by mu
}

func newFakeStream() *fakeStream {
	r, w := io.Pipe()
	return &fakeStream{body: r, sent: w}
}

func (f *fakeStream) called(what string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls = append(f.calls, what)
	f.misused = f.misused || f.left
}

func (f *fakeStream) Write(p []byte) (int, error) {
	f.called("write " + string(p))
	if f.full == nil {
		return len(p), nil
	}
	<-f.full
	return len(p) / 2, os.ErrDeadlineExceeded
}

func (f *fakeStream) FlushError() error {
	f.called("flush")
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.flushErr
}

func (f *fakeStream) SetReadDeadline(t time.Time) error {
	f.called("read deadline " + t.Format(time.DateOnly))
	return nil
}

func (f *fakeStream) SetWriteDeadline(t time.Time) error {
	f.called("write deadline " + t.Format(time.DateOnly))
	if !t.IsZero() && f.full != nil {
		close(f.full)
	}
	return nil
}

func (f *fakeStream) said() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return strings.Join(f.calls, ", ")
}

// handle opens a stream in a handler of its own, and returns what that panics with
// when it has returned, if it does.
func (f *fakeStream) handle(t *testing.T) (*stream, <-chan any) {
	t.Helper()
	s, err := openStream(f.body, f)
	if err != nil {
		t.Fatal(err)
	}
	f.mu.Lock()
	f.calls = nil
	f.mu.Unlock()
	returned := make(chan any, 1)
	go func() {
		defer func() {
			p := recover()
			f.mu.Lock()
			f.left = true
			f.mu.Unlock()
			returned <- p
		}()
		s.stay()
	}()
	return s, returned
}

// What a server allows a request to take, a connection may exceed: read_timeout and
// write_timeout end no HTTP/1.1 socket either.
func TestStreamClearsTheServersTimeouts(t *testing.T) {
	f := newFakeStream()
	if _, err := openStream(f.body, f); err != nil {
		t.Fatal(err)
	}
	if got, want := f.said(), "read deadline 0001-01-01, write deadline 0001-01-01, flush"; got != want {
		t.Errorf("opening does %q, want %q", got, want)
	}
}

// Each flush is a frame of its own on the wire, and maybe a packet.
func TestStreamFlushesEachWriteOnce(t *testing.T) {
	f := newFakeStream()
	s, _ := f.handle(t)
	defer s.Close()
	for _, p := range []string{"one", "two"} {
		if n, err := s.Write([]byte(p)); n != len(p) || err != nil {
			t.Errorf("writing %q: %d, %v", p, n, err)
		}
	}
	if got, want := f.said(), "write one, flush, write two, flush"; got != want {
		t.Errorf("did %q, want %q", got, want)
	}
}

// A handler that has returned must not be written to: net/http panics, in whatever
// goroutine that is, and Caddy is gone with all its clients.
func TestHandlerStaysWhileItsStreamIsUsed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeStream()
		f.full = make(chan struct{})
		s, returned := f.handle(t)
		wrote, read := make(chan error, 1), make(chan error, 1)
		go func() {
			_, err := s.Write([]byte("frame"))
			wrote <- err
		}()
		go func() {
			_, err := s.Read(make([]byte, 1))
			read <- err
		}()
		synctest.Wait()
		select {
		case <-returned:
			t.Fatal("the handler has returned while the stream is used")
		default:
		}
		if err := s.SetDeadline(longAgo); err != nil {
			t.Error(err)
		}
		if p := <-returned; p != http.ErrAbortHandler { //nolint:errorlint // as net/http compares
			t.Errorf("the handler ended with %v: half a frame was sent, the stream must be reset", p)
		}
		if err := <-wrote; err == nil {
			t.Error("a write that was cut has succeeded")
		}
		if err := <-read; err == nil {
			t.Error("a read that was cut has succeeded")
		}
		for _, use := range []func() error{
			func() error { _, err := s.Write([]byte("late")); return err },
			func() error { _, err := s.Read(make([]byte, 1)); return err },
			func() error { return s.SetReadDeadline(time.Now().Add(time.Second)) },
		} {
			if err := use(); !errors.Is(err, net.ErrClosed) {
				t.Errorf("after the end: %v, want net.ErrClosed", err)
			}
		}
		_, _ = s.Close(), s.SetDeadline(longAgo)
		if f.misused {
			t.Errorf("used after its handler has returned: %s", f.said())
		}
	})
}

// Nothing is wrong with a stream that nobody wrote to when it ended: a reset would
// be taken for an error, by proxies too.
func TestStreamThatIsNotWrittenToEndsInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for name, end := range map[string]func(*stream) error{
			"Close":    (*stream).Close,
			"deadline": func(s *stream) error { return s.SetDeadline(longAgo) },
			"CloseWrite, Close": func(s *stream) error {
				_ = s.CloseWrite()
				if _, err := s.Write([]byte("more")); !errors.Is(err, net.ErrClosed) {
					t.Errorf("writing after CloseWrite: %v", err)
				}
				return s.Close()
			},
		} {
			f := newFakeStream()
			s, returned := f.handle(t)
			if err := end(s); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			if p := <-returned; p != nil || f.said() != "" {
				t.Errorf("%s: the handler panics with %v, after %q", name, p, f.said())
			}
		}
	})
}

// A client whose connection takes nothing more may have sent its reason: that is
// read for a moment, and no longer.
func TestStreamIsReadUntilItsDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeStream()
		s, returned := f.handle(t)
		start := time.Now()
		if err := s.SetReadDeadline(start.Add(time.Second)); err != nil {
			t.Fatal(err)
		}
		go func() { _, _ = f.sent.Write([]byte("x")) }()
		if n, err := s.Read(make([]byte, 1)); n != 1 || err != nil {
			t.Errorf("read %d, %v", n, err)
		}
		if _, err := s.Read(make([]byte, 1)); err == nil || time.Since(start) != time.Second {
			t.Errorf("read %v after %s, want an error after a second", err, time.Since(start))
		}
		_ = s.Close()
		<-returned
	})
}

// A failed flush is a failed write: what was to be sent did not go out.
func TestWriteThatCannotBeFlushedFails(t *testing.T) {
	f := newFakeStream()
	s, returned := f.handle(t)
	f.mu.Lock()
	f.flushErr = io.ErrClosedPipe
	f.mu.Unlock()
	if _, err := s.Write([]byte("x")); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("writing: %v", err)
	}
	_ = s.Close()
	if p := <-returned; p != http.ErrAbortHandler { //nolint:errorlint // as net/http compares
		t.Errorf("the handler ended with %v, want http.ErrAbortHandler", p)
	}
}
