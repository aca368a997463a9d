package soak

import (
	"crypto/tls"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/gorilla/websocket"
)

// slow counts what becomes of clients that ask for 16 MiB and do not read them.
type slow struct {
	gone sync.WaitGroup

	mu   sync.Mutex
	ends map[string]int // guarded by mu
}

// flood is more than the send buffer of /trial and what the kernel takes for one
// connection, together.
const flood = "flood 1024 16384"

// add starts n clients, one in two of each kind, that come some time within the run:
//
//   - on /trial the flood overflows the send buffer. The client reads on after a while,
//     and what it reads ends with 1013.
//   - on /slow there is room for all of it. The client does not read until long after
//     write_timeout, and what it finds then ends without a close frame.
func (s *slow) add(l *load, n int, within time.Duration) {
	s.ends = make(map[string]int)
	g := group{book: newLedger(), dial: l.over} // whose handshakes these are is of no interest
	for i := range n {
		s.gone.Go(func() {
			time.Sleep(within * time.Duration(i) / time.Duration(n))
			path, pause, want := "/trial", 500*time.Millisecond, "closed with 1013"
			if i%2 == 1 {
				path, pause, want = "/slow", slowTimeout+4*time.Second, "cut"
			}
			got := s.sit(l, fmt.Sprintf("%s%s?user=slow-%d", l.url, path, i), pause, g)
			if got != want {
				got = fmt.Sprintf("%s on %s, want %s", got, path, want)
				l.t.Errorf("a client that stopped reading was %s", got)
			}
			s.mu.Lock()
			defer s.mu.Unlock()
			s.ends[got]++
		})
	}
}

// sit asks for the flood, does not read for the pause, and then reads to the end.
func (s *slow) sit(l *load, url string, pause time.Duration, g group) string {
	ws := l.dial(url, g)
	if ws == nil {
		return "not there in time"
	}
	defer ws.Close()
	if tcp, ok := ws.NetConn().(*tls.Conn).NetConn().(*net.TCPConn); ok {
		_ = tcp.SetReadBuffer(64 << 10) // or the kernel takes in megabytes for the client
	}
	if err := ws.WriteMessage(websocket.TextMessage, []byte(flood)); err != nil {
		return "gone at once"
	}
	time.Sleep(pause)
	_ = ws.SetReadDeadline(time.Now().Add(patience))
	for {
		_, _, err := ws.ReadMessage()
		if err == nil {
			continue
		}
		if end := ending(err); end != "reset" && end != "ended without a close frame" {
			return end
		}
		return "cut"
	}
}

func (s *slow) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return tally(s.ends)
}
