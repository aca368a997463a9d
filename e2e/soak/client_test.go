package soak

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gorilla/websocket"
)

// role is how a client behaves.
type role int

const (
	mixed  role = iota // none of its own: some of each of the next three
	stays              // one connection for the whole run
	passes             // comes and goes, with or without a goodbye
	breaks             // makes the logic panic with one message in a hundred
	falls              // stays until its connection is cut, with all sockets on it
)

// atFirst is which message of a client that breaks makes the logic panic for certain: in
// the short form one in a hundred may be none.
const atFirst = 20

// load is all clients of one server.
type load struct {
	t       *testing.T
	url     string // wss://localhost:4431
	dialer  websocket.Dialer
	dialing chan struct{} // a place in it is the permission to dial, so that a crowd does not time out
	stop    chan struct{} // closed when the run is over
	adieu   atomic.Bool   // who is closed from now on does not come back
	first   sync.WaitGroup
	gone    sync.WaitGroup
}

// group are clients that differ in nothing but chance.
type group struct {
	name  string // the first part of their names in the server's log
	path  string
	book  *ledger
	dial  func(url string) (*websocket.Conn, *http.Response, error)
	logic bool // at path there is logic that can be made to panic
	role  role // what all are; mixed: see add
}

func newLoad(t *testing.T, url string, roots *x509.CertPool) *load {
	return &load{
		t:   t,
		url: url,
		dialer: websocket.Dialer{
			HandshakeTimeout: patience,
			TLSClientConfig:  &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
		},
		dialing: make(chan struct{}, 32),
		stop:    make(chan struct{}),
	}
}

// over is how clients connect over HTTP/1.1.
func (l *load) over(url string) (*websocket.Conn, *http.Response, error) {
	return l.dialer.DialContext(context.Background(), url, nil)
}

// add starts n clients. In a mixed group one in two stays for the whole
// run; of the others one in five makes the logic panic if there is any.
func (l *load) add(n int, g group) {
	for i := range n {
		r := stays
		switch {
		case g.role != mixed:
			r = g.role
		case i%2 == 0:
			g.book.stayers.Add(1)
		case g.logic && i%10 == 9:
			r = breaks
		default:
			r = passes
		}
		l.first.Add(1)
		l.gone.Go(func() { l.client(i, g, r) })
	}
}

// client connects again and again, until the run is over.
func (l *load) client(i int, g group, r role) {
	url := fmt.Sprintf("%s%s?user=%s-%d", l.url, g.path, g.name, i)
	first := sync.OnceFunc(l.first.Done)
	defer first()
	for nth := 0; ; nth++ {
		ws := l.dial(url, g)
		if ws == nil {
			return
		}
		first()
		s := newSocket(ws, g.book, i)
		l.talk(s, r, nth == 0)
		select {
		case <-l.stop:
			if r == stays && nth == 0 && websocket.IsCloseError(s.err, websocket.CloseNormalClosure) {
				g.book.stayed.Add(1)
			}
			return
		case <-time.After(jitter(*flagPause)): // what a client does who was closed
		}
		if l.adieu.Load() {
			return
		}
	}
}

// talk lives one connection to its end.
func (l *load) talk(s *socket, r role, isFirst bool) {
	var leaving <-chan time.Time
	if r == passes {
		leaving = time.After(jitter(*flagLife))
	}
	for number := 0; ; {
		select {
		case <-s.ended:
			s.dropped()
			return
		case <-l.stop:
			s.leave()
			return
		case <-leaving:
			if rand.IntN(2) == 0 {
				s.abort()
			} else {
				s.leave()
			}
			return
		case <-time.After(jitter(*flagPause)):
		}
		for range 1 + rand.IntN(3) {
			number++
			if r == breaks && (isFirst && number == atFirst || rand.IntN(100) == 0) {
				s.fail()
				return
			}
			if !s.say(number, minMessage+rand.IntN(maxMessage-minMessage+1)) {
				s.dropped()
				return
			}
		}
	}
}

// dial tries until it succeeds, and returns nil if the run is over before.
func (l *load) dial(url string, g group) *websocket.Conn {
	for {
		select {
		case l.dialing <- struct{}{}:
		case <-l.stop:
			return nil
		}
		ws, res, err := g.dial(url)
		<-l.dialing
		if err == nil {
			return ws
		}
		g.book.retry(res, err)
		select {
		case <-l.stop:
			return nil
		case <-time.After(jitter(100 * time.Millisecond)):
		}
	}
}

// connected returns how many connections of the books are open.
func (l *load) connected(books ...*ledger) int {
	n := int64(0)
	for _, b := range books {
		n += b.opened.Load() - b.bye.Load() - b.aborted.Load() - b.failed.Load() - b.dropped.Load()
	}
	return int(n)
}

// finish lets all clients say goodbye and returns when they are gone.
func (l *load) finish() {
	close(l.stop)
	l.gone.Wait()
}

// jitter returns a random time whose mean is d, and at most three times that.
func jitter(d time.Duration) time.Duration {
	return min(time.Duration(rand.ExpFloat64()*float64(d)), 3*d)
}
