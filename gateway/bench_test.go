package gateway

// The engine alone: connections are in memory, and what is written to them is counted and
// forgotten. `make bench` is about the whole product, on sockets and with TLS.
//
//	go test -run '^$' -bench . -benchmem ./gateway

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// benchConn is a connection in memory: it reads what is fed to it, and counts what is written.
type benchConn struct {
	net.Conn // for the methods that nobody calls
	feed     chan []byte
	rest     []byte
	out      *outlet
	closed   chan struct{}
	once     sync.Once
}

// Read gives what is fed, and EOF when the connection is closed.
func (c *benchConn) Read(p []byte) (int, error) {
	if len(c.rest) == 0 {
		select {
		case c.rest = <-c.feed:
		case <-c.closed:
			return 0, io.EOF
		}
	}
	n := copy(p, c.rest)
	c.rest = c.rest[n:]
	return n, nil
}

// Write counts.
func (c *benchConn) Write(p []byte) (int, error) {
	c.out.wrote(len(p))
	return len(p), nil
}

// Close makes Read end.
func (c *benchConn) Close() error {
	c.once.Do(func() { close(c.closed) })
	return nil
}

func (*benchConn) SetDeadline(time.Time) error      { return nil }
func (*benchConn) SetReadDeadline(time.Time) error  { return nil }
func (*benchConn) SetWriteDeadline(time.Time) error { return nil }
func (*benchConn) LocalAddr() net.Addr              { return &net.TCPAddr{IP: net.IPv6loopback, Port: 1} }

func (*benchConn) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.IPv6loopback, Port: 2} }

// outlet tells when so many bytes have been written to the connections that share it.
type outlet struct {
	left atomic.Int64
	done chan struct{}
}

// expect says how many bytes are waited for next.
func (o *outlet) expect(n int) { o.left.Store(int64(n)) }

func (o *outlet) wrote(n int) {
	if o.left.Add(-int64(n)) == 0 {
		o.done <- struct{}{}
	}
}

// benchWriter is a ResponseWriter whose connection can be taken over.
type benchWriter struct {
	header http.Header
	conn   *benchConn
}

func (w *benchWriter) Header() http.Header       { return w.header }
func (*benchWriter) Write(p []byte) (int, error) { return len(p), nil }
func (*benchWriter) WriteHeader(int)             {}

// Hijack returns the connection.
func (w *benchWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return w.conn, bufio.NewReadWriter(bufio.NewReaderSize(w.conn, 16), bufio.NewWriterSize(w.conn, 16)), nil
}

// benchReply answers every message with itself.
type benchReply struct{ NopLogic }

func (benchReply) OnMessage(c *Client, m Message) error { return c.Send(m) }

// bench is a gateway with one endpoint, and clients that are benchConns.
type bench struct {
	b     *testing.B
	g     *Gateway
	e     *Endpoint
	out   *outlet
	conns []*benchConn

	request *http.Request // a handshake
}

func newBench(b *testing.B, o EndpointOptions) *bench {
	b.Helper()
	g, err := New(Options{})
	if err != nil {
		b.Fatal(err)
	}
	e, err := NewEndpoint("bench", o)
	if err != nil {
		b.Fatal(err)
	}
	if err := g.Serve(e); err != nil {
		b.Fatal(err)
	}
	t := &bench{b: b, g: g, e: e, out: &outlet{done: make(chan struct{}, 1)}}
	t.request = httptest.NewRequest(http.MethodGet, "/", http.NoBody)
	t.request.Header = http.Header{
		"Upgrade": {"websocket"}, "Connection": {"Upgrade"},
		"Sec-Websocket-Version": {"13"}, "Sec-Websocket-Key": {"dGhlIHNhbXBsZSBub25jZQ=="},
	}
	b.Cleanup(func() {
		for _, c := range t.conns {
			c.Close()
		}
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		if err := g.Shutdown(ctx); err != nil {
			b.Error(err)
		}
	})
	return t
}

// upgrade makes one handshake.
func (t *bench) upgrade(id Identity) (*benchConn, *Client) {
	conn := &benchConn{feed: make(chan []byte), out: t.out, closed: make(chan struct{})}
	c, err := t.e.Upgrade(&benchWriter{make(http.Header), conn}, t.request, id)
	if err != nil {
		t.b.Fatal(err)
	}
	return conn, c
}

// connect makes n clients of one user, or of one group.
func (t *bench) connect(n int, id Identity) []*Client {
	clients := make([]*Client, n)
	for i := range clients {
		var conn *benchConn
		conn, clients[i] = t.upgrade(id)
		t.conns = append(t.conns, conn)
	}
	return clients
}

// BenchmarkReply is a message of 32 bytes that is read, handled and answered.
func BenchmarkReply(b *testing.B) {
	t := newBench(b, EndpointOptions{Logic: benchReply{}})
	t.connect(1, Identity{})
	message := masked(bitFIN|opText, make([]byte, 32))
	b.ReportAllocs()
	for b.Loop() {
		t.out.expect(32 + 2)
		t.conns[0].feed <- message
		<-t.out.done
	}
}

// BenchmarkSend is 90 bytes sent to clients by one name, and written to all of them.
func BenchmarkSend(b *testing.B) {
	for _, tt := range []struct {
		name    string
		clients int
		id      Identity
		to      func([]*Client) Target
	}{
		{"one client", 1, Identity{}, func(c []*Client) Target { return Target{Clients: []string{c[0].ID()}} }},
		{"a user with 3 clients", 3, Identity{User: "tom"}, func([]*Client) Target { return Target{Users: []string{"tom"}} }},
		{"a group of 1000", 1000, Identity{Groups: []string{"all"}}, func([]*Client) Target { return Target{Groups: []string{"all"}} }},
	} {
		b.Run(tt.name, func(b *testing.B) {
			t := newBench(b, EndpointOptions{})
			to := tt.to(t.connect(tt.clients, tt.id))
			message := Binary(make([]byte, 90))
			b.ReportAllocs()
			for b.Loop() {
				t.out.expect(tt.clients * (90 + 2))
				if n, err := t.g.Send(to, message); n != tt.clients || err != nil {
					b.Fatal(n, err)
				}
				<-t.out.done
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*tt.clients), "ns/delivery")
		})
	}
}

// BenchmarkJoinAndLeave is what the registry costs when all processors change it at once:
// the same ten groups, or ten thousand.
func BenchmarkJoinAndLeave(b *testing.B) {
	for _, groups := range []int{10, 10_000} {
		b.Run(fmt.Sprint(groups, " groups"), func(b *testing.B) {
			t := newBench(b, EndpointOptions{})
			names := make([]string, groups)
			for i := range names {
				names[i] = fmt.Sprint("group-", i)
			}
			var next atomic.Int64
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				c := t.e.newClient(&http.Request{ProtoMajor: 1}, Identity{}) // that never connects
				for pb.Next() {
					name := names[next.Add(1)%int64(groups)]
					if err := c.Join(name); err != nil {
						b.Error(err)
					}
					if err := c.Leave(name); err != nil {
						b.Error(err)
					}
				}
			})
		})
	}
}

// BenchmarkSweep is what the sweeper does once a second for 100,000 idle clients.
func BenchmarkSweep(b *testing.B) {
	const clients = 100_000
	t := newBench(b, EndpointOptions{PingInterval: time.Hour})
	for range clients {
		c := t.e.newClient(&http.Request{ProtoMajor: 1}, Identity{})
		c.wire.readAt.Store(c.now())
		c.open.Store(true)
		t.g.registry.add(c)
		b.Cleanup(func() { t.g.registry.remove(c) }) // before the gateway ends
	}
	var looked []*Client
	b.ReportAllocs()
	for b.Loop() {
		for i := range t.g.registry.clients.shards { // as sweep does
			looked = t.g.registry.clients.shards[i].values(looked[:0])
			for _, c := range looked {
				c.sweep(t.g.now())
			}
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*clients), "ns/client")
}

// BenchmarkHandshake is a client from its handshake to its end, which is the connection's:
// one of nobody, one who is somebody, and one about whom two lines are logged.
func BenchmarkHandshake(b *testing.B) {
	ip := Identity{RealIP: "192.0.2.1"}
	for _, tt := range []struct {
		name string
		o    EndpointOptions
		id   Identity
	}{
		{"without logic", EndpointOptions{}, ip},
		{"with logic", EndpointOptions{Logic: benchReply{}}, ip},
		{"of a user in a group", EndpointOptions{Logic: benchReply{}}, Identity{RealIP: ip.RealIP, User: "tom", Groups: []string{"all"}}},
		{"logged", EndpointOptions{Logic: benchReply{}, Logger: slog.New(slog.NewJSONHandler(io.Discard, nil))}, ip}, //nolint:sloglint // what the line costs is to be measured
	} {
		b.Run(tt.name, func(b *testing.B) {
			t := newBench(b, tt.o)
			b.ReportAllocs()
			for b.Loop() {
				conn, c := t.upgrade(tt.id)
				ended := c.Context().Done()
				conn.Close()
				<-ended
			}
		})
	}
}
