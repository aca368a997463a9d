package main

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// freeAddr returns an address that nobody else is given while the lab is there: Caddy and
// nginx cannot be told to choose one, and say which. A socket is bound to it that never
// listens, in a way that lets another one be bound by who asks for this very port. Without
// it two Caddys that chose the same port would share its connections.
func (l *lab) freeAddr() (string, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return "", os.NewSyscallError("socket", err)
	}
	l.held = append(l.held, fd)
	for _, option := range []int{unix.SO_REUSEADDR, unix.SO_REUSEPORT} {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, option, 1); err != nil {
			return "", os.NewSyscallError("setsockopt", err)
		}
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return "", os.NewSyscallError("bind", err)
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		return "", os.NewSyscallError("getsockname", err)
	}
	bound, ok := name.(*unix.SockaddrInet4)
	if !ok {
		return "", fmt.Errorf("a socket is bound to %T", name)
	}
	return fmt.Sprintf("127.0.0.1:%d", bound.Port), nil
}

// close gives the ports back.
func (l *lab) close() {
	for _, fd := range l.held {
		_ = unix.Close(fd) // it was only bound
	}
}
