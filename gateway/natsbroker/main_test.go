package natsbroker

import (
	"testing"

	"github.com/caddy-websocket/caddy-websocket/gateway/gatewaytest"
)

// TestMain fails if a broker that was closed left a goroutine behind.
func TestMain(m *testing.M) {
	gatewaytest.Main(m, "caddy-websocket/gateway/natsbroker.(*Broker)", "nats-io/nats.go@")
}
