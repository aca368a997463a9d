package soak

import (
	"net"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gorilla/websocket"
)

// backend is the WebSocket server that proxies stand in front of: it echoes.
type backend struct {
	addr          string
	opens, closes atomic.Int64
}

func startBackend(t *testing.T) *backend {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := &backend{addr: listener.Addr().String()}
	server := &http.Server{Handler: b, ReadHeaderTimeout: time.Minute}
	done := make(chan struct{})
	go func() {
		_ = server.Serve(listener) // it is closed
		close(done)
	}()
	t.Cleanup(func() {
		server.Close()
		<-done
	})
	return b
}

func (b *backend) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	upgrader := websocket.Upgrader{CheckOrigin: func(*http.Request) bool { return true }}
	ws, err := upgrader.Upgrade(w, r, nil)
	if err != nil {
		return // it has answered
	}
	b.opens.Add(1)
	defer b.closes.Add(1)
	defer ws.Close()
	for {
		kind, message, err := ws.ReadMessage()
		if err != nil {
			return
		}
		if err := ws.WriteMessage(kind, message); err != nil {
			return
		}
	}
}
