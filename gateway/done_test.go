package gateway_test

import (
	"testing"

	"github.com/caddy-websocket/caddy-websocket/gateway"
)

// Who serves a gateway to others must learn when there is nothing left to serve.
func TestDoneIsClosedWhenShutdownIsThrough(t *testing.T) {
	g, err := gateway.New(gateway.Options{})
	if err != nil {
		t.Fatal(err)
	}
	select {
	case <-g.Done():
		t.Error("it is done before Shutdown")
	default:
	}
	if err := g.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	select {
	case <-g.Done():
	default:
		t.Error("it is not done after Shutdown")
	}
}
