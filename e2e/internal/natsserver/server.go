// Package natsserver runs real NATS servers in the test's process, alone and as
// clusters, on loopback and on ports that the system chooses, and a proxy that can cut
// or freeze what is between them and their clients.
package natsserver

import (
	"fmt"
	"net/url"
	"slices"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// wait is how long a server may take for what it has to do.
const wait = 30 * time.Second

// Server is a NATS server. It ends with the test, if not before.
type Server struct {
	t       testing.TB
	options server.Options
	running *server.Server
}

// Start starts a server. configure may change what it is to be.
func Start(t testing.TB, configure ...func(*server.Options)) *Server {
	t.Helper()
	s := &Server{t: t, options: server.Options{
		Host: "127.0.0.1", Port: server.RANDOM_PORT,
		NoLog: true, NoSigs: true,
	}}
	for _, change := range configure {
		change(&s.options)
	}
	s.Start()
	t.Cleanup(s.Stop)
	return s
}

// StartCluster starts n servers that know each other.
func StartCluster(t testing.TB, n int, configure ...func(*server.Options)) []*Server {
	t.Helper()
	servers := make([]*Server, n)
	for i := range servers {
		servers[i] = Start(t, append([]func(*server.Options){func(o *server.Options) {
			o.ServerName = fmt.Sprint("server-", i)
			o.Cluster = server.ClusterOpts{Name: "cluster", Host: "127.0.0.1", Port: server.RANDOM_PORT}
			for _, other := range servers[:i] {
				o.Routes = append(o.Routes, other.route())
			}
		}}, configure...)...)
	}
	for i, s := range servers {
		// Whoever is started again looks for all others.
		s.options.Routes = nil
		for j, other := range servers {
			if i != j {
				s.options.Routes = append(s.options.Routes, other.route())
			}
		}
	}
	AwaitCluster(t, servers...)
	return servers
}

// Hidden keeps servers of a cluster from telling clients of each other: a client that is cut
// off from its own does not get around.
func Hidden(o *server.Options) { o.Cluster.NoAdvertise = true }

// AwaitCluster waits until every one of these servers has found all the others.
func AwaitCluster(t testing.TB, servers ...*Server) {
	t.Helper()
	for _, s := range servers {
		for end := time.Now().Add(wait); s.running.NumRemotes() < len(servers)-1; time.Sleep(5 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("waited %s for a cluster: %s has found %d of %d others", wait, s.options.ServerName, s.running.NumRemotes(), len(servers)-1)
			}
		}
	}
}

// Start starts a server that was stopped, on the ports that it had. Its clients find it
// there.
func (s *Server) Start() {
	s.t.Helper()
	if s.running != nil {
		return
	}
	var err error
	for end := time.Now().Add(wait); ; time.Sleep(50 * time.Millisecond) {
		options := s.options
		var started *server.Server
		if started, err = server.NewServer(&options); err != nil {
			s.t.Fatal(err)
		}
		// A port that a connection had for a moment stops Start, which then says nothing.
		go started.Start()
		if started.ReadyForConnections(5 * time.Second) {
			s.running = started
			break
		}
		started.Shutdown()
		started.WaitForShutdown()
		if time.Now().After(end) {
			s.t.Fatalf("waited %s for a NATS server on port %d", wait, s.options.Port)
		}
	}
	s.options.Port = port(s.t, s.running.ClientURL())
	if cluster := s.running.ClusterAddr(); cluster != nil {
		s.options.Cluster.Port = cluster.Port
	}
	if s.options.Websocket.Port == server.RANDOM_PORT {
		s.options.Websocket.Port = port(s.t, s.running.WebsocketURL())
	}
}

// Configure changes what a server is when it is started next.
func (s *Server) Configure(change func(*server.Options)) { change(&s.options) }

// Reload changes what a server is while it runs. Its clients stay, if they still may.
func (s *Server) Reload(change func(*server.Options)) {
	s.t.Helper()
	change(&s.options)
	if err := s.running.ReloadOptions(s.options.Clone()); err != nil {
		s.t.Fatal(err)
	}
}

// Stop ends a server as if it were killed: its connections end at once. It does nothing
// if it is stopped.
func (s *Server) Stop() {
	if s.running == nil {
		return
	}
	s.running.Shutdown()
	s.running.WaitForShutdown()
	s.running = nil
}

// URL is where clients connect: nats://127.0.0.1 and the port.
func (s *Server) URL() string { return "nats://" + s.Address() }

// WebsocketURL is where clients connect over WebSocket, if it was configured.
func (s *Server) WebsocketURL() string {
	return fmt.Sprint("ws://127.0.0.1:", s.options.Websocket.Port)
}

// Address is the URL's host and port.
func (s *Server) Address() string { return fmt.Sprint("127.0.0.1:", s.options.Port) }

// Clients returns the names of the clients that are connected.
func (s *Server) Clients() []string {
	s.t.Helper()
	list, err := s.running.Connz(nil)
	if err != nil {
		s.t.Fatal(err)
	}
	names := make([]string, 0, len(list.Conns))
	for _, c := range list.Conns {
		names = append(names, c.Name)
	}
	return names
}

// ClientIDs returns the numbers of the clients' connections, in order. A client that comes
// back has another.
func (s *Server) ClientIDs() []uint64 {
	s.t.Helper()
	list, err := s.running.Connz(nil)
	if err != nil {
		s.t.Fatal(err)
	}
	ids := make([]uint64, 0, len(list.Conns))
	for _, c := range list.Conns {
		ids = append(ids, c.Cid)
	}
	slices.Sort(ids)
	return ids
}

// Subscriptions is how many there are, of clients.
func (s *Server) Subscriptions() int { return int(s.running.NumSubscriptions()) }

// Kick closes all clients' connections, as an operator may.
func (s *Server) Kick() {
	s.t.Helper()
	list, err := s.running.Connz(nil)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, c := range list.Conns {
		if err := s.running.DisconnectClientByID(c.Cid); err != nil {
			s.t.Error(err)
		}
	}
}

func (s *Server) route() *url.URL {
	return &url.URL{Scheme: "nats", Host: fmt.Sprint("127.0.0.1:", s.options.Cluster.Port)}
}

func port(t testing.TB, raw string) int {
	t.Helper()
	u, err := url.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	var n int
	if _, err := fmt.Sscan(u.Port(), &n); err != nil {
		t.Fatalf("%s has no port: %v", raw, err)
	}
	return n
}
