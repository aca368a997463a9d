package natsserver

import (
	"net"
	"sync"
	"testing"
)

// Proxy passes TCP connections on to a server, and can do as bad networks do. It ends
// with the test.
type Proxy struct {
	target   string
	listener net.Listener
	tasks    sync.WaitGroup

	mu      sync.Mutex
	changed sync.Cond             // with mu
	cut     bool                  // guarded by mu
	frozen  bool                  // guarded by mu
	closed  bool                  // guarded by mu
	conns   map[net.Conn]struct{} // guarded by mu; of both sides
}

// NewProxy starts a proxy in front of an address: host and port.
func NewProxy(t testing.TB, target string) *Proxy {
	t.Helper()
	var config net.ListenConfig
	listener, err := config.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{target: target, listener: listener, conns: make(map[net.Conn]struct{})}
	p.changed.L = &p.mu
	p.tasks.Go(p.serve)
	t.Cleanup(p.close)
	return p
}

// Address is where the proxy listens: host and port.
func (p *Proxy) Address() string { return p.listener.Addr().String() }

// URL is the address as NATS's clients take it.
func (p *Proxy) URL() string { return "nats://" + p.Address() }

// Cut ends all connections, and those that come, until Heal: a server that died.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut = true
	for conn := range p.conns {
		conn.Close()
	}
}

// Freeze passes nothing on, in either direction, until Heal; connections stay, and new
// ones are accepted: a server that is stopped, a cable that is pulled.
func (p *Proxy) Freeze() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.frozen = true
}

// Heal passes everything on again, also what was held back.
func (p *Proxy) Heal() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut, p.frozen = false, false
	p.changed.Broadcast()
}

func (p *Proxy) close() {
	p.mu.Lock()
	p.closed = true
	p.changed.Broadcast()
	for conn := range p.conns {
		conn.Close()
	}
	p.mu.Unlock()
	p.listener.Close()
	p.tasks.Wait()
}

func (p *Proxy) serve() {
	for {
		conn, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.tasks.Go(func() { p.join(conn) })
	}
}

// join passes on what one client and the server say, until one of them ends.
func (p *Proxy) join(client net.Conn) {
	defer client.Close()
	if !p.keep(client) || !p.flows() {
		return
	}
	defer p.forget(client)
	server, err := net.Dial("tcp", p.target)
	if err != nil {
		return
	}
	defer server.Close()
	if !p.keep(server) {
		return
	}
	defer p.forget(server)
	p.tasks.Go(func() { p.pass(client, server) })
	p.pass(server, client)
}

func (p *Proxy) pass(from, to net.Conn) {
	defer from.Close()
	defer to.Close()
	buffer := make([]byte, 32<<10)
	for p.flows() {
		n, err := from.Read(buffer)
		if n > 0 && p.flows() {
			if _, err := to.Write(buffer[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// flows waits while the proxy is frozen. It returns false when it is closed.
func (p *Proxy) flows() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.frozen && !p.closed {
		p.changed.Wait()
	}
	return !p.closed
}

// keep notes a connection, if it may be.
func (p *Proxy) keep(conn net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cut || p.closed {
		return false
	}
	p.conns[conn] = struct{}{}
	return true
}

func (p *Proxy) forget(conn net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, conn)
}
