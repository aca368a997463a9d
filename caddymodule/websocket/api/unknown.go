package api

import (
	"context"
	"fmt"
	"slices"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyevents"

	"github.com/caddy-websocket/caddy-websocket/caddymodule/websocket"
	"github.com/caddy-websocket/caddy-websocket/gateway"
)

// warnOfUnknown has the log say, once the configuration is in force, that the gateway has
// no endpoints in it, or which of the allowed ones do not exist. That is no error: they
// may come with a reload of another part of it, or be on other nodes.
func (h *Handler) warnOfUnknown(ctx caddy.Context, g *gateway.Gateway) error {
	events, err := ctx.App("events")
	if err != nil {
		return fmt.Errorf("loading the events app: %w", err)
	}
	return events.(*caddyevents.App).On("started", subscriber{func() {
		var replaced <-chan struct{}
		if old := caddy.ActiveContext(); old.Context != nil {
			replaced = old.Done()
		}
		// What the gateway has come into force when the configuration before it is told to
		// stop, and without one it has done so on this event: the app subscribed to it first.
		g.Go("websocket_api names", func(ctx context.Context) {
			if replaced != nil {
				select {
				case <-replaced:
				case <-ctx.Done():
					return
				}
			}
			h.lookFor(g)
		})
	}})
}

func (h *Handler) lookFor(g *gateway.Gateway) {
	endpoints := g.Stats().Endpoints
	there := make([]string, len(endpoints))
	for i, e := range endpoints {
		there[i] = e.Endpoint
	}
	if len(there) == 0 {
		h.log.Warn("the push API is for a gateway that no directive websocket has: its calls reach nobody here",
			"gateway", h.Gateway, "there_are", served())
		return
	}
	for _, name := range h.Endpoints {
		if !slices.Contains(there, name) {
			h.log.Warn("the push API allows an endpoint that no directive websocket has: names are those of its matcher as written, like /chat, or of its option name",
				"endpoint", name, "gateway", h.Gateway, "there_are", there)
		}
	}
}

// served returns the names of the gateways that have endpoints.
func served() []string {
	names := []string{}
	for name, g := range websocket.Gateways() {
		if len(g.Stats().Endpoints) > 0 {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// subscriber calls a function on an event. (Caddy logs subscribers as JSON, so it is
// no function itself.)
type subscriber struct{ handle func() }

// Handle calls the function.
func (s subscriber) Handle(context.Context, caddy.Event) error {
	s.handle()
	return nil
}
