package load

import (
	"encoding/binary"
	"net"
)

const recordHeader = 5

// socket is the TCP connection below a tls.Conn. It fetches all that has arrived and hands
// it on a record at a time: so the tls.Conn hoards nothing, and ready can tell whether
// another record is there. While corked, it holds back what is written.
type socket struct {
	net.Conn
	buf      []byte
	from, to int // buf[from:to] has been fetched and not handed on
	left     int // bytes of the current record that have not been handed on

	corked bool
	out    []byte
}

// Read hands on what is there of one record, and waits for something if nothing is.
func (s *socket) Read(p []byte) (int, error) {
	for s.left == 0 && s.to-s.from < recordHeader || s.from == s.to {
		if err := s.fetch(); err != nil {
			return 0, err
		}
	}
	if s.left == 0 {
		s.left = s.record()
	}
	n := copy(p, s.buf[s.from:min(s.to, s.from+s.left)])
	s.from += n
	s.left -= n
	return n, nil
}

// record returns the length of the record that begins at from, with its header.
func (s *socket) record() int {
	return recordHeader + int(binary.BigEndian.Uint16(s.buf[s.from+3:]))
}

func (s *socket) fetch() error {
	s.to = copy(s.buf, s.buf[s.from:s.to])
	s.from = 0
	n, err := s.Conn.Read(s.buf[s.to:])
	s.to += n
	if n > 0 {
		return nil
	}
	return err
}

// ready tells whether a whole record has been fetched and not handed on.
func (s *socket) ready() bool {
	return s.left == 0 && s.to-s.from >= recordHeader && s.to-s.from >= s.record()
}

// Write writes, or holds back while corked.
func (s *socket) Write(p []byte) (int, error) {
	if s.corked {
		s.out = append(s.out, p...)
		return len(p), nil
	}
	return s.Conn.Write(p)
}

// uncork writes what was held back, by one system call.
func (s *socket) uncork() error {
	s.corked = false
	_, err := s.Conn.Write(s.out)
	s.out = s.out[:0]
	return err
}
