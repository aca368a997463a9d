package websocket

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"runtime/debug"
	"slices"
	"strings"
	"sync"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/caddy-websocket/caddy-websocket/gateway"
)

// brokerNamespace is where brokers register.
const brokerNamespace = "websocket.brokers"

// BrokerModule is what a module of the namespace `websocket.brokers` is asserted for,
// once it is provisioned. It need not import this package.
//
// It may have a method `Ready(ctx context.Context, b gateway.Broker, gateways []string)
// error`, too, which is called when the configuration starts, with the names of the
// gateways that will use the broker: it returns when the configuration may come into
// force. With its error the configuration is refused, and the one before stays.
type BrokerModule interface {
	// NewBroker makes what the gateways use. It is called in Provision, so also when
	// a configuration is only validated, and must not connect to anything: Attach and
	// Ready do. A broker that is an io.Closer is closed, once, when no configuration
	// has it any more and no gateway is attached to it; that must not take long.
	NewBroker() (gateway.Broker, error)

	// BrokerKey stands for all that a broker depends on, with placeholders resolved.
	// Modules with equal keys share one broker, before and after a reload.
	BrokerKey() string
}

// brokers keeps brokers from one configuration to the next.
var brokers = caddy.NewUsagePool()

// pooledBroker is a broker in the pool. Configurations hold it, and so do links: gateways
// say their last when the configuration that named the broker has gone.
type pooledBroker struct {
	gateway.Broker
	key string
}

// holdBroker returns the broker of this key, which comes into being if it does not exist,
// until release is called.
func holdBroker(key string, construct func() (gateway.Broker, error)) (p *pooledBroker, release func() error, err error) {
	value, _, err := brokers.LoadOrNew(key, func() (caddy.Destructor, error) {
		b, err := construct()
		if err == nil && b == nil {
			err = errors.New("there is none")
		}
		return &pooledBroker{b, key}, err
	})
	if err != nil {
		return nil, nil, err
	}
	return value.(*pooledBroker), sync.OnceValue(func() error {
		_, err := brokers.Delete(key)
		return err
	}), nil
}

var errBrokerClosed = errors.New("the broker is closed: no configuration has it any more")

// Attach is of gateway.Broker. The link holds the broker.
func (p *pooledBroker) Attach(gatewayName, node string, to gateway.Receiver) (gateway.Link, error) {
	held, release, err := holdBroker(p.key, func() (gateway.Broker, error) { return nil, errBrokerClosed })
	if err != nil {
		return nil, err
	}
	if held != p { // another of this key, made since
		return nil, errors.Join(errBrokerClosed, release())
	}
	link, err := p.Broker.Attach(gatewayName, node, to)
	if err != nil {
		return nil, errors.Join(err, release())
	}
	return &holdingLink{link, release}, nil
}

// Destruct closes the broker. A panic in there would end Caddy, and this may be in a
// goroutine of a gateway.
func (p *pooledBroker) Destruct() (err error) {
	closer, ok := p.Broker.(io.Closer)
	if !ok {
		return nil
	}
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("panic while the broker was closed: %v\n%s", r, debug.Stack())
		}
	}()
	return closer.Close()
}

// holdingLink is a link that holds its broker.
type holdingLink struct {
	gateway.Link
	release func() error
}

// Close is of gateway.Link.
func (l *holdingLink) Close() {
	l.Link.Close()
	if err := l.release(); err != nil {
		caddy.Log().Named("websocket").Error("closing the broker", zap.Error(err))
	}
}

// provisionBroker loads the configured broker, if there is one.
func (a *App) provisionBroker(ctx caddy.Context) error {
	if a.BrokerRaw == nil {
		return nil
	}
	module, err := ctx.LoadModule(a, "BrokerRaw")
	if err != nil {
		return fmt.Errorf("loading the broker: %w", err)
	}
	id := string(module.(caddy.Module).CaddyModule().ID)
	guest, ok := module.(BrokerModule)
	if !ok {
		return fmt.Errorf("module %s is no broker: it lacks NewBroker() (gateway.Broker, error) or BrokerKey() string", id)
	}
	name := strings.TrimPrefix(id, brokerNamespace+".")
	if a.broker, a.releaseBroker, err = holdBroker(id+"\x00"+guest.BrokerKey(), guest.NewBroker); err != nil {
		return fmt.Errorf("broker %s: %w", name, err)
	}
	readier, ok := module.(interface {
		Ready(ctx context.Context, b gateway.Broker, gateways []string) error
	})
	if !ok {
		return nil
	}
	a.awaitBroker = func() error {
		if err := readier.Ready(ctx, a.broker.Broker, slices.Sorted(maps.Keys(a.allShares()))); err != nil {
			return fmt.Errorf("broker %s: %w", name, err)
		}
		return nil
	}
	return nil
}

// Interface guards
var (
	_ gateway.Broker   = (*pooledBroker)(nil)
	_ caddy.Destructor = (*pooledBroker)(nil)
	_ gateway.Link     = (*holdingLink)(nil)
)
