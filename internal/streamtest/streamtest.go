// Package streamtest lets what speaks the WebSocket handshake of HTTP/1.1, be it a
// library or a test's own bytes, talk to a server over HTTP/2 or HTTP/3: the
// handshake is translated into the extended CONNECT that says the same, its answer
// back, and what follows is passed on as it is.
package streamtest

import (
	"bufio"
	"context"
	"crypto/sha1" //nolint:gosec // RFC 6455 says so; nothing depends on its strength
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
	"golang.org/x/net/http2"

	"github.com/caddy-websocket/caddy-websocket/gateway/gatewaytest"
)

// Conn is a connection of HTTP/2 or HTTP/3, on which many streams can be opened.
type Conn struct {
	scheme  string
	connect func(*http.Request) // makes an extended CONNECT of it
	trip    func(*http.Request) (*http.Response, error)
	close   func() error

	mu  sync.Mutex
	err error // guarded by mu; how the last stream that did not end in order ended
}

// window is how much a stream takes that nobody reads: as little as HTTP/2 begins with,
// so that a client that does not read is soon felt by the server.
const window = 64 << 10

// HTTP2 speaks HTTP/2 on conn: "https" if that is a tls.Conn, else "http".
func HTTP2(conn net.Conn) (*Conn, error) {
	scheme := "http"
	if _, ok := conn.(*tls.Conn); ok {
		scheme = "https"
	}
	config := &http.Transport{HTTP2: &http.HTTP2Config{MaxReceiveBufferPerStream: window}}
	transport, err := http2.ConfigureTransports(config) //nolint:staticcheck // the Transport of net/http sends no extended CONNECT
	if err != nil {
		return nil, err
	}
	cc, err := transport.NewClientConn(conn) //nolint:staticcheck // as above
	if err != nil {
		return nil, err
	}
	return &Conn{
		scheme:  scheme,
		connect: func(r *http.Request) { r.Header[":protocol"] = []string{"websocket"} },
		trip:    cc.RoundTrip,
		close:   cc.Close,
	}, nil
}

// HTTP3 connects to a UDP address.
func HTTP3(ctx context.Context, address string, config *tls.Config) (*Conn, error) {
	config = config.Clone()
	config.NextProtos = []string{http3.NextProtoH3}
	conn, err := quic.DialAddr(ctx, address, config, &quic.Config{
		InitialStreamReceiveWindow: window, MaxStreamReceiveWindow: window,
	})
	if err != nil {
		return nil, err
	}
	cc := new(http3.Transport).NewClientConn(conn)
	return &Conn{
		scheme:  "https",
		connect: func(r *http.Request) { r.Proto = "websocket" },
		trip:    cc.RoundTrip,
		close:   func() error { return conn.CloseWithError(quic.ApplicationErrorCode(http3.ErrCodeNoError), "") },
	}, nil
}

// Close ends the connection with all its streams.
func (c *Conn) Close() error { return c.close() }

// Err returns how the last stream ended that the server reset, or nil.
func (c *Conn) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// RoundTrip sends a request as it is. An extended CONNECT is one whose header has
// ":protocol", or over HTTP/3 whose Proto is the protocol.
func (c *Conn) RoundTrip(r *http.Request) (*http.Response, error) { return c.trip(r) }

// Open returns a connection on which a handshake of HTTP/1.1 may be written, which
// becomes a stream. Closing it ends the stream, and not the connection.
func (c *Conn) Open() *gatewaytest.Conn {
	client, inner := gatewaytest.Pipe()
	go c.translate(inner)
	return client
}

// translate is the other side of what Open returned.
func (c *Conn) translate(conn *gatewaytest.Conn) {
	defer conn.Close()
	reader := bufio.NewReader(conn)
	r, err := http.ReadRequest(reader)
	if err != nil {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	r = r.WithContext(ctx)
	key := r.Header.Get("Sec-WebSocket-Key")
	for _, name := range []string{"Connection", "Upgrade", "Sec-WebSocket-Key"} {
		r.Header.Del(name)
	}
	up, body := io.Pipe()
	r.Method, r.URL, r.RequestURI, r.Body, r.ContentLength = http.MethodConnect, &url.URL{Scheme: c.scheme, Host: r.Host, Path: r.URL.Path, RawQuery: r.URL.RawQuery}, "", up, -1
	c.connect(r)
	var answered atomic.Bool
	copied := make(chan struct{})
	go func() {
		defer close(copied)
		_, err := io.Copy(body, reader)
		if !answered.Load() {
			cancel() // nobody waits for an answer
		}
		_ = body.CloseWithError(err)
	}()
	defer func() { // a server that has ended may still be written to
		_ = conn.CloseWrite()
		_ = up.Close()
		<-copied
		_, _ = io.Copy(io.Discard, reader)
	}()
	resp, err := c.trip(r)
	if err != nil {
		c.note(err)
		return
	}
	answered.Store(true)
	defer resp.Body.Close()
	resp.Proto, resp.ProtoMajor, resp.ProtoMinor = "HTTP/1.1", 1, 1
	if resp.StatusCode != http.StatusOK {
		_ = resp.Write(conn) // the other side looks for what is missing
		return
	}
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11")) //nolint:gosec // as above
	resp.Header.Set("Connection", "Upgrade")
	resp.Header.Set("Upgrade", "websocket")
	resp.Header.Set("Sec-WebSocket-Accept", base64.StdEncoding.EncodeToString(sum[:]))
	fmt.Fprint(conn, "HTTP/1.1 101 Switching Protocols\r\n")
	_ = resp.Header.Write(conn)
	fmt.Fprint(conn, "\r\n")
	// The buffer is small, so that a client that does not read is felt by the server.
	const small = 1 << 10
	if _, err := io.CopyBuffer(conn, resp.Body, make([]byte, small)); err != nil {
		c.note(err)
		return
	}
}

func (c *Conn) note(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.err = err
}
