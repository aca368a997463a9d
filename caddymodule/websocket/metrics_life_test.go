package websocket_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
)

// Caddy's own counters start at 0 after each reload, and a rate over them is wrong
// at that moment. Ours must not, also where a reload fails: then Caddy answers
// /metrics from the configuration that failed.
func TestMetricsSurviveReloads(t *testing.T) {
	site := func(logic, name string) string {
		return "HTTP {\n websocket /ws {\n name " + name + "\n logic probe " + logic + "\n}\n}\n"
	}
	s := start(t, site("0", "chat"))
	first := s.dial("ws:/ws")
	first.ask("tom", "tom")
	s.dial("ws:/ws").leave(4000, "")
	s.waitForClients("chat", 1)
	before := s.scrape(t).lasting()
	compare := func(when string) {
		t.Helper()
		if after := s.scrape(t).lasting(); !maps.Equal(after, before) {
			t.Errorf("%s the metrics are %v, want as before %v", when, after, before)
		}
	}
	for i := range 3 {
		s.mustLoad("", site(fmt.Sprint(i+1), "chat"))
		compare("after a reload")
		f := func() error { return fmt.Errorf("neighbour cannot start") }
		neighbourStart.Store(&f)
		if err := s.load("neighbour", site("broken", "chat")); err == nil {
			t.Error("a configuration that cannot start was loaded")
		}
		neighbourStart.Store(nil)
		compare("after a reload that failed")
	}
	first.ask("tom", "tom")

	// Under another name it is another endpoint.
	var answering sync.WaitGroup
	answering.Go(func() { first.wantClose(1001) }) // the reload waits for it
	s.mustLoad("", site("4", "talk"))
	answering.Wait()
	s.waitFor("the old name to be forgotten", func() bool {
		for series := range s.scrape(t) {
			if strings.Contains(series, `endpoint="chat"`) {
				return false
			}
		}
		return true
	})
	s.scrape(t).want(t, "talk", map[string]float64{})
	s.dial("ws:/ws").ask("tom", "tom")
	s.waitFor("the new name to count", func() bool { return s.scrape(t).sum("messages_total", `endpoint="talk"`) == 2 })
}

// docs/metrics.md says to scrape a site where reloads can fail early: Caddy's admin
// endpoint then has no metrics, or those of half a configuration.
func TestMetricsOfASiteOutliveAReloadThatFails(t *testing.T) {
	site := func(more string) string {
		return "HTTP {\n metrics /metrics\n websocket /ws {\n logic echo\n}\n" + more + "}\n"
	}
	s := start(t, site(""))
	s.dial("ws:/ws").ask("tom", "tom")
	if err := s.load("", site("route /more {\n broken\n}\n")); err == nil {
		t.Fatal("a handler that cannot be provisioned was loaded")
	}
	_, text := s.request("GET /metrics HTTP/1.1\nHost: " + s.http.String() + "\n\n")
	if want := `caddy_websocket_clients{endpoint="/ws",gateway="default"} 1`; !strings.Contains(text, want) {
		t.Errorf("the site's metrics lack %s:\n%s", want, text)
	}
}

// One line for two addresses is two servers and two handlers, and one endpoint:
// counted twice it would be wrong, registered twice /metrics would fail.
func TestOneLineOnTwoServersIsCountedOnce(t *testing.T) {
	s := newServer(t)
	second := reserve(t, loopback4)
	s.mustLoad("", "HTTP, http://"+second.String()+" {\n websocket /ws {\n logic echo\n}\n}\n")
	s.dial("ws:/ws").ask("tom", "tom")
	conn, _, err := s.tryDial(connection{network: "tcp", address: second.String()}, "ws:/ws", nil)
	if err == nil {
		defer conn.Close()
	} else {
		t.Fatal(err)
	}
	s.waitForClients("/ws", 2)
	if got := s.scrape(t).sum("handshakes_total", `status="101"`); got != 2 {
		t.Errorf("%v handshakes, want 2", got)
	}
}

// Gateways are told apart, and whether one is being drained is seen from outside.
func TestGatewaysHaveTheirOwnMetrics(t *testing.T) {
	s := start(t, "HTTP {\n websocket /ws {\n gateway game\n logic echo\n}\n websocket /chat {\n logic echo\n}\n}\n")
	c := s.dial("ws:/ws")
	c.ask("tom", "tom")
	g := gatewayNow(t, "game")
	var answering sync.WaitGroup
	answering.Go(func() { c.wantClose(1001) })
	if err := g.Drain(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	answering.Wait()
	all := s.scrape(t)
	if all.sum("draining", `gateway="game"`) != 1 || all.sum("draining", `gateway="default"`) != 0 {
		t.Errorf("draining is %v and %v, want 1 for game only", all.sum("draining", "game"), all.sum("draining", "default"))
	}
	if all.sum("handshakes_total", `gateway="game"`, `endpoint="/ws"`) != 1 || all.sum("handshakes_total", `gateway="default"`, `endpoint="/chat"`) != 0 {
		t.Error("handshakes are counted under another gateway")
	}
	g.Resume()
	if got := s.scrape(t).sum("draining"); got != 0 {
		t.Errorf("draining is %v after Resume, want 0", got)
	}
}

// What a peer sends must not decide how many series there are: each costs memory
// here and in Prometheus.
func TestPeersCannotMakeSeries(t *testing.T) {
	s := start(t, "HTTP {\n websocket /ws {\n user {query.user}\n join {query.user}\n logic echo\n}\n}\n")
	s.dial("ws:/ws?user=0").leave(1000, "")
	s.waitForClients("/ws", 0)
	before := s.scrape(t)
	var clients sync.WaitGroup
	codes := make(chan int)
	for range 8 {
		clients.Go(func() {
			for code := range codes {
				c := s.dial(fmt.Sprintf("ws:/ws?user=%d", code))
				c.leave(code, fmt.Sprint("because ", code))
			}
		})
	}
	for code := 3000; code < 5000; code++ {
		codes <- code
	}
	close(codes)
	clients.Wait()
	s.waitForClients("/ws", 0)
	after := s.scrape(t)
	var more []string
	for series := range after {
		if _, known := before[series]; !known {
			more = append(more, series)
		}
	}
	slices.Sort(more)
	want := []string{
		`caddy_websocket_closes_total{by="client",code="3xxx",endpoint="/ws",gateway="default"}`,
		`caddy_websocket_closes_total{by="client",code="4xxx",endpoint="/ws",gateway="default"}`,
	}
	if !slices.Equal(more, want) || after.sum("closes_total", `code="3xxx"`) != 1000 || after.sum("closes_total", `code="4xxx"`) != 1000 {
		t.Errorf("2000 codes added %q, want %q with 1000 each", more, want)
	}
}

// Prometheus asks while the server is busy: no count may go back on the way from
// the living to the gone, and none may be lost.
func TestScrapingWhileClientsComeAndGo(t *testing.T) {
	const clients, rounds = 50, 4
	s := start(t, "HTTP {\n websocket /ws {\n logic echo\n}\n}\n")
	s.dial("ws:/ws").leave(1000, "")
	var running sync.WaitGroup
	for range clients {
		running.Go(func() {
			for i := range rounds {
				c := s.dial("ws:/ws")
				c.ask("tom", "tom")
				if i%2 == 0 {
					c.leave(4000, "")
				} else {
					_ = c.NetConn().Close()
				}
			}
		})
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		running.Wait()
	}()
	var last scrape
	for scrapes, over := 0, false; !over || scrapes < 3; scrapes++ {
		select {
		case <-done:
			over = true
		default:
		}
		all := s.scrape(t)
		for series, value := range last {
			if strings.Contains(series, "_total") && all[series] < value {
				t.Errorf("%s went from %v to %v", series, value, all[series])
			}
		}
		if in, out := all.sum("messages_total", `"in"`), all.sum("messages_total", `"out"`); out > in {
			t.Errorf("%v messages out of %v in: echo sends no more than it gets", out, in)
		}
		last = all
	}
	s.waitForClients("/ws", 0)
	s.agree()
	if got := s.scrape(t).sum("handshakes_total", `status="101"`); got != clients*rounds+1 {
		t.Errorf("%v handshakes, want %d", got, clients*rounds+1)
	}
}
