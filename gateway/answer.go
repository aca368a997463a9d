package gateway

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
)

// answer sends the answer that gorilla wrote to a handshake through the
// ResponseWriter that the request came with, so that middleware around it sees
// the status and its header fields arrive, and takes over the connection.
type answer struct {
	w        http.ResponseWriter
	hijacker http.Hijacker // nil if the connection is a stream
	header   http.Header   // what logic adds

	// Over HTTP/2 and HTTP/3, where the connection stays the server's:
	out    streamWriter
	body   io.ReadCloser
	stream *stream // nil before takeOver

	// extensions is the answer to the offers of the client; empty if there is none.
	extensions string

	written bool // the ResponseWriter has been given the status
}

// errNoHijack is returned for middleware that hides the connection.
var errNoHijack = errors.New("the connection cannot be taken over: no http.ResponseWriter on the way implements http.Hijacker")

// newAnswer finds the innermost writer that can be hijacked. Those around it,
// which count bytes for an access log, say, would stay in memory as long as the
// connection and hide what it is.
func newAnswer(w http.ResponseWriter, r *http.Request) (*answer, error) {
	a := &answer{w: w}
	if isStream(r) {
		out, err := streamOf(w)
		a.out, a.body = out, r.Body
		return a, err
	}
	for inner := w; inner != nil; {
		if h, ok := inner.(http.Hijacker); ok {
			a.hijacker = h
		}
		u, ok := inner.(interface{ Unwrap() http.ResponseWriter })
		if !ok {
			break
		}
		inner = u.Unwrap()
	}
	if a.hijacker == nil {
		return nil, errNoHijack
	}
	return a, nil
}

// send sends p, a whole response header, and returns the connection and what
// the client has already sent on it.
func (a *answer) send(p []byte) (conn net.Conn, rest []byte, err error) {
	resp, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(p)), nil)
	if err != nil {
		return nil, nil, fmt.Errorf("reading the handshake's answer: %w", err)
	}
	_ = resp.Body.Close() // a 101 has none
	h := a.w.Header()
	for name, values := range a.header {
		switch name = http.CanonicalHeaderKey(name); name {
		case "Set-Cookie":
			h[name] = append(h[name], values...) // beside those of middleware
		case "Connection", "Upgrade", "Content-Length", "Transfer-Encoding",
			"Sec-Websocket-Accept", "Sec-Websocket-Extensions", "Sec-Websocket-Protocol":
			// By these the client tells whether the handshake was understood.
		default:
			h[name] = values
		}
	}
	for _, name := range []string{"Content-Length", "Transfer-Encoding", "Sec-Websocket-Extensions", "Sec-Websocket-Protocol"} {
		h.Del(name)
	}
	if a.out != nil {
		onlyStream(resp)
	}
	maps.Copy(h, resp.Header)
	if a.extensions != "" {
		h.Set("Sec-Websocket-Extensions", a.extensions)
	}
	a.written = true
	a.w.WriteHeader(resp.StatusCode)
	return a.takeOver()
}

// takeOver returns the connection and what the client has already sent on it.
func (a *answer) takeOver() (conn net.Conn, early []byte, err error) {
	if a.out != nil {
		_ = http.NewResponseController(a.w).Flush() // those around the innermost writer, as far as they can
		if a.stream, err = openStream(a.body, a.out); err != nil {
			return nil, nil, err
		}
		return a.stream, nil, nil
	}
	conn, brw, err := a.hijacker.Hijack()
	if err != nil {
		return nil, nil, fmt.Errorf("taking over the connection: %w", err)
	}
	if n := brw.Reader.Buffered(); n > 0 {
		peeked, _ := brw.Peek(n) // cannot fail: that much is buffered
		early = bytes.Clone(peeked)
	}
	return conn, early, nil
}

// stay is called by the handler of the request when the client lives: over HTTP/2
// and HTTP/3 it returns when the client is gone.
func (a *answer) stay() {
	if a.stream != nil {
		a.stream.stay()
	}
}

// upgradeWriter is the http.ResponseWriter that gorilla upgrades: it hands out
// the wire in place of the connection.
type upgradeWriter struct {
	http.ResponseWriter // gorilla writes no response: its Error hook is set
	wire                *wire
}

// Hijack returns the wire.
func (u upgradeWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	// gorilla looks only whether something was read already, and borrows no
	// buffer of this size.
	empty := bufio.NewReadWriter(bufio.NewReaderSize(u.wire, 16), bufio.NewWriterSize(u.wire, 16))
	return u.wire, empty, nil
}
