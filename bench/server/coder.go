package main

import (
	"net/http"

	"github.com/coder/websocket"
)

// coderMux is the loop of coder/websocket's documentation, without its limit on sizes.
func coderMux() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/echo", func(w http.ResponseWriter, r *http.Request) {
		conn, err := websocket.Accept(w, r, nil)
		if err != nil {
			return // it has answered
		}
		defer func() { _ = conn.CloseNow() }() // nobody is told
		conn.SetReadLimit(-1)
		for {
			kind, data, err := conn.Read(r.Context())
			if err != nil || conn.Write(r.Context(), kind, data) != nil {
				return
			}
		}
	})
	return mux
}
