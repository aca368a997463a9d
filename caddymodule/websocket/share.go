package websocket

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-websocket/caddy-websocket/gateway"
)

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

// allShares returns a copy of shares, so that nothing is called with the lock
// held: logic may ask for a gateway.
func (a *App) allShares() map[string]*share {
	a.mu.Lock()
	defer a.mu.Unlock()
	return maps.Clone(a.shares)
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

// Gateways returns the gateways of this process by their names: those that a
// configuration has, the one that is being loaded included.
func Gateways() map[string]*gateway.Gateway {
	all := make(map[string]*gateway.Gateway)
	pool.Range(func(name, value any) bool {
		all[name.(string)] = value.(pooled).Gateway
		return true
	})
	return all
}
