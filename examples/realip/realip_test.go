package realip_test

import (
	"testing"
	"testing/synctest"

	"github.com/caddy-websocket/caddy-websocket/examples/realip"
	"github.com/caddy-websocket/caddy-websocket/gateway"
	"github.com/caddy-websocket/caddy-websocket/gateway/gatewaytest"
)

// GatewayWorker tells IPv6 visitors that they are 0.0.0.0.
func TestEveryVisitorIsAnsweredWithHisOwnAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := gatewaytest.ServeLogic(t, realip.RealIP{})
		tom := s.Dial("/test", "From-IP: 192.0.2.7")
		eve := s.Dial("/test", "From-IP: 2001:db8::7")
		for range 2 {
			tom.Send("tom")
			eve.Send("eve")
			tom.Want("192.0.2.7")
			eve.Want("2001:db8::7")
		}
	})
}

// What a client writes into headers is no address.
func TestHeadersDoNotChangeTheAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := gatewaytest.ServeLogic(t, realip.RealIP{})
		c := s.Dial("/test", "X-Real-IP: 203.0.113.9", "X-Forwarded-For: 203.0.113.9")
		c.Send("tom")
		c.Want(gatewaytest.DefaultIP)
	})
}

// Lists of clients, and other programs through them, see the address.
func TestTheAddressIsInTheSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := gatewaytest.ServeLogic(t, realip.RealIP{})
		s.Dial("/test")
		list, err := s.Gateway.Clients(t.Context(), gateway.Query{Session: true})
		if err != nil {
			t.Fatal(err)
		}
		if len(list.Clients) != 1 || list.Clients[0].Session.Text("realIP") != gatewaytest.DefaultIP {
			t.Errorf("clients %+v, want one with realIP in its session", list.Clients)
		}
	})
}
