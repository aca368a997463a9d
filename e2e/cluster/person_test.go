package cluster

import (
	"fmt"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/gorilla/websocket"
)

// person is a client, through all its connections.
type person struct {
	*book

	town *town
	home *node

	mu    sync.Mutex
	ws    *websocket.Conn // guarded by mu; nil while not connected
	ended chan struct{}   // guarded by mu; closed when the connection has ended
	id    string          // guarded by mu
	known chan struct{}   // guarded by mu; closed when id is that of this connection
}

// book is what somebody has received.
type book struct {
	crowd crowd
	i     int
	wrong func(format string, args ...any)

	mu    sync.Mutex
	last  map[int]int // guarded by mu; of each sender, the number of the last message
	got   map[int]int // guarded by mu; of each sender, how many messages since reset
	whole bool        // guarded by mu; has been connected since reset
}

func newBook(c crowd, i int, wrong func(string, ...any)) *book {
	return &book{crowd: c, i: i, wrong: wrong, last: make(map[int]int), got: make(map[int]int)}
}

// mark is a message that is for everybody and not counted.
const mark kind = "mark"

// message is a message's text.
func message(sender, number int, a aim) string { return fmt.Sprintf("%d %d %s", sender, number, a) }

// take notes a message. What one sender has sent comes in the order of its numbers, each once;
// and what is not for this client never.
func (b *book) take(text string) {
	var sender, number int
	var a aim
	if _, err := fmt.Sscanf(text, "%d %d %s %d %d", &sender, &number, &a.kind, &a.n, &a.m); err != nil {
		b.wrong("client %d received %.100q: %v", b.i, text, err)
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	switch last := b.last[sender]; {
	case number == last:
		b.wrong("client %d received %q twice", b.i, text)
		return
	case number < last:
		b.wrong("client %d received %q after number %d", b.i, text, last)
		return
	case a.kind != mark && !b.crowd.meets(a, b.i):
		b.wrong("client %d received %q, which is not for it", b.i, text)
		return
	}
	b.last[sender] = number
	if a.kind != mark {
		b.got[sender]++
	}
}

// has tells whether a sender's message with this number, or a later one, has come.
func (b *book) has(sender, number int) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.last[sender] >= number
}

// count is how many messages of a sender have come. ok is false for who has not been
// connected for all of the time.
func (b *book) count(sender int) (n int, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.got[sender], b.whole
}

func (b *book) reset(connected bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	clear(b.got)
	b.whole = connected
}

func (b *book) interrupted() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.whole = false
}

// connect opens a connection and learns its id.
func (p *person) connect() error {
	query := url.Values{"user": {userName(user(p.i))}, "group": {groupName(p.crowd.group(p.i))}, "hall": {hallName(hall(p.i))}}
	dialer := websocket.Dialer{HandshakeTimeout: patience}
	ws, res, err := dialer.DialContext(p.town.t.Context(), "ws://"+p.home.site+"/ws?"+query.Encode(), nil)
	if err != nil {
		if res != nil {
			err = fmt.Errorf("%w (%s)", err, res.Status)
		}
		return err
	}
	known, ended := make(chan struct{}), make(chan struct{})
	p.mu.Lock()
	p.ws, p.known, p.ended = ws, known, ended
	p.mu.Unlock()
	go p.read(ws, known, ended)
	if err := ws.WriteMessage(websocket.TextMessage, []byte("who am I?")); err != nil {
		return err
	}
	select {
	case <-known:
		return nil
	case <-ended:
		return fmt.Errorf("client %d: the connection has ended", p.i)
	case <-time.After(patience):
		return fmt.Errorf("client %d: no answer in %s", p.i, patience)
	}
}

// read takes what comes until the connection ends, which must have been announced.
func (p *person) read(ws *websocket.Conn, known, ended chan struct{}) {
	defer close(ended)
	defer ws.Close()
	for {
		_, data, err := ws.ReadMessage()
		if err != nil {
			p.mu.Lock()
			p.ws, p.id = nil, ""
			p.mu.Unlock()
			p.interrupted()
			p.town.ended(p, err)
			return
		}
		if id, is := strings.CutPrefix(string(data), "id "); is {
			p.mu.Lock()
			p.id = id
			p.mu.Unlock()
			close(known)
			continue
		}
		p.take(string(data))
	}
}

// now returns the id, or "" for who is not connected.
func (p *person) now() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.id
}

// hangUp ends the connection, and returns when nothing comes any more.
func (p *person) hangUp() {
	p.mu.Lock()
	ws, ended := p.ws, p.ended
	p.mu.Unlock()
	if ws != nil {
		_ = ws.Close()
	}
	if ended != nil {
		<-ended
	}
}

// awaitEnd waits until the connection, which somebody else has ended, is gone.
func (p *person) awaitEnd(within time.Duration) bool {
	p.mu.Lock()
	ended := p.ended
	p.mu.Unlock()
	select {
	case <-ended:
		return true
	case <-time.After(within):
		return false
	}
}
