package websocket_test

import (
	"errors"
	"net/netip"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

var (
	loopback4 = netip.MustParseAddr("127.0.0.1")
	loopback6 = netip.MustParseAddr("::1")
)

// reserve returns an address with a port that belongs to the test until it ends,
// for TCP and for UDP. Caddy listens with SO_REUSEPORT and can have it, again
// and again; nobody else gets it, since the system gives a bound port to no one
// who does not ask for that very number.
func reserve(t testing.TB, ip netip.Addr) netip.AddrPort {
	t.Helper()
	var err error
	for range 10 { // the TCP port may be somebody's UDP port
		var tcp, udp int
		var port uint16
		if tcp, port, err = bind(netip.AddrPortFrom(ip, 0), unix.SOCK_STREAM); err != nil {
			break
		}
		addr := netip.AddrPortFrom(ip, port)
		if udp, _, err = bind(addr, unix.SOCK_DGRAM); err != nil {
			_ = unix.Close(tcp)
			continue
		}
		t.Cleanup(func() {
			_ = unix.Close(tcp)
			_ = unix.Close(udp)
		})
		// The system spreads datagrams over all sockets of a port, but not to one
		// that is connected to somebody else: HTTP/3 clients would be talking to us.
		if err = unix.Connect(udp, sockaddr(addr)); err == nil {
			return addr
		}
	}
	t.Fatalf("reserving a port of %s: %v", ip, err)
	return netip.AddrPort{}
}

// bind binds a socket that never listens. Port 0 takes a free one.
func bind(addr netip.AddrPort, kind int) (fd int, port uint16, err error) {
	family := unix.AF_INET
	if addr.Addr().Is6() {
		family = unix.AF_INET6
	}
	// A child that inherits the socket would hold the port after the test.
	syscall.ForkLock.RLock()
	fd, err = unix.Socket(family, kind, 0)
	if err == nil {
		unix.CloseOnExec(fd)
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return 0, 0, err
	}
	err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
	if err == nil {
		err = unix.Bind(fd, sockaddr(addr))
	}
	var bound unix.Sockaddr
	if err == nil {
		bound, err = unix.Getsockname(fd)
	}
	if err != nil {
		return 0, 0, errors.Join(err, unix.Close(fd))
	}
	switch a := bound.(type) {
	case *unix.SockaddrInet4:
		return fd, uint16(a.Port), nil
	case *unix.SockaddrInet6:
		return fd, uint16(a.Port), nil
	}
	return 0, 0, errors.Join(errors.New("no address"), unix.Close(fd))
}

func sockaddr(addr netip.AddrPort) unix.Sockaddr {
	if addr.Addr().Is6() {
		return &unix.SockaddrInet6{Port: int(addr.Port()), Addr: addr.Addr().As16()}
	}
	return &unix.SockaddrInet4{Port: int(addr.Port()), Addr: addr.Addr().As4()}
}
