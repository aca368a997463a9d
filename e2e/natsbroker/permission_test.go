package natsbroker

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/caddy-websocket/caddy-websocket/e2e/internal/natsserver"
	"github.com/caddy-websocket/caddy-websocket/gateway"
	"github.com/caddy-websocket/caddy-websocket/gateway/gatewaytest"
	"github.com/caddy-websocket/caddy-websocket/gateway/natsbroker"
)

// caddyMay has the server's only user, caddy, publish and subscribe to these subjects.
func caddyMay(publish, subscribe []string) func(*server.Options) {
	return func(o *server.Options) {
		o.Users = []*server.User{{Username: "caddy", Password: secret, Permissions: &server.Permissions{
			Publish:   &server.SubjectPermission{Allow: publish},
			Subscribe: &server.SubjectPermission{Allow: subscribe},
		}}}
	}
}

func asCaddy(s *natsserver.Server, prefix string) natsbroker.Options {
	return natsbroker.Options{URLs: []string{s.URL()}, User: "caddy", Password: secret, Prefix: prefix}
}

// A node that the server lets in, but not speak or listen below its prefix, is as much on
// its own as one that is cut off: whoever watches must see that, and read what to put
// right. Put right on the server, it is over by itself.
func TestNodeWithoutPermissionsIsDown(t *testing.T) {
	all, other := []string{"shop.>"}, []string{"caddy-websocket.>"}
	for _, tt := range []struct {
		name               string
		publish, subscribe []string
		may                string
	}{
		{"another prefix", other, other, "may not "},
		{"deaf", all, other, "may not subscribe to shop.default.all"},
		{"mute", other, all, "may not publish to shop.default."},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := natsserver.Start(t, caddyMay(tt.publish, tt.subscribe))
			o, log := asCaddy(s, "shop"), new(gatewaytest.Log)
			o.Logger = log.Logger()
			broker := open(t, o)
			early := attach(t, broker)
			refused := func(e *ear) {
				t.Helper()
				// It is tried again, and never is up for a moment.
				e.await("three refusals", func() bool { return e.downs >= 3 && errors.Is(e.why, natsbroker.ErrRefused) })
				if e.ups > 0 {
					t.Error("it came up")
				}
				for _, part := range []string{`user "caddy" ` + tt.may, `prefix "shop"`, "shop.>"} {
					if !strings.Contains(e.why.Error(), part) {
						t.Errorf("%q does not say %q", e.why, part)
					}
				}
				if err := e.Publish("all", nil); !errors.Is(err, gateway.ErrLinkDown) {
					t.Errorf("publishing: %v, want ErrLinkDown", err)
				}
			}
			refused(early)
			line := log.Wait(t, "NATS refuses a subject")
			if text := fmt.Sprint(line.Attrs["error"]); !strings.Contains(text, `prefix "shop"`) {
				t.Errorf("%q does not name the prefix", text)
			}
			if err := connectGateways(t, broker, "default"); !errors.Is(err, natsbroker.ErrRefused) {
				t.Errorf("Connect: %v, want ErrRefused", err)
			}
			late := attach(t, broker)
			late.awaitDown()

			s.Reload(caddyMay(all, all))
			early.awaitUp()
			late.awaitUp()
			if err := connectGateways(t, broker, "default"); err != nil {
				t.Error(err)
			}
			early.hears(attach(t, open(t, asCaddy(s, "shop"))), "allowed")
		})
	}
}

// The server may take the permissions away while nodes are connected.
func TestNodeThatLosesItsPermissionsGoesDown(t *testing.T) {
	all := []string{"caddy-websocket.>"}
	s := natsserver.Start(t, caddyMay(all, all))
	e := attach(t, open(t, asCaddy(s, "")))
	e.hears(attach(t, open(t, asCaddy(s, ""))), "before")
	s.Reload(caddyMay(all, []string{"other.>"}))
	e.await("the refusal", func() bool { return e.isDown && errors.Is(e.why, natsbroker.ErrRefused) })
}

// A gateway that is not allowed must not take one with it that is, on the same
// connection.
func TestRefusedGatewayLeavesOthersAlone(t *testing.T) {
	narrow := []string{"caddy-websocket.default.>"}
	s := natsserver.Start(t, caddyMay(narrow, narrow))
	broker := open(t, asCaddy(s, ""))
	allowed, stranger := attach(t, broker), attachTo(t, broker, "lobby")
	stranger.await("the refusal", func() bool { return errors.Is(stranger.why, natsbroker.ErrRefused) })
	allowed.awaitUp()
	before := s.ClientIDs()
	if err := connectGateways(t, broker, "default", "lobby"); !errors.Is(err, natsbroker.ErrRefused) || !strings.Contains(err.Error(), `gateway "lobby"`) {
		t.Errorf("Connect: %v, want ErrRefused for lobby", err)
	}
	if err := connectGateways(t, broker, "default"); err != nil {
		t.Error(err)
	}
	allowed.hears(attach(t, open(t, asCaddy(s, ""))), "hello")
	if now := s.ClientIDs(); now[0] != before[0] {
		t.Errorf("the server has the clients %v, and had %v", now, before)
	}
}

// A slot that is refused is some users' trouble: the rest goes on, and the log says
// which subject that is and what belongs to it.
func TestRefusedSlotIsLogged(t *testing.T) {
	all := []string{"caddy-websocket.default.all", "caddy-websocket.default.n.*"}
	s := natsserver.Start(t, caddyMay(all, all))
	o, log := asCaddy(s, ""), new(gatewaytest.Log)
	o.Logger = log.Logger()
	e := attach(t, open(t, o))
	e.Subscribe("u.24")
	text := fmt.Sprint(log.Wait(t, "NATS refuses a subject").Attrs["error"])
	for _, part := range []string{"may not subscribe to caddy-websocket.default.u.24", `prefix "caddy-websocket"`} {
		if !strings.Contains(text, part) {
			t.Errorf("%q does not say %q", text, part)
		}
	}
	e.awaitUp()
	e.hears(attach(t, open(t, asCaddy(s, ""))), "hello")
	if errors.Is(e.why, natsbroker.ErrRefused) {
		t.Errorf("it was down: %v", e.why)
	}
}
