// Command caddy is cmd/caddy with the message logic that load.Fanout asks for: `logic fanout`.
package main

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	_ "github.com/caddyserver/caddy/v2/modules/standard"

	_ "github.com/caddy-websocket/caddy-websocket/caddymodule"
	"github.com/caddy-websocket/caddy-websocket/gateway"
)

func main() { caddycmd.Main() }

func init() { caddy.RegisterModule(&Fanout{}) }

// Fanout sends messages to groups and lets clients join some.
type Fanout struct{ gateway.NopLogic }

// CaddyModule returns the Caddy module information.
func (*Fanout) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "websocket.logic.fanout", New: func() caddy.Module { return new(Fanout) }}
}

// OnMessage follows a command.
func (*Fanout) OnMessage(c *gateway.Client, m gateway.Message) error {
	verb, rest, _ := bytes.Cut(m.Data, []byte(" "))
	switch string(verb) {
	case "j":
		if err := c.Join(strings.Fields(string(rest))...); err != nil {
			return err
		}
		return c.Send(gateway.Text("joined"))
	case "s":
		group, message, _ := bytes.Cut(rest, []byte(" "))
		n, err := c.Gateway().Send(gateway.Target{Groups: []string{string(group)}}, gateway.Message{Type: gateway.TextMessage, Data: message})
		if err != nil {
			return err
		}
		return c.Send(gateway.Text(strconv.Itoa(n)))
	}
	return fmt.Errorf("command %q: allowed are j and s", verb)
}

// UnmarshalCaddyfile sets up the logic from the line:
//
//	logic fanout
func (*Fanout) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the module's name
	if d.NextArg() || d.NextBlock(0) {
		return d.ArgErr()
	}
	return nil
}

// Interface guards
var (
	_ gateway.Logic         = (*Fanout)(nil)
	_ caddyfile.Unmarshaler = (*Fanout)(nil)
)
