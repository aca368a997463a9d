// Package realip is message logic that answers with the visitor's address.
package realip

import (
	"net/http"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-websocket/caddy-websocket/gateway"
)

func init() { caddy.RegisterModule(RealIP{}) }

// RealIP stores the visitor's address when he connects and answers every
// message with it.
type RealIP struct{ gateway.NopLogic }

// CaddyModule returns the Caddy module information.
func (RealIP) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "websocket.logic.realip", New: func() caddy.Module { return new(RealIP) }}
}

// OnConnect stores the address.
func (RealIP) OnConnect(c *gateway.Client, _ *http.Request) error {
	return c.Session().Set("realIP", c.RealIP())
}

// OnMessage answers with what is stored.
func (RealIP) OnMessage(c *gateway.Client, _ gateway.Message) error {
	return c.Send(gateway.Text(c.Session().Text("realIP")))
}
