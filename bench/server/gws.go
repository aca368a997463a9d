package main

import (
	"net/http"
	"strconv"
	"strings"

	"github.com/lxzan/gws"
)

// gwsMux is gws as its documentation shows it; its fan-out is its Broadcaster, which
// queues for each connection as the gateway does.
func gwsMux() http.Handler {
	mux := http.NewServeMux()
	serve := func(handler gws.Event) http.HandlerFunc {
		upgrader := gws.NewUpgrader(handler, nil)
		return func(w http.ResponseWriter, r *http.Request) {
			conn, err := upgrader.Upgrade(w, r)
			if err != nil {
				return // it has answered
			}
			if f, ok := handler.(*gwsFanout); ok {
				f.all.join(conn, r.URL.Query()["group"]...)
			}
			go conn.ReadLoop() // so that the request can be forgotten, says the documentation
		}
	}
	mux.HandleFunc("/echo", serve(gwsEcho{}))
	mux.HandleFunc("/fanout", serve(&gwsFanout{all: newGroups[*gws.Conn]()}))
	return mux
}

type gwsEcho struct{ gws.BuiltinEventHandler }

// OnMessage sends the message back.
func (gwsEcho) OnMessage(c *gws.Conn, m *gws.Message) {
	defer m.Close()
	_ = c.WriteMessage(m.Opcode, m.Bytes()) // it closes the connection if that fails
}

type gwsFanout struct {
	gws.BuiltinEventHandler
	all *groups[*gws.Conn]
}

// OnClose forgets the connection.
func (f *gwsFanout) OnClose(c *gws.Conn, _ error) { f.all.leave(c) }

// OnMessage follows a command.
func (f *gwsFanout) OnMessage(c *gws.Conn, m *gws.Message) {
	defer m.Close()
	answer := "joined"
	switch verb, group, message := command(m.Bytes()); verb {
	case "j":
		f.all.join(c, strings.Fields(string(m.Bytes()[1:]))...)
	case "s":
		members := f.all.of(group)
		broadcaster := gws.NewBroadcaster(gws.OpcodeText, message)
		for _, member := range members {
			_ = broadcaster.Broadcast(member) // who is gone, is gone
		}
		_ = broadcaster.Close() // the buffer goes back when the last one has been written
		answer = strconv.Itoa(len(members))
	}
	c.WriteAsync(gws.OpcodeText, []byte(answer), nil)
}
