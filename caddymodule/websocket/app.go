package websocket

import (
	"bytes"
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

// pool keeps gateways from one configuration to the next.
var pool = caddy.NewUsagePool()

// pooled is a gateway in the pool.
type pooled struct {
	*gateway.Gateway
	feed *feed
}

// Destruct ends the gateway. It is called when no configuration names it any
// more. While the process exits, App.Stop has ended it already; in a reload
// nobody should wait for its clients to go.
func (p pooled) Destruct() error {
	go func() {
		const bound = 30 * time.Second
		ctx, cancel := context.WithTimeout(context.Background(), bound)
		defer cancel()
		_ = p.Shutdown(ctx) // it has logged what it could not end
	}()
	return nil
}

// share is this configuration's part in a gateway.
type share struct {
	gateway    *gateway.Gateway
	generation *gateway.Generation
	feed       *feed
	end        func() error // shuts the gateway down, once; whoever calls it waits for the end
}

// endpointKey names an endpoint in a configuration.
type endpointKey struct{ gateway, name string }

// service is what a handler gives its handshakes to.
type service struct {
	endpoint *gateway.Endpoint
	proxy    *proxy // nil unless a backend answers
}

// published is a service and what it was made from.
type published struct {
	*service
	config []byte
	where  string
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

// elsewhere returns the names of endpoints that belong to other gateways than this.
func (a *App) elsewhere(gateway string) (names []string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for key := range a.endpoints {
		if key.gateway != gateway {
			names = append(names, key.name)
		}
	}
	return names
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

// allShares returns a copy of shares, so that nothing is called with the lock
// held: logic may ask for a gateway.
func (a *App) allShares() map[string]*share {
	a.mu.Lock()
	defer a.mu.Unlock()
	return maps.Clone(a.shares)
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

// retire tells the clients of a gateway that is to end which endpoints have moved.
func (s *share) retire(o gateway.Options, moved []string) {
	if len(moved) == 0 {
		return
	}
	last, err := s.gateway.Prepare(o)
	if err != nil {
		return // it has ended already
	}
	last.Moved(moved...)
	_ = last.Commit() // there is no logic that could fail
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

// Gateway returns the gateway of this name, which comes into being if it does
// not exist. Other modules reach it from their Provision:
//
//	app, err := ctx.App("websocket")
//	g, err := app.(interface {
//		Gateway(name string) (*gateway.Gateway, error)
//	}).Gateway("default")
//
// What they start with its Go and Every ends with the configuration.
func (a *App) Gateway(name string) (*gateway.Gateway, error) {
	if name == "" {
		name = gateway.DefaultName
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	s, err := a.share(name)
	if err != nil {
		return nil, err
	}
	return s.generation.Gateway(), nil
}

func (a *App) options(name string) gateway.Options {
	o := gateway.Options{
		Name: name, Logger: a.log,
		CloseRate: a.CloseRate, DrainTimeout: time.Duration(a.DrainTimeout),
	}
	if a.broker != nil {
		o.Broker = a.broker
	}
	return o
}

// share takes part in a gateway, once. The caller holds mu.
func (a *App) share(name string) (*share, error) {
	if a.shares == nil {
		return nil, fmt.Errorf("gateway %q: the configuration has ended", name)
	}
	if s := a.shares[name]; s != nil {
		return s, nil
	}
	o := a.options(name)
	value, _, err := pool.LoadOrNew(name, func() (caddy.Destructor, error) {
		g, err := gateway.New(o)
		return pooled{g, &feed{gateway: g}}, err
	})
	if err != nil {
		return nil, err
	}
	shared := value.(pooled)
	g := shared.Gateway
	generation, err := g.Prepare(o)
	if err != nil {
		_, releaseErr := pool.Delete(name)
		return nil, errors.Join(err, releaseErr)
	}
	// Stop waits for the shutdown that exit began: with a second time-out of its own it would
	// return at the same moment, before what is left has been cut and named.
	s := &share{g, generation, shared.feed, sync.OnceValue(func() error {
		ctx, cancel := context.WithTimeout(context.Background(), a.drainTimeout())
		defer cancel()
		return g.Shutdown(ctx)
	})}
	a.shares[name] = s
	return s, nil
}

// service returns what serves the endpoint of this name. Handlers that come from one line of
// a Caddyfile are several instances with the same configuration: they share the
// endpoint, which is built once. where says in errors what the handler belongs
// to.
func (a *App) service(key endpointKey, config []byte, where string, build func() (*service, error)) (*service, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	s, err := a.share(key.gateway)
	if err != nil {
		return nil, err
	}
	if p := a.endpoints[key]; p != nil {
		if !bytes.Equal(p.config, config) {
			return nil, fmt.Errorf("endpoint %q of gateway %q is configured twice, differently, in %s and in %s: give one of them a name of its own with the option name",
				key.name, key.gateway, p.where, where)
		}
		return p.service, nil
	}
	built, err := build()
	if err != nil {
		return nil, err
	}
	if err := s.generation.Add(built.endpoint); err != nil {
		return nil, err
	}
	a.endpoints[key] = &published{built, config, where}
	return built, nil
}

// Interface guards
var (
	_ caddy.App          = (*App)(nil)
	_ caddy.Provisioner  = (*App)(nil)
	_ caddy.Validator    = (*App)(nil)
	_ caddy.CleanerUpper = (*App)(nil)
)
