package soak

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
)

// A run that finds nothing is worth something only if the clients see what a server does
// wrong, and count it where it belongs.
func TestClientsSeeWhatAServerDoesWrong(t *testing.T) {
	const messages = 5
	goodbye := func(ws *websocket.Conn, code int) {
		_ = ws.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(code, ""), time.Now().Add(patience))
	}
	type counts struct{ bye, aborted, failed, dropped, answered, abandoned, lost, wrong int64 }
	for name, tt := range map[string]struct {
		answer func(ws *websocket.Conn, n int, message []byte) // the n-th, from 0 on
		end    func(*socket)
		want   counts
		why    string
	}{
		"nothing": {echo, (*socket).leave, counts{bye: 1, answered: 5}, ""},
		"it loses the last message": {func(ws *websocket.Conn, n int, message []byte) {
			if n < messages-1 {
				echo(ws, n, message)
			}
		}, (*socket).leave, counts{bye: 1, answered: 4, lost: 1}, ""},
		"it loses one in between": {func(ws *websocket.Conn, n int, message []byte) {
			if n != 2 {
				echo(ws, n, message)
			}
		}, (*socket).leave, counts{dropped: 1, answered: 2, wrong: 1, lost: 2}, errWrong.Error()},
		"it changes one": {func(ws *websocket.Conn, n int, message []byte) {
			if n == messages-1 {
				message = []byte(strings.ToUpper(string(message)))
			}
			echo(ws, n, message)
		}, (*socket).leave, counts{dropped: 1, answered: 4, wrong: 1}, errWrong.Error()},
		"it answers twice": {func(ws *websocket.Conn, n int, message []byte) {
			echo(ws, n, message)
			if n == messages-1 {
				echo(ws, n, message)
			}
		}, (*socket).leave, counts{dropped: 1, answered: 5, wrong: 1}, errWrong.Error()},
		"it closes": {func(ws *websocket.Conn, n int, message []byte) {
			echo(ws, n, message)
			if n == messages-1 {
				goodbye(ws, websocket.CloseGoingAway)
			}
		}, func(s *socket) { <-s.ended; s.dropped() }, counts{dropped: 1, answered: 5}, "closed with 1001"},
		"it hangs up": {func(ws *websocket.Conn, n int, message []byte) {
			echo(ws, n, message)
			if n == messages-1 {
				_ = ws.Close()
			}
		}, func(s *socket) { <-s.ended; s.dropped() }, counts{dropped: 1, answered: 5}, "ended without a close frame"},
		"it answers what makes it panic": {echo, (*socket).fail, counts{dropped: 1, answered: 5, wrong: 1}, errWrong.Error()},
		"it closes with 1011 as asked": {func(ws *websocket.Conn, n int, message []byte) {
			if n == messages {
				goodbye(ws, websocket.CloseInternalServerErr)
				return
			}
			echo(ws, n, message)
		}, (*socket).fail, counts{failed: 1, answered: 5}, ""},
		"nothing, before the client resets": {func(*websocket.Conn, int, []byte) {}, (*socket).abort, counts{aborted: 1, abandoned: 5}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				upgrader := websocket.Upgrader{}
				ws, err := upgrader.Upgrade(w, r, nil)
				if err != nil {
					return
				}
				defer ws.Close()
				var received [][]byte
				for {
					_, message, err := ws.ReadMessage()
					if err != nil {
						return
					}
					received = append(received, message)
					switch n := len(received); {
					case n == messages: // not before all are sent, or how many would be a matter of luck
						for i, message := range received {
							tt.answer(ws, i, message)
						}
					case n > messages:
						tt.answer(ws, n-1, message)
					}
				}
			}))
			defer server.Close()
			dialer := websocket.Dialer{TLSClientConfig: server.Client().Transport.(*http.Transport).TLSClientConfig}
			ws, _, err := dialer.Dial("wss://"+server.Listener.Addr().String(), nil)
			if err != nil {
				t.Fatal(err)
			}
			defer ws.Close()
			book := newLedger()
			s := newSocket(ws, book, 7)
			for n := range messages {
				if !s.say(n, minMessage+n*1000) {
					break
				}
			}
			tt.end(s)
			got := counts{
				book.bye.Load(), book.aborted.Load(), book.failed.Load(), book.dropped.Load(),
				book.answered.Load(), book.abandoned.Load(), book.lost.Load(), book.wrong.Load(),
			}
			if got != tt.want {
				t.Errorf("counted %+v, want %+v", got, tt.want)
			}
			if why, _, _ := book.tallies(); !strings.Contains(why, tt.why) {
				t.Errorf("the reason is %q, want %q", why, tt.why)
			}
		})
	}
}

func echo(ws *websocket.Conn, _ int, message []byte) {
	_ = ws.WriteMessage(websocket.TextMessage, message)
}

// What the report says of latencies must not flatter: a quantile is rounded up.
func TestQuantilesAreUpperBounds(t *testing.T) {
	var l latencies
	for n := range 1000 {
		l.add(time.Duration(n+1) * time.Millisecond)
	}
	for q, exact := range map[float64]time.Duration{0.5: 501 * time.Millisecond, 0.99: 991 * time.Millisecond} {
		if got := l.quantile(q); got < exact || got > exact*5/4 {
			t.Errorf("quantile %g is %s, want %s or up to a quarter more", q, got, exact)
		}
	}
	if got := time.Duration(l.worst.Load()); got != time.Second {
		t.Errorf("the worst is %s, want 1s", got)
	}
}
