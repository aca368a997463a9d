package gateway

import (
	"bufio"
	"net"
	"net/http"
	"sync"

	"github.com/gorilla/websocket"
)

// gorilla makes a server's Conn only while it answers a handshake, and reads lists
// less well than they are read here. So it is shown one that is always the same, once
// the real one has been answered, and what it answers goes nowhere.
var (
	shownPlain   = shown(nil)
	shownDeflate = shown([]string{"permessage-deflate"})
)

func shown(extensions []string) *http.Request {
	return &http.Request{Method: http.MethodGet, Header: http.Header{
		"Connection":               {"Upgrade"},
		"Upgrade":                  {"websocket"},
		"Sec-Websocket-Version":    {"13"},
		"Sec-Websocket-Key":        {"dGhlIHNhbXBsZSBub25jZQ=="},
		"Sec-Websocket-Extensions": extensions,
	}}
}

// upgrader is safe for concurrent use, like the two requests.
var upgrader = websocket.Upgrader{
	EnableCompression: true, // if it is shown an offer
	ReadBufferSize:    readBuffer,
	WriteBufferPool:   noWriteBuffers{},
	WriteBufferSize:   1,
	CheckOrigin:       func(*http.Request) bool { return true }, // done, by rules of ours
	Error:             func(http.ResponseWriter, *http.Request, int, error) {},
}

// readBuffer is what a connection keeps for reading: small, because most of the
// time most connections are idle. A longer message is read past it.
const readBuffer = 1024

// noWriteBuffers keeps gorilla from making write buffers: it never writes
// messages here.
type noWriteBuffers struct{}

// Get returns nothing to reuse.
func (noWriteBuffers) Get() any { return nil }

// Put forgets v.
func (noWriteBuffers) Put(any) {}

// takenOver returns the Conn that reads from w, whose handshake has been answered.
func takenOver(w *wire, deflate bool) (*websocket.Conn, error) {
	s := stages.Get().(*stage)
	defer stages.Put(s)
	s.wire = w
	request := shownPlain
	if deflate {
		request = shownDeflate
	}
	ws, err := upgrader.Upgrade(s, request, nil)
	s.wire = nil
	s.unused.Writer.Reset(nil) // which gorilla has given the wire
	return ws, err
}

// stage is the http.ResponseWriter that gorilla upgrades.
type stage struct {
	http.ResponseWriter // nil: gorilla writes no response, as its Error hook is set
	wire                *wire
	unused              *bufio.ReadWriter
}

// stages keeps them: none is needed for longer than a moment.
var stages = sync.Pool{New: func() any {
	const least, answer = 16, 256 // gorilla puts its answer together in the writer's buffer
	return &stage{unused: bufio.NewReadWriter(bufio.NewReaderSize(nil, least), bufio.NewWriterSize(nil, answer))}
}}

// Hijack returns the wire. gorilla looks whether something was read already.
func (s *stage) Hijack() (net.Conn, *bufio.ReadWriter, error) { return s.wire, s.unused, nil }
