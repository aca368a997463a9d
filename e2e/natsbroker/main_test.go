// Package natsbroker tests gateway/natsbroker against real servers, which weigh too much
// for the product's module.
package natsbroker

import (
	"testing"

	"github.com/caddy-websocket/caddy-websocket/gateway/gatewaytest"
)

// TestMain fails if a broker that was closed left a goroutine behind, its own or one of
// the library's.
func TestMain(m *testing.M) { gatewaytest.Main(m, "caddy-websocket/gateway/", "nats-io/nats.go@") }
