package websocket

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddy-websocket/caddy-websocket/gateway"
)

// streams are the clients of a configuration that came over HTTP/2 and HTTP/3. Each
// lives in a request of the configuration's server, which a reload gives as long as
// grace_period says; without it, for ever.
type streams struct {
	mu      sync.Mutex
	clients map[*gateway.Client]struct{} // guarded by mu
	until   time.Time                    // guarded by mu; when they are told to go; zero while they may stay
	timer   *time.Timer                  // guarded by mu; nil unless until is set and there are clients
}

// farewell is how long before the end of the grace period clients are told.
const farewell = time.Second

// keep knows the client until it is gone.
func (s *streams) keep(c *gateway.Client) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.clients == nil {
		s.clients = make(map[*gateway.Client]struct{})
	}
	s.clients[c] = struct{}{}
	s.arm()
	context.AfterFunc(c.Context(), func() { s.forget(c) })
}

func (s *streams) forget(c *gateway.Client) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.clients, c)
	if len(s.clients) == 0 && s.timer != nil {
		s.timer.Stop()
		s.timer = nil
	}
}

// end has the clients closed with 1012 before the grace period is over: they can come
// back, to the new configuration. A server of HTTP/3 would then cut them without a
// word; one of HTTP/2 would let them be, and nobody would wait for it any more.
func (s *streams) end(grace time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.until = time.Now().Add(grace - min(farewell, grace/2))
	s.arm()
}

// arm starts the timer if there is something to wait for. The caller holds mu.
func (s *streams) arm() {
	if s.timer == nil && len(s.clients) > 0 && !s.until.IsZero() {
		s.timer = time.AfterFunc(time.Until(s.until), s.closeAll)
	}
}

func (s *streams) closeAll() {
	s.mu.Lock()
	clients := slices.Collect(maps.Keys(s.clients))
	s.mu.Unlock()
	for _, c := range clients {
		_ = c.Close(gateway.CloseServiceRestart, "server has reloaded") // an error means that it is closing
	}
}

// endStreams is called when the configuration is about to be stopped.
func (a *App) endStreams() {
	app, err := a.ctx.AppIfConfigured("http")
	if err != nil {
		return
	}
	if grace := time.Duration(app.(*caddyhttp.App).GracePeriod); grace > 0 {
		a.streams.end(grace)
	}
}
