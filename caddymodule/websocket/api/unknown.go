package api

import (
	"context"
	"fmt"
	"slices"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyevents"

	"github.com/caddy-websocket/caddy-websocket/gateway"
)

// warnOfUnknown has the log say, once the configuration is in force, which of the
// allowed endpoints do not exist in it. That is no error: they may come with a
// reload of another part of it.
func (h *Handler) warnOfUnknown(ctx caddy.Context, g *gateway.Gateway) error {
	if len(h.Endpoints) == 0 {
		return nil
	}
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
		g.Go("websocket_api allow-list", func(ctx context.Context) {
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
	for _, name := range h.Endpoints {
		if !slices.Contains(there, name) {
			h.log.Warn("the push API allows an endpoint that no directive websocket has: names are those of its matcher as written, like /chat, or of its option name",
				"endpoint", name, "gateway", h.Gateway, "there_are", there)
		}
	}
}

// subscriber calls a function on an event. (Caddy logs subscribers as JSON, so it is
// no function itself.)
type subscriber struct{ handle func() }

// Handle calls the function.
func (s subscriber) Handle(context.Context, caddy.Event) error {
	s.handle()
	return nil
}
