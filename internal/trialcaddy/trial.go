package main

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-websocket/caddy-websocket/gateway"
)

func init() {
	caddy.RegisterModule(&Trial{})
}

// Trial answers every message with itself, but for these text messages:
//
//	tag           the answer is Tag, which tells configurations apart
//	counts        the answer is {"opens":N,"closes":N,"panics":N} of this process
//	panic         the callback panics
//	error         the callback returns an error
//	hang          the callback never returns
//	sleep 300ms   the callback returns after so long, and answers as to any other
//	flood 100 64  sends 100 messages of 64 bytes to the client that asks
type Trial struct {
	Tag string `json:"tag,omitempty"`
}

// counts are those of the process: they go on through reloads.
var counts struct{ opens, closes, panics atomic.Int64 }

// CaddyModule returns the Caddy module information.
func (*Trial) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "websocket.logic.trial", New: func() caddy.Module { return new(Trial) }}
}

// OnConnect accepts and counts.
func (*Trial) OnConnect(*gateway.Client, *http.Request) error {
	counts.opens.Add(1)
	return nil
}

// OnMessage does what is asked for.
func (t *Trial) OnMessage(c *gateway.Client, m gateway.Message) error {
	var (
		pause   time.Duration
		n, size int
	)
	verb, rest, _ := strings.Cut(m.String(), " ")
	switch verb {
	case "tag":
		return c.Send(gateway.Text(t.Tag))
	case "counts":
		return c.SendJSON(map[string]int64{
			"opens": counts.opens.Load(), "closes": counts.closes.Load(), "panics": counts.panics.Load(),
		})
	case "panic":
		counts.panics.Add(1)
		panic("as asked")
	case "error":
		return errors.New("as asked")
	case "hang":
		select {}
	case "sleep":
		var err error
		if pause, err = time.ParseDuration(rest); err != nil {
			return err
		}
		time.Sleep(pause)
	case "flood":
		if _, err := fmt.Sscan(rest, &n, &size); err != nil {
			return fmt.Errorf("flood: %w", err)
		}
		message := gateway.Binary(bytes.Repeat([]byte{'x'}, size))
		for range n {
			if err := c.Send(message); err != nil {
				return err
			}
		}
		return nil
	}
	return c.Send(m)
}

// OnClose counts.
func (*Trial) OnClose(*gateway.Client, gateway.CloseReason) { counts.closes.Add(1) }

// UnmarshalCaddyfile sets up the logic from the line:
//
//	logic trial [<tag>]
func (t *Trial) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the module's name
	if d.NextArg() {
		t.Tag = d.Val()
	}
	if d.NextArg() || d.NextBlock(0) {
		return d.ArgErr()
	}
	return nil
}

// Interface guards
var (
	_ gateway.Logic         = (*Trial)(nil)
	_ caddyfile.Unmarshaler = (*Trial)(nil)
)
