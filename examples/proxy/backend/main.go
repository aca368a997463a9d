// Command backend is a WebSocket server as people have it already: it speaks ws://
// on a loopback port, knows its visitors by X-Real-IP, and answers everything with
// that address and its own name.
package main

import (
	"errors"
	"flag"
	"fmt"
	"log"
	"net/http"
	"time"

	"github.com/gorilla/websocket"
)

func main() {
	listen := flag.String("listen", "127.0.0.1:8282", "address")
	name := flag.String("name", "one", "what it calls itself")
	flag.Parse()
	server := &http.Server{Addr: *listen, Handler: handler(*name), ReadHeaderTimeout: 10 * time.Second}
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		log.Fatal(err)
	}
}

// handler answers plain requests with 200, as a health check wants it, and
// everything that is sent over a WebSocket with the visitor's address.
func handler(name string) http.Handler {
	// The origin has been checked by whoever passed the request on.
	upgrader := websocket.Upgrader{CheckOrigin: func(*http.Request) bool { return true }}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !websocket.IsWebSocketUpgrade(r) {
			fmt.Fprintln(w, "alive")
			return
		}
		conn, err := upgrader.Upgrade(w, r, nil)
		if err != nil {
			return // Upgrade has answered
		}
		defer conn.Close()
		for {
			kind, message, err := conn.ReadMessage()
			if err != nil {
				return
			}
			answer := fmt.Sprintf("backend %s: %s from %s", name, message, r.Header.Get("X-Real-IP"))
			if err := conn.WriteMessage(kind, []byte(answer)); err != nil {
				return
			}
		}
	})
}
