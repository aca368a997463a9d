package main

import (
	"net/http"
	"strconv"
	"strings"
	"sync"

	"github.com/gorilla/websocket"
)

// gorillaMux is the loop of gorilla's examples. Its fan-out is the loop of its
// documentation: a prepared message, written to one connection after the other.
func gorillaMux() http.Handler {
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
	all := newGroups[*gorillaConn]()
	mux.HandleFunc("/fanout", func(w http.ResponseWriter, r *http.Request) {
		ws, err := upgrader.Upgrade(w, r, nil)
		if err != nil {
			return // it has answered
		}
		conn := &gorillaConn{Conn: ws}
		defer conn.Close()
		defer all.leave(conn)
		all.join(conn, r.URL.Query()["group"]...)
		for {
			_, data, err := conn.ReadMessage()
			if err != nil || !conn.do(all, data) {
				return
			}
		}
	})
	return mux
}

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
func (c *gorillaConn) do(all *groups[*gorillaConn], data []byte) bool {
	answer := []byte("joined")
	switch verb, group, message := command(data); verb {
	case "j":
		all.join(c, strings.Fields(string(data[1:]))...)
	case "s":
		prepared, err := websocket.NewPreparedMessage(websocket.TextMessage, message)
		if err != nil {
			return false
		}
		members := all.of(group)
		for _, member := range members {
			_ = member.send(prepared) // who is gone, is gone
		}
		answer = strconv.AppendInt(nil, int64(len(members)), 10)
	}
	prepared, err := websocket.NewPreparedMessage(websocket.TextMessage, answer)
	return err == nil && c.send(prepared) == nil
}
