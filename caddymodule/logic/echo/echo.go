// Package echo is message logic that answers every message with itself.
package echo

import (
	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-websocket/caddy-websocket/gateway"
)

func init() {
	caddy.RegisterModule(&Echo{})
}

// Echo answers every message with itself, text with text and binary with binary.
// It is for trying out a connection and for measuring.
type Echo struct {
	gateway.NopLogic
}

// CaddyModule returns the Caddy module information.
func (*Echo) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "websocket.logic.echo", New: func() caddy.Module { return new(Echo) }}
}

// OnMessage sends the message back.
func (*Echo) OnMessage(c *gateway.Client, m gateway.Message) error { return c.Send(m) }

// UnmarshalCaddyfile sets up the logic from the line:
//
//	logic echo
func (*Echo) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the module's name
	if d.NextArg() || d.NextBlock(0) {
		return d.Errf("logic echo takes no arguments, found %q", d.Val())
	}
	return nil
}

// Interface guards
var (
	_ gateway.Logic         = (*Echo)(nil)
	_ caddyfile.Unmarshaler = (*Echo)(nil)
)
