package main

import (
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"

	"github.com/gorilla/websocket"
)

// gorillaMux is the loop of gorilla's examples. Its fan-out is the loop of its
// documentation: a prepared message, written to one connection after the other.
func gorillaMux(all hub) http.Handler {
	mux := http.NewServeMux()
	var upgrader websocket.Upgrader
	mux.HandleFunc("/echo", func(w http.ResponseWriter, r *http.Request) {
		conn, err := upgrader.Upgrade(w, r, nil)
		if err != nil {
			return // it has answered
		}
		defer conn.Close()
		for {
			kind, data, err := conn.ReadMessage()
			if err != nil || conn.WriteMessage(kind, data) != nil {
				return
			}
		}
	})
	mux.HandleFunc("/fanout", func(w http.ResponseWriter, r *http.Request) {
		ws, err := upgrader.Upgrade(w, r, nil)
		if err != nil {
			return // it has answered
		}
		conn := &gorillaConn{Conn: ws}
		defer conn.Close()
		defer all.leave(conn)
		if all.join(conn, named(r.URL.Query())...) != nil {
			return
		}
		for {
			_, data, err := conn.ReadMessage()
			if err != nil || !conn.do(all, data) {
				return
			}
		}
	})
	return mux
}

// named returns the groups of a query. A user is a group of his own.
func named(query url.Values) []string {
	names := query["group"]
	for _, user := range query["user"] {
		names = append(names, ofUser+user)
	}
	return names
}

const ofUser = "user."

// hub is who knows the members of groups.
type hub interface {
	join(c *gorillaConn, groups ...string) error
	leave(c *gorillaConn)

	// send returns how many members of this server it was sent to, if that is known.
	send(group string, message []byte) (int, error)

	// settle returns when all that was joined here is in force on the other servers.
	settle() error
}

// gorillaHub is one server's.
type gorillaHub struct{ *groups[*gorillaConn] }

func (h gorillaHub) join(c *gorillaConn, names ...string) error {
	h.groups.join(c, names...)
	return nil
}

func (h gorillaHub) send(group string, message []byte) (int, error) {
	prepared, err := websocket.NewPreparedMessage(websocket.TextMessage, message)
	if err != nil {
		return 0, err
	}
	members := h.of(group)
	for _, member := range members {
		_ = member.send(prepared) // who is gone, is gone
	}
	return len(members), nil
}

func (h gorillaHub) settle() error { return nil }

// gorillaConn is written to by one at a time.
type gorillaConn struct {
	*websocket.Conn
	mu sync.Mutex
}

func (c *gorillaConn) send(m *websocket.PreparedMessage) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.WritePreparedMessage(m)
}

// do follows a command and reports whether it can go on.
func (c *gorillaConn) do(all hub, data []byte) bool {
	answer := []byte("done")
	var err error
	switch verb, name, message := command(data); verb {
	case "j":
		err = all.join(c, strings.Fields(string(data[1:]))...)
	case "w":
		err = all.settle()
	case "s", "u":
		if verb == "u" {
			name = ofUser + name
		}
		var n int
		n, err = all.send(name, message)
		answer = strconv.AppendInt(nil, int64(n), 10)
	}
	if err != nil {
		return false
	}
	prepared, err := websocket.NewPreparedMessage(websocket.TextMessage, answer)
	return err == nil && c.send(prepared) == nil
}
