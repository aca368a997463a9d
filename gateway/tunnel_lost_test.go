package gateway_test

import (
	"strings"
	"testing"
	"testing/synctest"

	"github.com/caddy-websocket/caddy-websocket/gateway"
	"github.com/caddy-websocket/caddy-websocket/gateway/gatewaytest"
)

// Who looks for a backend that dies must not be sent there by phones that lost their
// network: it is the client that is gone, even if that is noticed by writing to it.
func TestLostClientOfABackendIsNotTakenForADeadBackend(t *testing.T) {
	overEach(t, func(t *testing.T, proto string) {
		j := joinTunnel(t, proto, gateway.EndpointOptions{})
		go j.client.send(frame(fin|binry, strings.Repeat("x", 60000)))
		go j.client.send(frame(fin|binry, strings.Repeat("x", 60000))) // the backend reads none of it, so nobody reads the client's end
		synctest.Wait()
		_ = j.client.Close()
		j.backend.send(server(fin|text, "are you there?"))
		synctest.Wait()
		j.backend.bytes(gatewaytest.Buffer)
		_ = j.backend.Close()
		j.wantGone(t, map[string]any{"code": int64(1006), "by_peer": true})
	})
}
