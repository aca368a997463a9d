// Command caddy is cmd/caddy with the message logic that load.Plain asks for, `logic fanout`,
// and with WebSockets over HTTP/2.
package main

import (
	"bytes"
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	_ "github.com/caddyserver/caddy/v2/modules/standard"

	_ "github.com/caddy-websocket/caddy-websocket/caddymodule"
	"github.com/caddy-websocket/caddy-websocket/gateway"
	_ "github.com/caddy-websocket/caddy-websocket/gateway/extendedconnect"
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
	case "s", "u":
		name, message, _ := bytes.Cut(rest, []byte(" "))
		to := gateway.Groups(string(name))
		if verb[0] == 'u' {
			to = gateway.Users(string(name))
		}
		n, err := c.Gateway().Send(to, gateway.Message{Type: gateway.TextMessage, Data: message})
		if err != nil {
			return err
		}
		return c.Send(gateway.Text(strconv.Itoa(n)))
	case "w":
		others, err := strconv.Atoi(string(rest))
		if err != nil {
			return err
		}
		if err := settle(c.Gateway(), others); err != nil {
			return err
		}
		return c.Send(gateway.Text("settled"))
	}
	return fmt.Errorf("command %q: allowed are j, s, u and w", verb)
}

// settle waits until so many other nodes are known, and what was joined here is in force there.
func settle(g *gateway.Gateway, others int) error {
	const patience, pause = 10 * time.Second, 10 * time.Millisecond
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for len(g.Nodes())-1 < others {
		select {
		case <-ctx.Done():
			return fmt.Errorf("%d nodes are known, want %d others", len(g.Nodes()), others)
		case <-time.After(pause):
		}
	}
	return g.Settle(ctx)
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
