// Package gatewaytest serves a gateway from memory, for tests of message logic
// and of the gateway itself. It needs no port, and all of it works in a
// testing/synctest bubble, where a time-out of a minute takes no time.
package gatewaytest

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/caddy-websocket/caddy-websocket/gateway"
)

// DefaultIP is the address that clients connect from unless they say otherwise.
const DefaultIP = "192.0.2.1"

// Server is an HTTP server in memory.
type Server struct {
	// Gateway is what it serves; nil if the server was given a handler.
	Gateway *gateway.Gateway

	t        testing.TB
	listener *listener
}

// Serve serves endpoints, each under a slash and its name, of a gateway of their
// own. Both end with the test, which fails if the gateway cannot end.
func Serve(t testing.TB, endpoints ...*gateway.Endpoint) *Server {
	t.Helper()
	return ServeOptions(t, gateway.Options{Logger: Logger(t)}, endpoints...)
}

// ServeOptions is Serve for a gateway with options.
func ServeOptions(t testing.TB, o gateway.Options, endpoints ...*gateway.Endpoint) *Server {
	t.Helper()
	g, err := gateway.New(o)
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Serve(endpoints...); err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	for _, e := range endpoints {
		mux.Handle("/"+e.Name(), e)
	}
	s := ServeHandler(t, mux)
	s.Gateway = g
	t.Cleanup(func() {
		const bound = 30 * time.Second
		ctx, cancel := context.WithTimeout(context.Background(), bound)
		defer cancel()
		if err := g.Shutdown(ctx); err != nil {
			t.Errorf("shutting down the gateway: %v", err)
		}
	})
	return s
}

// ServeLogic serves one endpoint called "test" with this logic and the options'
// defaults.
func ServeLogic(t testing.TB, l gateway.Logic) *Server {
	t.Helper()
	return Serve(t, Endpoint(t, "test", gateway.EndpointOptions{Logic: l}))
}

// Endpoint is gateway.NewEndpoint for options that the test knows to be right.
// Without a logger it gets the test's.
func Endpoint(t testing.TB, name string, o gateway.EndpointOptions) *gateway.Endpoint {
	t.Helper()
	if o.Logger == nil {
		o.Logger = Logger(t)
	}
	e, err := gateway.NewEndpoint(name, o)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// ServeHandler serves an HTTP handler, over HTTP/1.1 and, for clients that know of it
// beforehand, HTTP/2.
func ServeHandler(t testing.TB, h http.Handler) *Server {
	s := &Server{t: t, listener: &listener{conns: make(chan net.Conn), closed: make(chan struct{})}}
	server := &http.Server{Handler: h, ReadHeaderTimeout: time.Minute, Protocols: new(http.Protocols)}
	server.Protocols.SetHTTP1(true)
	server.Protocols.SetUnencryptedHTTP2(true)
	done := make(chan error, 1)
	go func() { done <- server.Serve(s.listener) }()
	t.Cleanup(func() {
		_ = server.Close() // what it returns is the listener's
		if err := <-done; !errors.Is(err, http.ErrServerClosed) {
			t.Errorf("serving: %v", err)
		}
	})
	return s
}

// Connect opens a connection from ip and speaks no protocol on it.
func (s *Server) Connect(ip string) (*Conn, error) { return s.listener.connect(ip) }

// DialContext opens a connection from DefaultIP, for a dialer of any library.
func (s *Server) DialContext(context.Context, string, string) (net.Conn, error) {
	return s.Connect(DefaultIP)
}

// listener is a net.Listener in memory.
type listener struct {
	conns     chan net.Conn
	closed    chan struct{}
	closeOnce sync.Once

	mu   sync.Mutex
	port int // guarded by mu; of the last client
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *listener) Close() error {
	l.closeOnce.Do(func() { close(l.closed) })
	return nil
}

func (l *listener) Addr() net.Addr { return serverAddr }

var serverAddr = &net.TCPAddr{IP: net.IPv4(192, 0, 2, 80), Port: 80}

func (l *listener) connect(ip string) (*Conn, error) {
	l.mu.Lock()
	l.port++
	from := &net.TCPAddr{IP: net.ParseIP(ip), Port: l.port}
	l.mu.Unlock()
	atClient, atServer := pipe(from, serverAddr)
	select {
	case l.conns <- atServer:
		return atClient, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}
