package admin

import (
	"context"
	"net/http"

	"github.com/caddy-websocket/caddy-websocket/gateway"
)

// For tests.
var (
	SetUp    = setUp
	Safe     = safe
	SafeJSON = safeJSON
	Lasting  = lasting
)

// NewAPI returns what serves these gateways on an admin endpoint.
func NewAPI(gateways map[string]*gateway.Gateway) http.Handler {
	a := &API{
		gateways: func() map[string]*gateway.Gateway { return gateways },
		handlers: make(map[handlerKey]http.Handler),
	}
	a.ended, a.end = context.WithCancel(context.Background()) //nolint:gosec // tests end
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _ = a.serve(w, r) })
}
