package soak

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/gorilla/websocket"
)

const (
	// window is how many messages of a client may wait for their answers.
	window = 8

	// patience is after how long something that has not come is taken for lost.
	patience = 30 * time.Second

	minMessage = 10
	maxMessage = 8 << 10
)

// padding follows the number in a message: no two clients have the same.
var padding = bytes.Repeat([]byte("abcdefghijklmnopqrstuvwxyz0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ-_"), 3*maxMessage/64)

// socket is one connection of a client, from its handshake to its end.
type socket struct {
	ws      *websocket.Conn
	book    *ledger
	client  int
	waiting chan message  // sent and not answered, in order
	ended   chan struct{} // closed when nothing more can be read
	err     error         // why; written before ended is closed
}

type message struct {
	text []byte
	at   time.Time
}

var errWrong = errors.New("another answer than was due")

func newSocket(ws *websocket.Conn, book *ledger, client int) *socket {
	s := &socket{ws: ws, book: book, client: client, waiting: make(chan message, window), ended: make(chan struct{})}
	book.opened.Add(1)
	go s.read()
	return s
}

// read compares what comes with what is due, until the connection ends.
func (s *socket) read() {
	defer close(s.ended)
	for {
		_, got, err := s.ws.ReadMessage()
		if err != nil {
			s.err = err
			return
		}
		select {
		case due := <-s.waiting:
			if bytes.Equal(got, due.text) {
				s.book.answered.Add(1)
				s.book.latencies.add(time.Since(due.at))
				continue
			}
		default:
		}
		s.book.wrong.Add(1)
		s.err = errWrong
		return
	}
}

// say sends the numbered message. It returns false if the connection has ended.
func (s *socket) say(number, size int) bool {
	text := append(make([]byte, 0, size), fmt.Sprintf("m%09d", number)...)
	text = append(text, padding[s.client:][:size-len(text)]...)
	select {
	case s.waiting <- message{text, time.Now()}:
	case <-s.ended:
		return false
	case <-time.After(patience):
		_ = s.ws.SetReadDeadline(time.Now()) // which is how this is seen to have timed out
		return false
	}
	s.book.sent.Add(1)
	_ = s.ws.SetWriteDeadline(time.Now().Add(patience))
	if s.ws.WriteMessage(websocket.TextMessage, text) != nil {
		_ = s.ws.SetReadDeadline(time.Now().Add(time.Second)) // what is still to be read says why
		<-s.ended
		return false
	}
	return true
}

// leave closes with 1000 behind what was sent, all of which must still be answered.
func (s *socket) leave() {
	goodbye := websocket.FormatCloseMessage(websocket.CloseNormalClosure, "")
	_ = s.ws.WriteControl(websocket.CloseMessage, goodbye, time.Now().Add(patience)) // what is read tells
	s.expect(websocket.CloseNormalClosure, &s.book.bye)
}

// fail makes the logic panic, behind what was sent: that must still be answered.
func (s *socket) fail() {
	_ = s.ws.WriteMessage(websocket.TextMessage, []byte("panic"))
	s.expect(websocket.CloseInternalServerErr, &s.book.failed)
}

// abort resets the connection, as a phone does that loses its network; or the stream, as
// a browser does whose page is gone.
func (s *socket) abort() {
	conn := s.ws.NetConn()
	if overTLS, ok := conn.(*tls.Conn); ok {
		conn = overTLS.NetConn()
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = conn.Close()
	<-s.ended
	if !errors.Is(s.err, net.ErrClosed) { // somebody else was faster
		s.dropped()
		return
	}
	s.book.aborted.Add(1)
	s.book.abandoned.Add(int64(len(s.waiting)))
}

// expect waits for the end, which must be a close frame with code.
func (s *socket) expect(code int, count interface{ Add(delta int64) int64 }) {
	_ = s.ws.SetReadDeadline(time.Now().Add(patience))
	<-s.ended
	if !websocket.IsCloseError(s.err, code) {
		s.dropped()
		return
	}
	count.Add(1)
	s.book.lost.Add(int64(len(s.waiting)))
	_ = s.ws.Close()
}

// wasCut tells whether the connection has ended with the line that it was on.
func (s *socket) wasCut() bool {
	stream, ok := s.ws.NetConn().(*streamConn)
	return ok && stream.line.cut.Load() && ending(s.err) == "ended without a close frame"
}

// dropped counts a connection that has ended against the will of its client, unless it
// was the client's own network.
func (s *socket) dropped() {
	_ = s.ws.Close()
	<-s.ended
	if s.wasCut() {
		s.book.aborted.Add(1)
		s.book.abandoned.Add(int64(len(s.waiting)))
		return
	}
	s.book.drop(s.err)
	s.book.lost.Add(int64(len(s.waiting)))
}
