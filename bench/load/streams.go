package load

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"sync"

	"github.com/caddy-websocket/caddy-websocket/internal/streamtest"
)

// perConnection is how many streams share a connection: what HTTP/3 servers allow.
const perConnection = 100

// Streams opens WebSockets as streams of HTTP/2 or HTTP/3. The client is Go's own, which
// takes more of the processors than the rest of the generator: rates and times are its, not
// the server's.
type Streams struct {
	proto string

	mu   sync.Mutex
	conn *streamtest.Conn   // guarded by mu; that has room
	used int                // guarded by mu; streams of conn
	all  []*streamtest.Conn // guarded by mu
}

// Over returns what opens streams over "h2" or "h3".
func Over(proto string) *Streams { return &Streams{proto: proto} }

// open returns a stream on a connection that has room for one.
func (s *Streams) open(ctx context.Context, t *Target) (net.Conn, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn == nil || s.used == perConnection {
		conn, err := s.dial(ctx, t)
		if err != nil {
			return nil, err
		}
		s.conn, s.used = conn, 0
		s.all = append(s.all, conn)
	}
	s.used++
	return s.conn.Open(), nil
}

func (s *Streams) dial(ctx context.Context, t *Target) (*streamtest.Conn, error) {
	config := t.TLS.Clone()
	if s.proto == "h3" {
		return streamtest.HTTP3(ctx, t.Addr, config)
	}
	config.NextProtos = []string{"h2"}
	conn, err := (&tls.Dialer{Config: config}).DialContext(ctx, "tcp", t.Addr)
	if err != nil {
		return nil, fmt.Errorf("connecting by HTTP/2: %w", err)
	}
	return streamtest.HTTP2(conn)
}

// Close ends all connections.
func (s *Streams) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, conn := range s.all {
		_ = conn.Close() // it is given up in any case
	}
	s.conn, s.all = nil, nil
}
