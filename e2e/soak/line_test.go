package soak

import (
	"context"
	"crypto/tls"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/gorilla/websocket"

	"github.com/caddy-websocket/caddy-websocket/e2e/internal/e2etest"
	"github.com/caddy-websocket/caddy-websocket/gateway/gatewaytest"
	"github.com/caddy-websocket/caddy-websocket/internal/streamtest"
)

// withHTTP2 is what a Caddy is started with that offers WebSockets over HTTP/2.
const withHTTP2 = "GODEBUG=http2xconnect=1"

// line is a connection of HTTP/2 or HTTP/3 that sockets share.
type line struct {
	streams *streamtest.Conn

	// A handshake under way keeps the line from being cut: whether the server has seen
	// the client would be a matter of luck.
	handshakes sync.RWMutex
	cut        atomic.Bool // the client's network is gone

	sockets int  // guarded by lines.mu
	refuses bool // guarded by lines.mu; it takes no more: its server has been replaced, or it is cut
}

// lines are connections of one protocol to one server. One that refuses has a successor,
// as in browsers.
type lines struct {
	open   func(context.Context) (*streamtest.Conn, error)
	opened func(*line) // unless nil, called with each
	most   int         // sockets on a line
	dialer websocket.Dialer
	ctx    context.Context
	cancel context.CancelFunc

	opening sync.Mutex // one at a time, or a crowd would get a line each
	mu      sync.Mutex
	all     []*line // guarded by mu
}

// newLines connects to a site of Caddy's over "HTTP/2" or "HTTP/3". The connections end
// with the test.
func newLines(t *testing.T, caddy *e2etest.Caddy, proto, site string, most int) *lines {
	t.Helper()
	config := &tls.Config{RootCAs: caddy.CertPool(), ServerName: "localhost", MinVersion: tls.VersionTLS13}
	ls := &lines{most: most, dialer: websocket.Dialer{HandshakeTimeout: patience}}
	ls.ctx, ls.cancel = context.WithCancel(context.Background())
	ls.open = func(ctx context.Context) (*streamtest.Conn, error) { return streamtest.HTTP3(ctx, site, config) }
	if proto == "HTTP/2" {
		config.NextProtos = []string{"h2"}
		dialer := tls.Dialer{Config: config}
		ls.open = func(ctx context.Context) (*streamtest.Conn, error) {
			conn, err := dialer.DialContext(ctx, "tcp", site)
			if err != nil {
				return nil, err
			}
			return streamtest.HTTP2(conn)
		}
	}
	t.Cleanup(ls.close)
	return ls
}

func (ls *lines) close() {
	ls.cancel()
	ls.mu.Lock()
	defer ls.mu.Unlock()
	for _, ln := range ls.all {
		_ = ln.streams.Close()
	}
}

// dial opens a socket on a line that has room.
func (ls *lines) dial(url string) (*websocket.Conn, *http.Response, error) {
	ln, err := ls.take()
	if err != nil {
		return nil, nil, err
	}
	return ls.dialOn(ln, url)
}

// take returns a line with room for a socket, which it now has.
func (ls *lines) take() (*line, error) {
	ls.opening.Lock()
	defer ls.opening.Unlock()
	if ln := ls.find(); ln != nil {
		return ln, nil
	}
	ctx, cancel := context.WithTimeout(ls.ctx, patience)
	defer cancel()
	streams, err := ls.open(ctx)
	if err != nil {
		return nil, err
	}
	ln := &line{streams: streams, sockets: 1}
	ls.mu.Lock()
	ls.all = append(ls.all, ln)
	ls.mu.Unlock()
	if ls.opened != nil {
		ls.opened(ln)
	}
	return ln, nil
}

func (ls *lines) find() *line {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	for _, ln := range slices.Backward(ls.all) {
		if !ln.refuses && ln.sockets < ls.most {
			ln.sockets++
			return ln
		}
	}
	return nil
}

// dialOn opens a socket on a line. A line that does not answer refuses from now on.
func (ls *lines) dialOn(ln *line, url string) (*websocket.Conn, *http.Response, error) {
	ln.handshakes.RLock()
	defer ln.handshakes.RUnlock()
	conn := &streamConn{Conn: ln.streams.Open(), line: ln, gone: sync.OnceFunc(func() { ls.release(ln) })}
	dialer := ls.dialer
	dialer.NetDialTLSContext = func(context.Context, string, string) (net.Conn, error) { return conn, nil }
	ws, res, err := dialer.Dial(url, nil)
	if err != nil {
		_ = conn.Close()
		if res == nil {
			ls.mu.Lock()
			ln.refuses = true
			ls.mu.Unlock()
		}
	}
	return ws, res, err
}

func (ls *lines) release(ln *line) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	ln.sockets--
}

// cutOne cuts a line with whoever is on it. It returns how many sockets that were.
func (ls *lines) cutOne() int {
	ls.mu.Lock()
	var busy []*line
	for _, ln := range ls.all {
		if ln.sockets > 0 && !ln.cut.Load() {
			busy = append(busy, ln)
		}
	}
	if len(busy) == 0 {
		ls.mu.Unlock()
		return 0
	}
	ln := busy[rand.IntN(len(busy))]
	sockets := ln.sockets
	ln.refuses = true
	ls.mu.Unlock()
	ln.handshakes.Lock()
	defer ln.handshakes.Unlock()
	ln.cut.Store(true)
	_ = ln.streams.Close()
	return sockets
}

// streamConn is a socket's connection on a line.
type streamConn struct {
	*gatewaytest.Conn
	line *line
	gone func()
}

// Close ends the stream.
func (c *streamConn) Close() error {
	c.gone()
	return c.Conn.Close()
}
