package lobby_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-websocket/caddy-websocket/examples/cluster/lobby"
	"github.com/caddy-websocket/caddy-websocket/gateway"
	"github.com/caddy-websocket/caddy-websocket/gateway/gatewaytest"
)

func TestMain(m *testing.M) { gatewaytest.Main(m, "caddy-websocket/") }

// named does what the lines `session` of the Caddyfile do.
type named struct {
	*lobby.Lobby

	at string
}

// OnConnect names the visitor by the query.
func (n named) OnConnect(c *gateway.Client, r *http.Request) error {
	if err := c.Session().Update(map[string]any{"name": r.URL.Query().Get("name"), "at": n.at}); err != nil {
		return err
	}
	return n.Lobby.OnConnect(c, r)
}

// nodes serves the lobby on nodes of these names, who know each other.
func nodes(t *testing.T, b gateway.Broker, names ...string) []*gatewaytest.Server {
	t.Helper()
	all := make([]*gatewaytest.Server, len(names))
	for i, name := range names {
		o := gateway.EndpointOptions{Logic: named{new(lobby.Lobby), name}, PingInterval: -1}
		all[i] = gatewaytest.ServeOptions(t, gateway.Options{Broker: b}, gatewaytest.Endpoint(t, "lobby", o))
	}
	time.Sleep(2 * time.Second) // logic has seen the broker
	synctest.Wait()
	return all
}

func enter(s *gatewaytest.Server, name string) *gatewaytest.Client {
	c := s.Dial("/lobby?name=" + name)
	c.WantJSON(`{"type":"welcome","connected":true,"node":"` + s.Gateway.Node() + `"}`)
	c.WantJSON(`{"type":"members"}`)
	return c
}

// inTwo tests the lobby with ann on one node and bob on another.
func inTwo(t *testing.T, test func(t *testing.T, b *gateway.MemoryBroker, one, two *gatewaytest.Server, ann, bob *gatewaytest.Client)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		b := gateway.NewMemoryBroker()
		t.Cleanup(b.Close)
		s := nodes(t, b, "north", "south")
		ann := enter(s[0], "ann")
		bob := enter(s[1], "bob")
		ann.WantJSON(`{"type":"came","name":"bob","at":"south"}`)
		test(t, b, s[0], s[1], ann, bob)
	})
}

// It is one room, whoever is where.
func TestVisitorsOfSeveralNodesAreInOneRoom(t *testing.T) {
	inTwo(t, func(_ *testing.T, _ *gateway.MemoryBroker, one, two *gatewaytest.Server, ann, bob *gatewaytest.Client) {
		ann.Send(`{"type":"say","text":"hello"}`)
		for _, c := range []*gatewaytest.Client{ann, bob} {
			c.WantJSON(`{"type":"said","name":"ann","at":"north","text":"hello"}`)
		}
		cid := two.Dial("/lobby?name=cid")
		cid.WantJSON(`{"type":"welcome"}`)
		list := cid.WantJSON(`{"type":"members"}`)["members"].([]any)
		if text := fmt.Sprint(list); len(list) != 3 || !strings.Contains(text, "ann") || !strings.Contains(text, "north") {
			t.Errorf("cid is told %v", list)
		}
		id := ann.WantJSON(`{"type":"came","name":"cid"}`)["client"]
		cid.Close(1000, "")
		ann.WantJSON(fmt.Sprintf(`{"type":"left","client":%q}`, id))
		_ = one
	})
}

// A page forgets who was on a node that has died, since nobody is left there to say it;
// and learns who is on one that was cut off only.
func TestNodesThatGoAndComeBackAreTold(t *testing.T) {
	inTwo(t, func(t *testing.T, b *gateway.MemoryBroker, _, two *gatewaytest.Server, ann, bob *gatewaytest.Client) {
		node := fmt.Sprintf("%q", two.Gateway.Node())
		b.Cut(two.Gateway.Node())
		ann.WantJSON(`{"type":"node","state":"lost","node":` + node + `}`)
		bob.WantJSON(`{"type":"broker","connected":false}`)
		bob.Send(`{"type":"say","text":"alone"}`)
		bob.WantJSON(`{"type":"said","text":"alone"}`)
		b.Heal()
		ann.WantJSON(`{"type":"node","state":"joined","node":` + node + `}`)
		list := ann.WantJSON(`{"type":"members"}`)["members"].([]any)
		if len(list) != 1 || list[0].(map[string]any)["name"] != "bob" {
			t.Errorf("ann is told %v", list)
		}
		bob.WantJSON(`{"type":"broker","connected":true}`)
		time.Sleep(time.Minute)
		ann.Send(`{"type":"say","text":"end"}`)
		bob.WantJSON(`{"type":"said","text":"end"}`)
	})
}

func TestWhatMakesNoSenseIsAnsweredAndNoMore(t *testing.T) {
	inTwo(t, func(_ *testing.T, _ *gateway.MemoryBroker, one, _ *gatewaytest.Server, ann, bob *gatewaytest.Client) {
		for _, bad := range []string{"x", "null", `{"type":"shout"}`, `{"type":"say","text":" "}`, `{"type":"say","text":"` + strings.Repeat("x", lobby.MaxText+1) + `"}`} {
			ann.Send(bad)
			ann.WantJSON(`{"type":"error"}`)
		}
		ann.Send(`{"type":"say","text":"end"}`)
		bob.WantJSON(`{"type":"said","text":"end"}`)
		one.Refused(http.StatusBadRequest, "/lobby?name=")
		one.Refused(http.StatusBadRequest, "/lobby?name="+strings.Repeat("x", lobby.MaxName+1))
	})
}
