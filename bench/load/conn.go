package load

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"sync"
	"time"
)

// Target is where to connect to.
type Target struct {
	Addr string
	TLS  *tls.Config // nil for ws
	Path string

	// Deflate is set to offer compression, as browsers do.
	Deflate bool

	// Streams is what to open streams with; nil for HTTP/1.1, a connection for each.
	Streams *Streams

	// Dialect is what to say there; nil for Plain.
	Dialect *Dialect
}

// Conn is a WebSocket connection.
type Conn struct {
	conn    net.Conn // socket, or a tls.Conn over it
	socket  *socket
	secure  *tls.Conn // nil for ws
	buf     []byte
	counter counter
}

// Resumed tells whether the TLS session was taken up again.
func (c *Conn) Resumed() bool { return c.secure != nil && c.secure.ConnectionState().DidResume }

// patience is how long a server may take for one answer before the run is given up.
const patience = 20 * time.Second

// Dial connects; buffer is how many bytes a read takes at most.
func (t *Target) Dial(ctx context.Context, buffer int) (*Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if t.Streams != nil {
		return t.dialStream(ctx, buffer)
	}
	var dialer net.Dialer
	tcp, err := dialer.DialContext(ctx, "tcp", t.Addr)
	if err != nil {
		return nil, err
	}
	c := &Conn{socket: &socket{Conn: tcp, buf: make([]byte, buffer)}, buf: make([]byte, buffer)}
	c.conn = tcp
	if t.TLS != nil {
		c.secure = tls.Client(c.socket, t.TLS)
		c.conn = c.secure
		if err := c.secure.HandshakeContext(ctx); err != nil {
			tcp.Close()
			return nil, fmt.Errorf("TLS handshake: %w", err)
		}
	}
	if err := c.upgrade(t); err != nil {
		tcp.Close()
		return nil, err
	}
	return c, nil
}

func (t *Target) dialStream(ctx context.Context, buffer int) (*Conn, error) {
	stream, err := t.Streams.open(ctx, t)
	if err != nil {
		return nil, err
	}
	c := &Conn{socket: &socket{Conn: stream}, conn: stream, buf: make([]byte, buffer)}
	if err := c.upgrade(t); err != nil {
		stream.Close()
		return nil, err
	}
	return c, nil
}

// upgrade makes a WebSocket of the connection, on which messages can be sent.
func (c *Conn) upgrade(t *Target) error {
	_ = c.conn.SetDeadline(time.Now().Add(patience)) // it can only fail on a connection that fails next
	extensions := ""
	if t.Deflate {
		extensions = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n"
	}
	_, err := fmt.Fprintf(c.conn, "GET %s HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n%s\r\n", t.Path, extensions)
	if err != nil {
		return err
	}
	if err := c.switched(); err != nil {
		return err
	}
	if err := c.conn.SetDeadline(time.Time{}); err != nil {
		return err
	}
	return c.greet(t.dialect())
}

// switched waits for the answer to the handshake.
func (c *Conn) switched() error {
	var answer []byte
	for {
		n, err := c.conn.Read(c.buf)
		if err != nil {
			return fmt.Errorf("waiting for the answer to the handshake: %w", err)
		}
		answer = append(answer, c.buf[:n]...)
		if head, rest, found := bytes.Cut(answer, []byte("\r\n\r\n")); found {
			if !bytes.HasPrefix(head, []byte("HTTP/1.1 101 ")) {
				return fmt.Errorf("the handshake was refused: %.200q", head)
			}
			if len(rest) > 0 {
				return fmt.Errorf("%d bytes came with the answer to the handshake", len(rest))
			}
			return nil
		}
	}
}

// DialMany opens n connections, some at a time. Those of a call that fails are closed.
func (t *Target) DialMany(ctx context.Context, n, buffer int) ([]*Conn, error) {
	return dialEach(ctx, n, buffer, func(int) Target { return *t })
}

// dialEach opens connections to several places.
func dialEach(ctx context.Context, n, buffer int, to func(i int) Target) ([]*Conn, error) {
	const atOnce = 32
	conns := make([]*Conn, n)
	errs := make([]error, atOnce)
	var wg sync.WaitGroup
	for worker := range atOnce {
		wg.Go(func() {
			for i := worker; i < n && errs[worker] == nil; i += atOnce {
				t := to(i)
				conns[i], errs[worker] = t.Dial(ctx, buffer)
			}
		})
	}
	wg.Wait()
	if err := first(errs); err != nil {
		CloseAll(conns)
		return nil, err
	}
	return conns, nil
}

// CloseAll cuts connections.
func CloseAll(conns []*Conn) {
	for _, c := range conns {
		if c != nil {
			c.Close()
		}
	}
}

// Close cuts the connection with a reset, which leaves no port in TIME_WAIT: there are not
// enough of them for long runs.
func (c *Conn) Close() {
	if tcp, ok := c.socket.Conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0) // without it there is only a port less
	}
	c.socket.Close()
}

// send writes a frame n times: n records, one system call.
func (c *Conn) send(frame []byte, n int) error {
	if n == 1 {
		_, err := c.conn.Write(frame)
		return err
	}
	if c.secure == nil {
		_, err := c.conn.Write(bytes.Repeat(frame, n))
		return err
	}
	c.socket.corked = true
	for range n {
		if _, err := c.conn.Write(frame); err != nil {
			return err
		}
	}
	return c.socket.uncork()
}

// receive waits for something, and returns how many messages are whole with all that is
// there by then. Pings are answered.
func (c *Conn) receive() (messages int, err error) {
	for {
		n, err := c.conn.Read(c.buf)
		if err != nil {
			return messages, err
		}
		more, err := c.counter.count(c.buf[:n])
		messages += more
		if err != nil {
			return messages, err
		}
		if c.secure == nil || !c.socket.ready() {
			break
		}
	}
	for ; c.counter.pings > 0; c.counter.pings-- {
		if _, err := c.conn.Write(pong); err != nil {
			return messages, err
		}
	}
	return messages, nil
}
