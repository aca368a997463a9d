package nats

import (
	"context"
	"io"
	"sync"

	"github.com/caddy-websocket/caddy-websocket/gateway"
	"github.com/caddy-websocket/caddy-websocket/gateway/natsbroker"
)

// broker is a natsbroker.Broker that comes into being when it is first needed:
// configurations are validated where there is no server, and nothing is dialled for them.
type broker struct {
	options natsbroker.Options

	mu     sync.Mutex
	made   *natsbroker.Broker // guarded by mu; nil before the first use
	closed bool               // guarded by mu
}

// get returns the broker, which begins to connect with the first call.
func (b *broker) get() (*natsbroker.Broker, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return nil, natsbroker.ErrClosed
	}
	if b.made == nil {
		made, err := natsbroker.New(b.options)
		if err != nil {
			return nil, err
		}
		b.made = made
	}
	return b.made, nil
}

// Attach connects a node of a gateway, see gateway.Broker.
func (b *broker) Attach(gatewayName, node string, to gateway.Receiver) (gateway.Link, error) {
	made, err := b.get()
	if err != nil {
		return nil, err
	}
	return made.Attach(gatewayName, node, to)
}

// connect waits until gateways are connected, or ctx is done.
func (b *broker) connect(ctx context.Context, gateways []string) error {
	made, err := b.get()
	if err != nil {
		return err
	}
	return made.Connect(ctx, gateways...)
}

// Close ends the connection, if there was need of one.
func (b *broker) Close() error {
	b.mu.Lock()
	made := b.made
	b.closed = true
	b.mu.Unlock()
	if made != nil {
		made.Close()
	}
	return nil
}

// Interface guards
var (
	_ gateway.Broker = (*broker)(nil)
	_ io.Closer      = (*broker)(nil)
)
