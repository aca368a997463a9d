package rooms_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-websocket/caddy-websocket/caddymodule/logic/rooms"
	"github.com/caddy-websocket/caddy-websocket/gateway"
	"github.com/caddy-websocket/caddy-websocket/gateway/gatewaytest"
)

// A room is one room, on whatever machine its members are; and when a machine or the
// network between them dies, those who are left talk on, and are told that a list is
// not all.
func TestRoomsSpanNodesAndOutliveThem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := gateway.NewMemoryBroker()
		t.Cleanup(b.Close)
		node := func() *gatewaytest.Server {
			r := new(rooms.Rooms)
			if err := r.Provision(caddy.Context{}); err != nil {
				t.Fatal(err)
			}
			return gatewaytest.ServeOptions(t, gateway.Options{Logger: gatewaytest.Logger(t), Broker: b},
				gatewaytest.Endpoint(t, "test", gateway.EndpointOptions{Logic: house{r}}))
		}
		west, east := node(), node()
		tom, tomID := enter(t, west, "tom")
		ann, annID := enter(t, east, "ann")
		join(tom, "lobby", 1)
		synctest.Wait()
		join(ann, "lobby", 2)
		tom.WantJSON(`{"type":"joined","user":"ann","members":2}`)
		list := func(c *gatewaytest.Client, more string, members ...string) {
			t.Helper()
			c.Send(`{"type":"members","room":"lobby"}`)
			m := c.WantJSON(`{"type":"members","more":` + more + `}`)
			if got := m["members"].([]any); len(got) != len(members) {
				t.Errorf("members are %v, want %v", got, members)
			}
		}
		list(tom, "false", tomID, annID)
		tom.Send("hello")
		tom.WantJSON(`{"type":"said","text":"hello"}`)
		ann.WantJSON(`{"type":"said","text":"hello"}`)

		b.Cut(east.Gateway.Node())
		synctest.Wait()
		list(tom, "true", tomID)
		tom.Send("alone")
		tom.WantJSON(`{"type":"said","text":"alone"}`)
		quiet(tom)
		list(ann, "true", annID) // her node knows that it is the one that is cut off
		// A member of a dead node cannot say that he has left.
		time.Sleep(6 * time.Second)
		if m := tom.WantJSON(`{"type":"members","room":"lobby","more":false}`); len(m["members"].([]any)) != 1 {
			t.Errorf("tom is told of %v", m)
		}
		for _, c := range []*gatewaytest.Client{tom, ann} {
			join(c, "other", 1)
			c.Send(`{"type":"leave","room":"other"}`)
			c.WantJSON(`{"type":"left","room":"other","members":0}`)
			quiet(c)
		}
		b.Heal()
		time.Sleep(2 * time.Second)
		if m := tom.WantJSON(`{"type":"members","room":"lobby","more":false}`); len(m["members"].([]any)) != 2 {
			t.Errorf("tom is told of %v", m)
		}
		list(ann, "false", tomID, annID)
	})
}
