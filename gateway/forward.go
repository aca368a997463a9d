package gateway

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

// Forward lets a backend answer a handshake, under the rules and limits of the
// endpoint, which must be Forwarding, and then joins the two. Of the endpoint's options only Origins,
// MaxClients, MaxClientsPerIP, WriteTimeout (for an answer to a close) and
// IdleTimeout (here: nothing from either side) have a meaning; its logic is not
// called. The client is counted and listed, and can be closed; it cannot be sent
// to.
//
// pass passes the request on and writes the backend's answer to w. If that is 101
// it hijacks w, whose connection it must then leave alone, and returns the
// connection to the backend. Otherwise it returns nil; its error is Forward's. What
// it is given is always an HTTP/1.1 upgrade, and it answers one; what a client over
// HTTP/2 or HTTP/3 is answered is made of that.
//
// Like Upgrade, Forward returns at once when the handshake is answered, over HTTP/2
// and HTTP/3 when the client is gone, and a
// *HandshakeError if it is refused before anything was written. The client is nil
// unless the backend accepted.
func (e *Endpoint) Forward(w http.ResponseWriter, r *http.Request, id Identity, pass func(http.ResponseWriter, *http.Request) (backend io.ReadWriteCloser, err error)) (*Client, error) {
	c, err := e.pass(w, r, id, pass)
	return c, e.counted(err)
}

func (e *Endpoint) pass(w http.ResponseWriter, r *http.Request, id Identity, pass func(http.ResponseWriter, *http.Request) (io.ReadWriteCloser, error)) (*Client, error) {
	live, answer, err := e.receive(w, r, id, true)
	if err != nil {
		return nil, err
	}
	c := live.newClient(r, id)
	c.forwarded = true
	if err := live.admit(c, id); err != nil {
		return nil, err
	}
	f := &forwardWriter{ResponseWriter: w, answer: answer}
	if isStream(r) {
		r = f.asUpgrade(r)
	}
	joined := false
	var back io.ReadWriteCloser
	defer func() { // also if pass panics, as http.ErrAbortHandler asks for
		if !joined {
			c.abandon()
			f.close()
			if back != nil {
				_ = back.Close()
			}
		}
	}()
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	defer context.AfterFunc(c.overdue, cancel)() // a backend may take for ever
	back, err = pass(f, r.WithContext(ctx))
	if err != nil || back == nil || f.conn == nil {
		if err == nil && f.status == 0 && f.key != "" {
			err = refuse(http.StatusBadGateway, errors.New("nobody has answered")) // the server would, with 200
		}
		if err == nil && f.status != 0 {
			e.slot.tally.handshake(f.status)
		}
		return nil, err
	}
	joined = true
	c.join(f.conn, back, headerInAnyCase(w.Header(), "Sec-WebSocket-Protocol"), id)
	go c.runTunnel(f.early)
	answer.stay()
	return c, nil
}

// join connects the client to its backend.
func (c *Client) join(conn net.Conn, back io.ReadWriteCloser, subprotocol string, id Identity) {
	c.wire.conn = conn
	c.mu.Lock()
	c.subprotocol = subprotocol
	c.tunnel = newTunnel(c, back)
	reason := c.reason
	c.mu.Unlock()
	c.opened(id)
	if reason != nil { // it was closed while the backend was asked
		c.tunnel.close(*reason)
	}
	if c.killed.Load() {
		c.cut()
	}
}

// runTunnel is the goroutine of a client that is connected to a backend.
func (c *Client) runTunnel(early []byte) {
	defer c.conns.Done()
	defer c.recovered("client")
	defer func() {
		c.endContext()
		c.forget(c.closeReason())
	}()
	c.closeIfDue()
	c.tunnel.run(early)
}

// headerInAnyCase returns a field that may not be under its canonical name: what
// passes on a backend's header may write it as RFC 6455 does.
func headerInAnyCase(h http.Header, name string) string {
	for key, values := range h {
		if strings.EqualFold(key, name) && len(values) > 0 {
			return values[0]
		}
	}
	return ""
}

// forwardWriter is the http.ResponseWriter that a handshake is answered through
// by somebody who then expects to have the connection: it keeps that.
type forwardWriter struct {
	http.ResponseWriter
	answer *answer
	key    string   // of the upgrade that the backend is asked for; empty over HTTP/1.1, where it is the client's
	status int      // of the answer; 0 before
	conn   net.Conn // nil before Hijack
	early  []byte   // what the client sent with its handshake
}

// Unwrap lets http.ResponseController find what is not here.
func (f *forwardWriter) Unwrap() http.ResponseWriter { return f.ResponseWriter }

// WriteHeader notes the status.
func (f *forwardWriter) WriteHeader(status int) {
	if f.key != "" {
		status = f.streamStatus(status)
	}
	f.status = status
	f.ResponseWriter.WriteHeader(status)
}

// Write writes to the answer's body.
func (f *forwardWriter) Write(p []byte) (int, error) {
	f.begin()
	return f.ResponseWriter.Write(p)
}

// FlushError sends what has been written.
func (f *forwardWriter) FlushError() error {
	f.begin()
	return http.NewResponseController(f.ResponseWriter).Flush()
}

// begin writes the status that is meant if there is none.
func (f *forwardWriter) begin() {
	if f.status == 0 {
		f.WriteHeader(http.StatusOK)
	}
}

// Hijack takes over the connection and returns one on which nothing happens.
func (f *forwardWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	if f.key != "" && f.status != http.StatusOK {
		return nil, nil, errors.New("the backend's answer is no WebSocket's")
	}
	conn, early, err := f.answer.takeOver()
	if err != nil {
		return nil, nil, err
	}
	f.conn, f.early = conn, early
	idle := nothing{conn}
	const least = 16
	return idle, bufio.NewReadWriter(bufio.NewReaderSize(idle, least), bufio.NewWriterSize(idle, least)), nil
}

// nothing is a connection that belongs to somebody else by now. It takes a goodbye
// without an error: reverse_proxy says one if a reload comes just now, and logs what
// it is answered.
type nothing struct{ net.Conn }

func (nothing) Read([]byte) (int, error)         { return 0, io.EOF }
func (nothing) Write(p []byte) (int, error)      { return len(p), nil }
func (nothing) Close() error                     { return nil }
func (nothing) SetDeadline(time.Time) error      { return nil }
func (nothing) SetReadDeadline(time.Time) error  { return nil }
func (nothing) SetWriteDeadline(time.Time) error { return nil }

func (f *forwardWriter) close() {
	if f.conn != nil {
		_ = f.conn.Close()
	}
}
