package main

import (
	"bufio"
	"net"
	"net/http"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/gorilla/websocket"
)

func init() {
	caddy.RegisterModule(&Gorilla{})
	httpcaddyfile.RegisterHandlerDirective("gorilla", func(h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
		h.Next() // the directive's name
		if h.NextArg() || h.NextBlock(0) {
			return nil, h.ArgErr()
		}
		return new(Gorilla), nil
	})
	httpcaddyfile.RegisterDirectiveOrder("gorilla", httpcaddyfile.Before, "invoke")
}

// Gorilla is the loop of gorilla's examples as a handler of Caddy's: what it costs more
// than on net/http is what Caddy costs.
type Gorilla struct{ upgrader websocket.Upgrader }

// CaddyModule returns the Caddy module information.
func (*Gorilla) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.gorilla", New: func() caddy.Module { return new(Gorilla) }}
}

// ServeHTTP answers the handshake, and then sends back what comes.
func (g *Gorilla) ServeHTTP(w http.ResponseWriter, r *http.Request, _ caddyhttp.Handler) error {
	conn, err := g.upgrader.Upgrade(hijacker{w}, r, nil)
	if err != nil {
		return nil // it has answered
	}
	defer conn.Close()
	for {
		kind, data, err := conn.ReadMessage()
		if err != nil || conn.WriteMessage(kind, data) != nil {
			return nil
		}
	}
}

// hijacker finds the connection below Caddy's own writers, which gorilla does not look for.
type hijacker struct{ http.ResponseWriter }

// Hijack takes over the connection.
func (h hijacker) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return http.NewResponseController(h.ResponseWriter).Hijack()
}

// Interface guards
var _ caddyhttp.MiddlewareHandler = (*Gorilla)(nil)
