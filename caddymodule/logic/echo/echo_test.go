package echo_test

import (
	"testing"
	"testing/synctest"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/gorilla/websocket"

	"github.com/caddy-websocket/caddy-websocket/caddymodule/logic/echo"
	"github.com/caddy-websocket/caddy-websocket/gateway/gatewaytest"
)

// Measurements rely on it: the same bytes of the same type come back, in order.
func TestEveryMessageComesBackAsItIs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := gatewaytest.ServeLogic(t, new(echo.Echo)).Dial("/test")
		for _, m := range []struct {
			kind int
			data string
		}{
			{websocket.TextMessage, "tom"},
			{websocket.BinaryMessage, "\x00\xff\xfe"},
			{websocket.TextMessage, ""},
			{websocket.BinaryMessage, ""},
			{websocket.TextMessage, "日本語 \u0000"},
		} {
			if err := c.Conn.WriteMessage(m.kind, []byte(m.data)); err != nil {
				t.Fatal(err)
			}
			kind, data, err := c.Conn.ReadMessage()
			if err != nil || kind != m.kind || string(data) != m.data {
				t.Errorf("sent type %d %q, got type %d %q (%v)", m.kind, m.data, kind, data, err)
			}
		}
	})
}

// Options that do nothing would be believed to do something.
func TestOptionsAreRefused(t *testing.T) {
	for input, ok := range map[string]bool{
		"echo":               true,
		"echo {\n}":          true,
		"echo loudly":        false,
		"echo {\n loudly\n}": false,
	} {
		err := new(echo.Echo).UnmarshalCaddyfile(caddyfile.NewTestDispenser(input))
		if (err == nil) != ok {
			t.Errorf("%q: %v", input, err)
		}
	}
}
