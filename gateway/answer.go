package gateway

import (
	"bytes"
	"crypto/sha1" //nolint:gosec // see acceptKey
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
)

// answer sends the answer to a handshake through the ResponseWriter that the
// request came with, so that middleware around it sees the status and its header
// fields arrive, and takes over the connection.
type answer struct {
	w        http.ResponseWriter
	hijacker http.Hijacker // nil if the connection is a stream
	header   http.Header   // what logic adds

	// Over HTTP/2 and HTTP/3, where the connection stays the server's:
	out    streamWriter
	body   io.ReadCloser
	stream *stream // nil before takeOver

	// extensions and subprotocol are the answer to the offers of the client; empty if
	// there is none.
	extensions  string
	subprotocol string

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

// send accepts the handshake with this Sec-WebSocket-Key, and returns the connection
// and what the client has already sent on it.
func (a *answer) send(key string) (conn net.Conn, rest []byte, err error) {
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
	delete(h, "Content-Length")
	delete(h, "Transfer-Encoding")
	status := http.StatusSwitchingProtocols
	fields := [...]struct{ name, value string }{
		{"Upgrade", "websocket"},
		{"Connection", "Upgrade"},
		{"Sec-Websocket-Accept", acceptKey(key)},
		{"Sec-Websocket-Extensions", a.extensions},
		{"Sec-Websocket-Protocol", a.subprotocol},
	}
	if a.out != nil { // there is nothing to upgrade
		for i := range fields[:3] {
			fields[i].value = ""
		}
		status = http.StatusOK
	}
	values := make([]string, len(fields)) // one array for all
	for i, f := range fields {
		if f.value == "" {
			delete(h, f.name)
			continue
		}
		values[i] = f.value
		h[f.name] = values[i : i+1 : i+1]
	}
	a.written = true
	a.w.WriteHeader(status)
	return a.takeOver()
}

// acceptKey returns the Sec-WebSocket-Accept for a Sec-WebSocket-Key (RFC 6455
// section 4.2.2).
func acceptKey(key string) string {
	const guid = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
	var room [64]byte
	sum := sha1.Sum(append(append(room[:0], key...), guid...)) //nolint:gosec // what the RFC wants, and no secret
	return base64.StdEncoding.EncodeToString(sum[:])
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
