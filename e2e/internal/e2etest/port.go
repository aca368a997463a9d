package e2etest

import (
	"errors"
	"fmt"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// ReservePort returns a port of 127.0.0.1 that belongs to the test until it ends,
// for TCP and for UDP. Caddy listens with SO_REUSEPORT and can have it, again and
// again; nobody else gets it, since the system gives a bound port to no one who
// does not ask for that very number.
func ReservePort(t testing.TB) int {
	t.Helper()
	var err error
	for range 10 { // the TCP port may be somebody's UDP port
		var port int
		var release func()
		if port, release, err = reservePort(); err == nil {
			t.Cleanup(release)
			return port
		}
	}
	t.Fatalf("reserving a port: %v", err)
	return 0
}

func reservePort() (port int, release func(), err error) {
	tcp, port, err := bindLoopback(unix.SOCK_STREAM, 0)
	if err != nil {
		return 0, nil, err
	}
	udp, _, err := bindLoopback(unix.SOCK_DGRAM, port)
	if err != nil {
		return 0, nil, errors.Join(err, unix.Close(tcp))
	}
	release = func() {
		_ = unix.Close(tcp)
		_ = unix.Close(udp)
	}
	// The system spreads datagrams over all sockets of a port, but not to one that is
	// connected to somebody else: without this every second HTTP/3 client would be
	// talking to us. (TCP has no such trouble: we never listen.)
	if err := unix.Connect(udp, loopback(port)); err != nil {
		release()
		return 0, nil, fmt.Errorf("connecting UDP port %d to itself: %w", port, err)
	}
	return port, release, nil
}

// bindLoopback binds a socket that never listens. Port 0 takes a free one.
func bindLoopback(kind, port int) (fd, bound int, err error) {
	// A child that inherits the socket would hold the port after the test: no fork
	// between the two calls, which not every system has as one.
	syscall.ForkLock.RLock()
	fd, err = unix.Socket(unix.AF_INET, kind, 0)
	if err == nil {
		unix.CloseOnExec(fd)
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return 0, 0, fmt.Errorf("making a socket: %w", err)
	}
	defer func() {
		if err != nil {
			_ = unix.Close(fd)
		}
	}()
	if err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1); err != nil {
		return 0, 0, fmt.Errorf("setting SO_REUSEPORT: %w", err)
	}
	if err = unix.Bind(fd, loopback(port)); err != nil {
		return 0, 0, fmt.Errorf("binding port %d: %w", port, err)
	}
	addr, err := unix.Getsockname(fd)
	if err != nil {
		return 0, 0, fmt.Errorf("asking for the bound port: %w", err)
	}
	inet, ok := addr.(*unix.SockaddrInet4)
	if !ok {
		return 0, 0, fmt.Errorf("asking for the bound port: got %T", addr)
	}
	return fd, inet.Port, nil
}

func loopback(port int) *unix.SockaddrInet4 {
	return &unix.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}}
}

// FreePort returns a port of 127.0.0.1 that was free a moment ago, for programs that do
// not listen with SO_REUSEPORT and so cannot have a reserved one.
func FreePort(t testing.TB) int {
	t.Helper()
	fd, port, err := bindLoopback(unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Close(fd); err != nil {
		t.Fatal(err)
	}
	return port
}
