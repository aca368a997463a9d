package websocket

import (
	"cmp"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddy-websocket/caddy-websocket/gateway"
)

func init() {
	caddy.RegisterModule(&MatchDraining{})
}

// MatchDraining matches all requests while a gateway refuses handshakes, after
// `caddy websocket drain` or because it shuts down, and none otherwise: so a load
// balancer can see whether to send clients here.
type MatchDraining struct {
	// Gateway names the gateway. One that no endpoint belongs to is an error. Default:
	// `default`.
	Gateway string `json:"gateway,omitempty"`

	gateway *gateway.Gateway
}

// CaddyModule returns the Caddy module information.
func (*MatchDraining) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.matchers.websocket_draining", New: func() caddy.Module { return new(MatchDraining) }}
}

// Provision finds the gateway.
func (m *MatchDraining) Provision(ctx caddy.Context) error {
	m.Gateway = cmp.Or(m.Gateway, gateway.DefaultName)
	app, err := ctx.App("websocket")
	if err != nil {
		return fmt.Errorf("loading the websocket app: %w", err)
	}
	m.gateway, err = app.(*App).observed(m.Gateway)
	return err
}

// MatchWithError tells whether the gateway refuses handshakes. There is no error.
func (m *MatchDraining) MatchWithError(*http.Request) (bool, error) { return m.gateway.Draining(), nil }

// UnmarshalCaddyfile sets up the matcher:
//
//	websocket_draining [<gateway>]
func (m *MatchDraining) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	const syntax = "[<gateway>]"
	for seen := false; d.Next(); seen = true {
		if seen {
			return d.Err("websocket_draining is given twice: a matcher is about one gateway")
		}
		args, err := arguments(d, 0, 1, syntax)
		if err != nil {
			return err
		}
		if len(args) == 0 {
			continue
		}
		if m.Gateway = args[0]; m.Gateway == "" {
			return d.Errf("websocket_draining: the name of the gateway is empty: the syntax is websocket_draining %s", syntax)
		}
	}
	return nil
}

// observed returns a gateway that has to have endpoints in this configuration, which
// Start looks after: its handlers may not have been provisioned yet.
func (a *App) observed(name string) (*gateway.Gateway, error) {
	g, err := a.Gateway(name)
	if err != nil {
		return nil, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.observing = append(a.observing, name)
	return g, nil
}

// checkObserved tells which of the gateways that are observed has no endpoint.
func (a *App) checkObserved() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	there := make(map[string]bool)
	for key := range a.endpoints {
		there[key.gateway] = true
	}
	for _, name := range a.observing {
		if !there[name] {
			return fmt.Errorf("websocket_draining: gateway %q has no endpoint, and would never be drained: those that have are %s",
				name, strings.Join(slices.Sorted(maps.Keys(there)), ", "))
		}
	}
	return nil
}

// Interface guards
var (
	_ caddy.Provisioner                 = (*MatchDraining)(nil)
	_ caddyfile.Unmarshaler             = (*MatchDraining)(nil)
	_ caddyhttp.RequestMatcherWithError = (*MatchDraining)(nil)
)
