package gateway_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-websocket/caddy-websocket/gateway"
	"github.com/caddy-websocket/caddy-websocket/gateway/gatewaytest"
)

func nextEvent(t *testing.T, w *gateway.Watcher) gateway.Event {
	t.Helper()
	synctest.Wait()
	select {
	case e := <-w.Events():
		if e.Time.IsZero() || e.Client == "" || e.RealIP != gatewaytest.DefaultIP {
			t.Errorf("event %+v has no time, client or address", e)
		}
		return e
	default:
		t.Fatal("no event")
		return gateway.Event{}
	}
}

// An operator who looks at one client sees what it does, and nothing of others.
func TestWatcherSeesWhatHappensToItsClients(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		echo := &gatewaytest.Recorder{Message: func(c *gateway.Client, m gateway.Message) error { return c.Send(m) }}
		s := gatewaytest.Serve(t, gatewaytest.Endpoint(t, "seen", gateway.EndpointOptions{Logic: echo}), gatewaytest.Endpoint(t, "other", gateway.EndpointOptions{Logic: echo}))
		w := s.Gateway.Watch(gateway.WatchOptions{Endpoint: "seen", Messages: true, Payload: 4})
		quiet := s.Gateway.Watch(gateway.WatchOptions{})
		other, c := s.Dial("/other"), s.Dial("/seen")
		other.Send("secret")
		other.Want("secret")
		connected := nextEvent(t, w)
		if connected.Type != gateway.EventConnect || connected.Endpoint != "seen" {
			t.Errorf("first is %+v, want a connect of seen", connected)
		}
		c.Send("grün!")
		c.Want("grün!")
		for _, want := range []gateway.EventType{gateway.EventMessage, gateway.EventSend} {
			e := nextEvent(t, w)
			if e.Type != want || e.Message != "text" || e.Size != 6 || string(e.Payload) != "grü" || e.Client != connected.Client {
				t.Errorf("next is %+v with %q, want %s of 6 bytes and whole characters", e, e.Payload, want)
			}
		}
		c.Close(4000, "enough")
		if e := nextEvent(t, w); e.Type != gateway.EventClose || e.Code != 4000 || e.Reason != "enough" || !e.ByPeer {
			t.Errorf("last is %+v, want a close", e)
		}
		var kinds []string
		for len(quiet.Events()) > 0 {
			kinds = append(kinds, string(nextEvent(t, quiet).Type))
		}
		if got := strings.Join(kinds, " "); got != "connect connect close" {
			t.Errorf("without messages a watcher sees %q", got)
		}
		w.Close()
		w.Close()
		quiet.Close()
		s.Dial("/seen")
		synctest.Wait()
		if len(w.Events()) > 0 {
			t.Error("a watcher that was closed is still told")
		}
	})
}

// Whoever watches must not be able to slow anybody down.
func TestWatcherThatDoesNotKeepUpMissesEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := gatewaytest.ServeLogic(t, &gatewaytest.Recorder{})
		w := s.Gateway.Watch(gateway.WatchOptions{Messages: true, Buffer: 3})
		defer w.Close()
		c := s.Dial("/" + s.Gateway.Stats().Endpoints[0].Endpoint)
		for range 10 {
			c.Send("x")
		}
		synctest.Wait()
		if n := len(w.Events()); n != 3 {
			t.Errorf("%d events wait, want 3", n)
		}
		if first, second := w.Missed(), w.Missed(); first != 8 || second != 0 {
			t.Errorf("missed %d and then %d events, want 8 and 0", first, second)
		}
	})
}

// Who follows a client, or everything, should not have to know on which machine it is.
func TestWatchSeesOtherNodes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := memory(t)
		nodes := members(t, b, 2)
		here, there := nodes[0].Gateway, nodes[1].Gateway
		all := here.Watch(gateway.WatchOptions{AllNodes: true, Messages: true, Payload: 100})
		defer all.Close()
		only := here.Watch(gateway.WatchOptions{Nodes: []string{there.Node()}})
		defer only.Close()
		local := here.Watch(gateway.WatchOptions{})
		defer local.Close()
		synctest.Wait()
		next := func(w *gateway.Watcher) string {
			t.Helper()
			select {
			case e := <-w.Events():
				return fmt.Sprint(e.Type, " ", strings.HasPrefix(e.Client, there.Node()), " ", len(e.Payload))
			case <-time.After(time.Second):
				return "nothing"
			}
		}
		far := nodes[1].Dial("/test")
		if got := next(all); got != "connect true 0" {
			t.Errorf("all: %s", got)
		}
		if got := next(only); got != "connect true 0" {
			t.Errorf("the node: %s", got)
		}
		far.Send("hello")
		if got := next(all); got != "message true 0" { // what is in it is the other node's to show
			t.Errorf("all: %s", got)
		}
		near := nodes[0].Dial("/test")
		if got := next(all); got != "connect false 0" {
			t.Errorf("all: %s", got)
		}
		near.Send("hello")
		if got := next(all); got != "message false 5" {
			t.Errorf("all: %s", got)
		}
		if got := next(local) + next(local) + next(only); got != "connect false 0nothingnothing" {
			t.Errorf("this node, then the other: %s", got)
		}

		one := here.Watch(gateway.WatchOptions{AllNodes: true, Client: nodes[1].Client(t, 0).ID()})
		defer one.Close()
		time.Sleep(time.Minute) // it is renewed
		nodes[1].Dial("/test")
		far.Close(1000, "")
		if got := next(one); got != "close true 0" {
			t.Errorf("the client: %s", got)
		}
		joined := oneMore(t, b)
		time.Sleep(4 * time.Second)
		joined.Dial("/test")
		for got := ""; !strings.HasPrefix(got, "connect false"); {
			if got = next(all); got == "nothing" {
				t.Fatal("a node that has joined is not watched")
			}
		}
	})
}

// A tail that was cut off must not be told for ever.
func TestWatchersOfTheDeadAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := memory(t)
		nodes := members(t, b, 2)
		w := nodes[0].Gateway.Watch(gateway.WatchOptions{AllNodes: true})
		defer w.Close()
		synctest.Wait()
		b.Cut(nodes[0].Gateway.Node())
		time.Sleep(15*time.Second + 500*time.Millisecond) // between two signs of life
		before := nodes[1].Gateway.Stats().Cluster.Unsent + nodes[1].Gateway.Stats().Cluster.Published
		nodes[1].Dial("/test")
		time.Sleep(100 * time.Millisecond)
		if after := nodes[1].Gateway.Stats().Cluster.Unsent + nodes[1].Gateway.Stats().Cluster.Published; after != before {
			t.Errorf("%d more were published", after-before)
		}
	})
}
