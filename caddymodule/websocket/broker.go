package websocket

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"strings"
	"sync"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-websocket/caddy-websocket/gateway"
)

// brokerNamespace is where brokers register.
const brokerNamespace = "websocket.brokers"

// BrokerModule is what a module of the namespace `websocket.brokers` is asserted for,
// once it is provisioned. It need not import this package.
//
// It may have a method `Ready(ctx context.Context, b gateway.Broker) error`, too, which
// is called when the configuration starts: it returns when the configuration may come
// into force. With its error the configuration is refused, and the one before stays.
type BrokerModule interface {
	// NewBroker makes what the gateways use. It is called in Provision, so also when
	// a configuration is only validated, and must not connect to anything: Attach and
	// Ready do. A broker that is an io.Closer is closed, once, when no configuration
	// and no gateway has it any more; that must not take long.
	NewBroker() (gateway.Broker, error)

	// BrokerKey stands for all that a broker depends on, with placeholders resolved.
	// Modules with equal keys share one broker, before and after a reload. It may be
	// logged, so it shows no secrets.
	BrokerKey() string
}

// brokers keeps brokers from one configuration to the next.
var brokers = caddy.NewUsagePool()

// pooledBroker is a broker in the pool.
type pooledBroker struct{ gateway.Broker }

// Destruct closes the broker. A panic in there would end Caddy, long after whoever is
// responsible has changed the configuration.
func (p pooledBroker) Destruct() (err error) {
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

// heldBroker is a reference to a broker in the pool: configurations have one each, and
// so do gateways. A nil one is none.
type heldBroker struct {
	gateway.Broker
	key     string
	release func() error
}

// holdBroker takes a reference to the broker of this key, which comes into being if it
// does not exist.
func holdBroker(key string, construct func() (gateway.Broker, error)) (*heldBroker, error) {
	value, _, err := brokers.LoadOrNew(key, func() (caddy.Destructor, error) {
		b, err := construct()
		if err == nil && b == nil {
			err = errors.New("there is none")
		}
		return pooledBroker{b}, err
	})
	if err != nil {
		return nil, err
	}
	return &heldBroker{value.(pooledBroker).Broker, key, sync.OnceValue(func() error {
		_, err := brokers.Delete(key)
		return err
	})}, nil
}

// again takes another reference.
func (h *heldBroker) again() *heldBroker {
	if h == nil {
		return nil
	}
	another, err := holdBroker(h.key, func() (gateway.Broker, error) { return h.Broker, nil })
	if err != nil { // cannot happen: it is there as long as h is held
		return nil
	}
	return another
}

// close gives the reference up. Further calls do nothing.
func (h *heldBroker) close() error {
	if h == nil {
		return nil
	}
	if err := h.release(); err != nil {
		return fmt.Errorf("closing the broker: %w", err)
	}
	return nil
}

// brokerInUse is the reference of a gateway to the broker that it uses. Configurations
// come and go meanwhile, and a gateway that ends says its last after they have gone.
type brokerInUse struct {
	mu    sync.Mutex
	held  *heldBroker // guarded by mu; nil for none
	ended bool        // guarded by mu
}

// set notes that the gateway uses this broker and not the one before any more.
func (u *brokerInUse) set(b *heldBroker) error {
	u.mu.Lock()
	old := u.held
	if u.ended {
		b = nil
	}
	u.held = b.again()
	u.mu.Unlock()
	return old.close()
}

// end notes that the gateway uses none any more, and never will.
func (u *brokerInUse) end() error {
	u.mu.Lock()
	u.ended = true
	u.mu.Unlock()
	return u.set(nil)
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
	a.brokerName = strings.TrimPrefix(id, brokerNamespace+".")
	if a.broker, err = holdBroker(id+"\x00"+guest.BrokerKey(), guest.NewBroker); err != nil {
		return fmt.Errorf("broker %s: %w", a.brokerName, err)
	}
	if r, ok := module.(interface {
		Ready(ctx context.Context, b gateway.Broker) error
	}); ok {
		a.brokerReady = r.Ready
	}
	return nil
}

// awaitBroker returns when the broker says that the configuration may come into force.
func (a *App) awaitBroker() error {
	if a.brokerReady == nil {
		return nil
	}
	if err := a.brokerReady(a.ctx, a.broker.Broker); err != nil {
		return fmt.Errorf("broker %s: %w", a.brokerName, err)
	}
	return nil
}

// Interface guards
var (
	_ caddy.Destructor = pooledBroker{}
)
