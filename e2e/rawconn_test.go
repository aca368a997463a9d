package e2e

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

// rawConn is a connection on which requests are written by hand: no client of a library
// says whether a connection was kept, and none is as cheap by the thousand.
type rawConn struct {
	net.Conn
}

func dialRaw(addr string) (*rawConn, error) {
	conn, err := net.DialTimeout("tcp", addr, 20*time.Second)
	if err != nil {
		return nil, err
	}
	return &rawConn{conn}, nil
}

// get sends a request, or a handshake, and reads the answer with its body.
func (c *rawConn) get(path string, handshake bool) (status int, header http.Header, err error) {
	if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		return 0, nil, err
	}
	fields := ""
	if handshake {
		fields = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
	}
	if _, err := fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: %s\r\n%s\r\n", path, c.RemoteAddr(), fields); err != nil {
		return 0, nil, err
	}
	// A server sends nothing unasked before the handshake is answered but what logic
	// sends in OnConnect, and trial sends nothing then.
	const enough = 512
	res, err := http.ReadResponse(bufio.NewReaderSize(c, enough), nil)
	if err != nil {
		return 0, nil, err
	}
	defer res.Body.Close()
	_, err = io.Copy(io.Discard, res.Body) // of a 101 there is nothing
	return res.StatusCode, res.Header, errors.Join(err, c.SetDeadline(time.Time{}))
}
