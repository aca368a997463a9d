package hello

import (
	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-websocket/caddy-websocket/gateway"
)

func init() { caddy.RegisterModule(Hello{}) }

type Hello struct{ gateway.NopLogic } // OnConnect, OnMessage, OnClose: write those you need

func (Hello) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "websocket.logic.hello", New: func() caddy.Module { return new(Hello) }}
}

func (Hello) OnMessage(c *gateway.Client, m gateway.Message) error {
	return c.Send(gateway.Text("hello " + m.String() + " at " + c.RealIP()))
}
