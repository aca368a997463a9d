package websocket_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddy-websocket/caddy-websocket/gateway"
)

func init() {
	caddy.RegisterModule(&probe{})
	caddy.RegisterModule(&bare{})
	caddy.RegisterModule(&neighbour{})
	caddy.RegisterModule(&brokenHandler{})
	httpcaddyfile.RegisterGlobalOption("neighbour", func(*caddyfile.Dispenser, any) (any, error) {
		return httpcaddyfile.App{Name: "neighbour", Value: caddyconfig.JSON(neighbour{}, nil)}, nil
	})
	httpcaddyfile.RegisterHandlerDirective("broken", func(httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
		return new(brokenHandler), nil
	})
}

// probe is logic that tells what it was given, and notes calls that come after
// its end: `logic probe <text>`.
type probe struct {
	Text string `json:"text"`

	cleaned atomic.Bool
}

// What a test wants to know of probes. The hooks are called in OnStart and OnConnect.
var (
	probeStart      atomic.Pointer[func()]
	probeConnect    atomic.Pointer[func(*gateway.Client, *http.Request)]
	callsAfterClean atomic.Int64
)

func (*probe) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "websocket.logic.probe", New: func() caddy.Module { return new(probe) }}
}

func (p *probe) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next()
	d.AllArgs(&p.Text)
	return nil
}

func (*probe) OnStart(*gateway.Gateway) error {
	if hook := probeStart.Load(); hook != nil {
		(*hook)()
	}
	return nil
}

func (p *probe) OnConnect(c *gateway.Client, r *http.Request) error {
	p.called()
	c.Header().Set("X-Logic", p.Text)
	c.Header().Add("Set-Cookie", "logic=1")
	if hook := probeConnect.Load(); hook != nil {
		(*hook)(c, r)
	}
	return nil
}

// OnMessage answers the names of what it knows, and echoes all else.
func (p *probe) OnMessage(c *gateway.Client, m gateway.Message) error {
	p.called()
	answer := m.String()
	switch answer {
	case "text":
		answer = p.Text
	case "user":
		answer = c.User()
	case "groups":
		answer = strings.Join(c.Groups(), " ")
	case "session":
		b, err := json.Marshal(c.Session())
		if err != nil {
			return err
		}
		answer = string(b)
	}
	return c.Send(gateway.Text(answer))
}

func (p *probe) OnClose(*gateway.Client, gateway.CloseReason) { p.called() }

func (p *probe) Cleanup() error {
	p.cleaned.Store(true)
	return nil
}

func (p *probe) called() {
	if p.cleaned.Load() {
		callsAfterClean.Add(1)
	}
}

// bare is logic that knows nothing of Caddyfiles.
type bare struct{ gateway.NopLogic }

func (*bare) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "websocket.logic.bare", New: func() caddy.Module { return new(bare) }}
}

// neighbour is another app of the configuration: the global option `neighbour`.
type neighbour struct{}

// What the test wants the next neighbours to do.
var (
	neighbourProvision atomic.Pointer[func(caddy.Context) error]
	neighbourStart     atomic.Pointer[func() error]
)

func (*neighbour) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "neighbour", New: func() caddy.Module { return new(neighbour) }}
}

func (*neighbour) Provision(ctx caddy.Context) error {
	if f := neighbourProvision.Load(); f != nil {
		return (*f)(ctx)
	}
	return nil
}

func (*neighbour) Start() error {
	if f := neighbourStart.Load(); f != nil {
		return (*f)()
	}
	return nil
}

func (*neighbour) Stop() error { return nil }

// brokenHandler is a handler of somebody else's that cannot be provisioned.
type brokenHandler struct{}

func (*brokenHandler) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.broken", New: func() caddy.Module { return new(brokenHandler) }}
}

func (*brokenHandler) Provision(caddy.Context) error { return errors.New("broken as it should be") }

func (*brokenHandler) ServeHTTP(http.ResponseWriter, *http.Request, caddyhttp.Handler) error {
	return errors.New("not reached")
}

// gatewayOf gets the default gateway the way that any other module would.
func gatewayOf(ctx caddy.Context) (*gateway.Gateway, error) {
	app, err := ctx.App("websocket")
	if err != nil {
		return nil, err
	}
	owner, ok := app.(interface {
		Gateway(name string) (*gateway.Gateway, error)
	})
	if !ok {
		return nil, fmt.Errorf("%T has no gateways", app)
	}
	return owner.Gateway("default")
}

// every starts a task that counts.
func every(g *gateway.Gateway, count *atomic.Int64) {
	g.Every(time.Millisecond, func(context.Context) { count.Add(1) })
}
