package webhook_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-websocket/caddy-websocket/gateway"
	"github.com/caddy-websocket/caddy-websocket/gateway/gatewaytest"
)

// What the backend answers is done on all nodes. While a node is on its own it is done
// there, and the log is kept for what is wrong with a command.
func TestCommandsOfAnswersReachAllNodesAndALonelyOneIsNoFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broker := gateway.NewMemoryBroker()
		t.Cleanup(broker.Close)
		var log gatewaytest.Log
		var groups []string
		for i := range gateway.MaxGroupsPerClient {
			groups = append(groups, fmt.Sprintf(`"g%d"`, i))
		}
		b := &backend{t: t, answer: func(p *post) (*http.Response, error) {
			switch {
			case !p.is("message"):
				return say(204, ""), nil
			case p.text() == "too much":
				return say(200, `{"commands":[{"join":{"to":{"all":true},"groups":[`+strings.Join(groups, ",")+`]}}, {"join":{"to":{"all":true},"groups":["x"]}}]}`), nil
			}
			return say(200, `{"commands":[{"send":{"to":{"all":true},"text":"to all"}}]}`), nil
		}}
		node := func() *gatewaytest.Server {
			return gatewaytest.ServeOptions(t, gateway.Options{Logger: log.Logger(), Broker: broker},
				gatewaytest.Endpoint(t, "test", gateway.EndpointOptions{Logic: logic(t, "", log.Logger(), b), Logger: log.Logger()}))
		}
		west, east := node(), node()
		tom, ann := west.Dial("/test"), east.Dial("/test")
		synctest.Wait()
		tom.Send("hello")
		tom.Want("to all")
		ann.Want("to all")

		broker.Cut(west.Gateway.Node())
		synctest.Wait()
		for range 3 {
			tom.Send("hello")
			tom.Want("to all")
			time.Sleep(time.Second)
		}
		synctest.Wait()
		if found := log.Find("command of the backend's answer failed"); len(found) != 0 {
			t.Errorf("logged %v", found)
		}
		if found := log.Find("this node is on its own"); len(found) != 1 {
			t.Errorf("that it is on its own is logged %d times", len(found))
		}
		tom.Send("too much")
		tom.Send("hello")
		tom.Want("to all")
		found := log.Find("command of the backend's answer failed")
		if len(found) != 1 || found[0].Attrs["command"] != int64(1) || strings.Contains(fmt.Sprint(found[0].Attrs["error"]), "this node only") {
			t.Errorf("logged %v", found)
		}
	})
}
