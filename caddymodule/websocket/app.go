package websocket

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyevents"

	"github.com/caddy-websocket/caddy-websocket/gateway"
)

func init() {
	caddy.RegisterModule(&App{})
}

// App owns the gateways and endpoints of a configuration. The handler
// `websocket` brings it into being; it need not be configured.
//
// Gateways and their live clients outlive configurations. The endpoints of a
// new configuration come into force together when all of it has started; a
// configuration that fails changes nothing.
type App struct {
	// DrainTimeout is how long a shutdown may take to close all clients; after it
	// those that are left are cut. Default: 4s.
	DrainTimeout caddy.Duration `json:"drain_timeout,omitempty"`

	// CloseRate is how many clients are closed a second when many have to go, at
	// a shutdown or because their endpoint was removed; a shutdown raises it as
	// far as drain_timeout demands. Default: 2000.
	CloseRate int `json:"close_rate,omitempty"`

	// AdminTail is what `caddy websocket tail` may show of messages. Default: types and
	// lengths only.
	AdminTail *AdminTail `json:"admin_tail,omitempty"`

	// Broker is what this process reaches others through that serve the same clients. All
	// gateways use it, and each hears those of its name. Default: none, this process is
	// alone.
	BrokerRaw json.RawMessage `json:"broker,omitempty" caddy:"namespace=websocket.brokers inline_key=module"`

	ctx    caddy.Context
	log    *slog.Logger
	events *caddyevents.App

	broker        *pooledBroker // nil without one
	releaseBroker func() error  // nil without one
	awaitBroker   func() error  // nil if nothing is waited for

	committed sync.Once
	streams   streams

	mu        sync.Mutex
	shares    map[string]*share          // guarded by mu; by the gateway's name; nil after Cleanup
	endpoints map[endpointKey]*published // guarded by mu
	emitters  []*emitter                 // guarded by mu
	observing []string                   // guarded by mu; names of gateways that have to have endpoints
}

// CaddyModule returns the Caddy module information.
func (*App) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "websocket", New: func() caddy.Module { return new(App) }}
}

// Provision subscribes to what Caddy says of the configuration as a whole.
func (a *App) Provision(ctx caddy.Context) error {
	a.ctx, a.log = ctx, ctx.Slogger()
	a.shares = make(map[string]*share)
	a.endpoints = make(map[endpointKey]*published)
	events, err := ctx.App("events")
	if err != nil {
		return fmt.Errorf("loading the events app: %w", err)
	}
	a.events = events.(*caddyevents.App)
	for name, handle := range map[string]func(){"started": a.begin, "stopping": a.end} {
		if err := a.events.On(name, subscriber{handle}); err != nil {
			return fmt.Errorf("subscribing to %s: %w", name, err)
		}
	}
	if err := a.provisionBroker(ctx); err != nil {
		return err
	}
	return RegisterMetrics(ctx)
}

// Validate checks the numbers.
func (a *App) Validate() error {
	if a.DrainTimeout < 0 {
		return fmt.Errorf("drain_timeout %s: allowed are positive durations", time.Duration(a.DrainTimeout))
	}
	if a.CloseRate < 0 {
		return fmt.Errorf("close_rate %d: allowed are positive numbers", a.CloseRate)
	}
	return a.AdminTail.validate()
}

// Start finds what only the whole configuration shows, and waits for a broker that has
// to be there. Nothing comes into force yet, since another app may still fail to
// start: see commit.
func (a *App) Start() error {
	if err := a.checkObserved(); err != nil {
		return err
	}
	if a.awaitBroker == nil {
		return nil
	}
	return a.awaitBroker()
}

// subscriber calls a function on an event. (Caddy logs subscribers as JSON, so it is
// no function itself.)
type subscriber struct{ handle func() }

// Handle calls the function.
func (s subscriber) Handle(context.Context, caddy.Event) error {
	s.handle()
	return nil
}

// begin is called when all apps have started. If another configuration serves, it
// goes on until it is told to stop: Caddy has things to do that can still fail,
// and then drops the new one.
func (a *App) begin() {
	if active() == nil {
		a.commit()
	}
}

// end is called when the configuration is about to be stopped, before any of its
// apps is.
func (a *App) end() {
	a.giveWay()
	a.yieldEvents()
	a.endStreams()
	a.exit()
}

// giveWay puts the endpoints of the next configuration in force, if there is one.
func (a *App) giveWay() {
	if next := active(); next != nil && next != a {
		next.commit()
	}
}

// commit puts the endpoints in force, once.
func (a *App) commit() { a.committed.Do(a.commitAll) }

func (a *App) commitAll() {
	shares := a.allShares()
	a.startEvents(shares)
	for _, name := range slices.Sorted(maps.Keys(shares)) {
		generation := shares[name].generation
		generation.Moved(a.elsewhere(name)...)
		// What failed is logged by the endpoint, and it is too late to refuse.
		_ = generation.Commit()
	}
}

// exit begins to end the gateways if the process does, before other apps are
// stopped: Caddy's http app may wait long for a download to finish, and clients
// should be told meanwhile. Stop waits for the end.
func (a *App) exit() {
	if !caddy.Exiting() {
		return
	}
	for _, s := range a.allShares() {
		go func() { _ = s.end() }() // Stop gets the error, too
	}
}

// Stop waits, for drain_timeout at most, until nothing runs for this
// configuration any more, since its modules are torn down next: tasks and
// callbacks of its logic if a newer configuration has the gateway, too, and
// otherwise, as when the process exits, the clients themselves.
func (a *App) Stop() error {
	a.giveWay() // unless the event was aborted before it came here, this has been done
	shares := a.allShares()
	next := active()
	ctx, cancel := context.WithTimeout(context.Background(), a.drainTimeout())
	defer cancel()
	ended := make(chan error)
	for name, s := range shares {
		users, _ := pool.References(name)
		go func() {
			if users > 1 && !caddy.Exiting() {
				ended <- s.generation.Stop(ctx)
				return
			}
			if next != nil {
				s.retire(a.options(name), next.elsewhere(name))
			}
			ended <- s.end()
		}()
	}
	var err error
	for range shares {
		err = errors.Join(err, <-ended)
	}
	return errors.Join(err, a.stopEvents(ctx))
}

// active returns the app of the configuration that Caddy says is in force, or nil:
// while one is replaced it is the old one until that is told to stop, and then the
// new one.
func active() *App {
	app, err := caddy.ActiveContext().AppIfConfigured("websocket")
	if err != nil {
		return nil
	}
	return app.(*App)
}

func (a *App) drainTimeout() time.Duration {
	if a.DrainTimeout == 0 {
		return gateway.DefaultDrainTimeout
	}
	return time.Duration(a.DrainTimeout)
}

// Cleanup gives back what this configuration held.
func (a *App) Cleanup() error {
	ctx, cancel := context.WithTimeout(context.Background(), a.drainTimeout())
	defer cancel()
	errs := []error{a.stopEvents(ctx)} // unless Stop has done it
	a.mu.Lock()
	defer a.mu.Unlock()
	for name, s := range a.shares {
		s.generation.Close()
		if _, err := pool.Delete(name); err != nil {
			errs = append(errs, fmt.Errorf("releasing gateway %q: %w", name, err))
		}
	}
	a.shares, a.endpoints = nil, nil // no gateway is given any more
	if a.releaseBroker != nil {
		if err := a.releaseBroker(); err != nil {
			errs = append(errs, fmt.Errorf("closing the broker: %w", err))
		}
	}
	return errors.Join(errs...)
}

// Interface guards
var (
	_ caddy.App          = (*App)(nil)
	_ caddy.Provisioner  = (*App)(nil)
	_ caddy.Validator    = (*App)(nil)
	_ caddy.CleanerUpper = (*App)(nil)
)
