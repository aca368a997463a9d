package e2etest

import (
	"errors"
	"net"
	"strconv"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Caddy must get the port that the test reserved for it, and nobody else may.
func TestReservedPortIsForSOReuseportOnly(t *testing.T) {
	addr := loopbackAddr(ReservePort(t))

	if l, err := net.Listen("tcp", addr); err == nil {
		l.Close()
		t.Errorf("tcp %s was free for a listener without SO_REUSEPORT", addr)
	}
	if c, err := net.ListenPacket("udp", addr); err == nil {
		c.Close()
		t.Errorf("udp %s was free for a listener without SO_REUSEPORT", addr)
	}

	// Twice, since a reload binds the new listener before it closes the old one.
	for range 2 {
		l, err := reuse.Listen(t.Context(), "tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
	}
}

// A port that was given twice would make tests fail that have nothing to do with it.
func TestReservedPortsDiffer(t *testing.T) {
	seen := map[int]bool{}
	for range 200 {
		port := ReservePort(t)
		if seen[port] {
			t.Fatalf("port %d was reserved twice", port)
		}
		seen[port] = true
	}
}

// An unused reservation must not look like a server that hangs.
func TestReservedPortRefusesConnections(t *testing.T) {
	c, err := net.DialTimeout("tcp", loopbackAddr(ReservePort(t)), 5*time.Second)
	if err == nil {
		c.Close()
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("dialing a reserved port: got %v, want connection refused", err)
	}
}

// The socket that holds the UDP port shares it with Caddy's HTTP/3 listener and
// must not swallow a client's packets.
func TestReservedPortLeavesAllDatagramsToTheListener(t *testing.T) {
	addr := loopbackAddr(ReservePort(t))
	server, err := reuse.ListenPacket(t.Context(), "udp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()

	const clients = 64 // each has its own port, by which the system chooses the socket
	for range clients {
		c, err := net.Dial("udp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := c.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	if err := server.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	for i := range clients {
		if _, _, err := server.ReadFrom(make([]byte, 1)); err != nil {
			t.Fatalf("after %d of %d datagrams: %v", i, clients, err)
		}
	}
}

// reuse listens as Caddy does.
var reuse = net.ListenConfig{
	Control: func(_, _ string, c syscall.RawConn) error {
		var setErr error
		err := c.Control(func(fd uintptr) {
			setErr = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
		})
		return errors.Join(err, setErr)
	},
}

func loopbackAddr(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }
