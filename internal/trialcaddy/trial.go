package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
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
	// The last word: what had happened when the process ended.
	caddy.OnExit(func(context.Context) {
		caddy.Log().Sugar().Infow("trial counts", "opens", counts.opens.Load(), "closes", counts.closes.Load())
	})
}

// Trial accepts every client, see OnConnect, and answers every message with itself, but
// for these text messages:
//
//	tag           the answer is Tag, which tells configurations apart
//	counts        the answer is {"opens":N,"closes":N,"panics":N} of this process
//	panic         the callback panics
//	error         the callback returns an error
//	hang          the callback never returns; it logs "trial hangs"
//	hang on close the answer is itself, and OnClose will never return
//	sleep 300ms   the callback returns after so long, and answers as to any other
//	flood 100 64  sends 100 messages of 64 bytes to the client that asks
//	fill          sends until the client's queue is full and stays so; then it logs
//	              "trial filled". For send_buffer with drop_newest.
//
// When the process ends in order it logs "trial counts".
type Trial struct {
	Tag string `json:"tag,omitempty"`

	// ProvisionFor is how long a reload takes; it logs "trial provisions" first.
	ProvisionFor caddy.Duration `json:"provision_for,omitempty"`

	log *slog.Logger
}

// counts are those of the process: they go on through reloads.
var counts struct{ opens, closes, panics atomic.Int64 }

// CaddyModule returns the Caddy module information.
func (*Trial) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "websocket.logic.trial", New: func() caddy.Module { return new(Trial) }}
}

// Provision takes as long as it was told to.
func (t *Trial) Provision(ctx caddy.Context) error {
	t.log = ctx.Slogger()
	if t.ProvisionFor > 0 {
		t.log.Info("trial provisions")
		time.Sleep(time.Duration(t.ProvisionFor))
	}
	return nil
}

// OnConnect accepts and counts; with ?connect=hang it never returns, with ?connect=300ms
// after so long.
func (t *Trial) OnConnect(c *gateway.Client, r *http.Request) error {
	switch pause := r.URL.Query().Get("connect"); pause {
	case "":
	case "hang":
		t.hang(c, "OnConnect")
	default:
		lasts, err := time.ParseDuration(pause)
		if err != nil {
			return err
		}
		t.log.Info("trial connects", "client", c.ID())
		time.Sleep(lasts)
	}
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
		if rest == "on close" {
			c.SetValue(hangOnClose{})
			break
		}
		t.hang(c, "OnMessage")
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
	case "fill":
		return t.fill(c)
	}
	return c.Send(m)
}

// hangOnClose is the Value of a client whose OnClose will not return.
type hangOnClose struct{}

func (t *Trial) hang(c *gateway.Client, callback string) {
	t.log.Info("trial hangs", "client", c.ID(), "callback", callback)
	select {}
}

// fill sends until nothing has been taken for a while.
func (t *Trial) fill(c *gateway.Client) error {
	const size, pause, enough = 64 << 10, 10 * time.Millisecond, 30
	message := gateway.Binary(bytes.Repeat([]byte{'x'}, size))
	for refused := 0; refused < enough; {
		switch err := c.Send(message); {
		case err == nil:
			refused = 0
		case errors.Is(err, gateway.ErrQueueFull):
			refused++
			time.Sleep(pause)
		default:
			return err
		}
	}
	t.log.Info("trial filled", "client", c.ID())
	return nil
}

// OnClose counts.
func (t *Trial) OnClose(c *gateway.Client, _ gateway.CloseReason) {
	if _, hangs := c.Value().(hangOnClose); hangs {
		t.hang(c, "OnClose")
	}
	counts.closes.Add(1)
}

// UnmarshalCaddyfile sets up the logic from the line:
//
//	logic trial [<tag> [<duration>]]
//
// The duration is provision_for.
func (t *Trial) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the module's name
	if d.NextArg() {
		t.Tag = d.Val()
	}
	if d.NextArg() {
		lasts, err := caddy.ParseDuration(d.Val())
		if err != nil {
			return d.WrapErr(err)
		}
		t.ProvisionFor = caddy.Duration(lasts)
	}
	if d.NextArg() || d.NextBlock(0) {
		return d.ArgErr()
	}
	return nil
}

// Interface guards
var (
	_ caddy.Provisioner     = (*Trial)(nil)
	_ gateway.Logic         = (*Trial)(nil)
	_ caddyfile.Unmarshaler = (*Trial)(nil)
)
