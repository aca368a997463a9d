package main

import (
	"bytes"
	"net"
)

// bare is the floor for idle connections in Go: a goroutine each that has answered the
// handshake by hand and blocks in Read.
func bare(l net.Listener) error {
	for {
		conn, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			if !answer(conn) {
				conn.Close()
				return
			}
			go block(conn) // on a stack that no handshake has made larger
		}()
	}
}

func answer(conn net.Conn) bool {
	request := make([]byte, 0, 1024)
	for !bytes.HasSuffix(request, []byte("\r\n\r\n")) {
		n, err := conn.Read(request[len(request):cap(request)])
		if err != nil {
			return false
		}
		request = request[:len(request)+n]
	}
	// What is accepted is right for the one key that the generator has, of RFC 6455 section 1.3.
	_, err := conn.Write([]byte("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
		"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"))
	return err == nil
}

func block(conn net.Conn) {
	defer conn.Close()
	var b [1]byte
	for {
		if _, err := conn.Read(b[:]); err != nil {
			return
		}
	}
}
