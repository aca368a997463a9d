package httpapi_test

import (
	"testing"

	"github.com/caddy-websocket/caddy-websocket/gateway/gatewaytest"
)

// TestMain fails if a test left a goroutine of ours behind.
func TestMain(m *testing.M) { gatewaytest.Main(m, "caddy-websocket/gateway") }
