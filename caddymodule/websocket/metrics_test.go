package websocket_test

import (
	"fmt"
	"maps"
	"math"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/caddy-websocket/caddy-websocket/gateway"
)

// Graphs and alerts are worth what the numbers are: here every one of them is known
// beforehand, and is found by all who ask in whatever way.
func TestMetricsAreExact(t *testing.T) {
	hook := func(c *gateway.Client, r *http.Request) {
		if r.URL.Query().Has("flood") { // what OnConnect sends waits for the answer
			for range 3 {
				_ = c.Send(gateway.Text(strings.Repeat("x", 600)))
			}
		}
	}
	probeConnect.Store(&hook)
	defer probeConnect.Store(nil)
	b := newBackend(t, false)
	s := start(t, `HTTP {
		log
		websocket /ws {
			max_clients 4
			max_message_size 1000
			send_buffer 1KiB drop_newest
			user {query.user}
			join {query.group}
			logic probe x
		}
		websocket /one {
			max_clients_per_ip 1
			send_buffer 1KiB close
			logic probe y
		}
		websocket /proxied {
			reverse_proxy `+b.addr()+`
		}
		websocket /dead {
			reverse_proxy 127.0.0.1:1
		}
	}`)
	var clients []*client
	for i := range 4 {
		c := s.dial(fmt.Sprintf("ws:/ws?user=u%d&group=all", i%3))
		c.ask("tom", "tom")
		c.ask("jerry", "jerry")
		clients = append(clients, c)
	}
	s.refused(http.StatusServiceUnavailable, "ws:/ws")
	s.refused(http.StatusForbidden, "ws:/ws", "Origin: https://evil.example")
	if all := s.scrape(t); all.sum("users") != 3 || all.sum("groups") != 1 || all.sum("clients") != 4 || all.sum("draining") != 0 {
		t.Errorf("%v users, %v groups, %v clients, %v draining: want 3, 1, 4, 0", all.sum("users"), all.sum("groups"), all.sum("clients"), all.sum("draining"))
	}
	s.agree()
	clients[0].leave(1000, "")
	clients[1].leave(4242, "bye")
	clients[2].send(strings.Repeat("x", 1001))
	clients[2].wantClose(1009)
	_ = clients[2].NetConn().Close() // which the server waits for
	_ = clients[3].NetConn().Close()
	s.waitForClients("/ws", 0)
	s.dial("ws:/ws?flood").want(strings.Repeat("x", 600))

	one := s.dial("ws:/one")
	s.refused(http.StatusTooManyRequests, "ws:/one")
	one.leave(1000, "")
	s.waitForClients("/one", 0)
	s.dial("ws:/one?flood").wantClose(1013)

	proxied := s.dial("ws:/proxied")
	fields(t, proxied)
	proxied.ask("tom", "tom")
	proxied.leave(3003, "")
	s.refused(http.StatusTeapot, "ws:/proxied?refuse")
	s.refused(http.StatusBadGateway, "ws:/dead")
	s.waitForClients("/ws", 1)
	s.waitForClients("/one", 0)
	s.waitForClients("/proxied", 0)

	all := s.scrape(t)
	all.want(t, "/ws", map[string]float64{
		"clients":                        1,
		`handshakes_total{status="101"}`: 5, `handshakes_total{status="403"}`: 1, `handshakes_total{status="503"}`: 1,
		`messages_total{direction="in"}`: 8, `messages_total{direction="out"}`: 9,
		"messages_dropped_total": 2, `queue_overflows_total{policy="drop_newest"}`: 2,
		`closes_total{by="client",code="1000"}`: 1, `closes_total{by="client",code="4xxx"}`: 1,
		`closes_total{by="client",code="1006"}`: 1, `closes_total{by="server",code="1009"}`: 1,
		`callback_duration_seconds_count{callback="connect"}`: 5,
		`callback_duration_seconds_count{callback="message"}`: 8,
		`callback_duration_seconds_count{callback="close"}`:   4,
	})
	all.want(t, "/one", map[string]float64{
		`handshakes_total{status="101"}`: 2, `handshakes_total{status="429"}`: 1,
		"messages_dropped_total": 1, "messages_unsent_total": 1, `queue_overflows_total{policy="close"}`: 1,
		`closes_total{by="client",code="1000"}`: 1, `closes_total{by="server",code="1013"}`: 1,
		`callback_duration_seconds_count{callback="connect"}`: 2,
		`callback_duration_seconds_count{callback="close"}`:   2,
	})
	all.want(t, "/proxied", map[string]float64{
		`handshakes_total{status="101"}`: 1, `handshakes_total{status="418"}`: 1,
		`messages_total{direction="in"}`: 1, `messages_total{direction="out"}`: 2,
		`closes_total{by="client",code="3xxx"}`: 1,
	})
	all.want(t, "/dead", map[string]float64{`handshakes_total{status="502"}`: 1})
	s.agree()
	for status, want := range map[float64]int{101: 8, 403: 1, 418: 1, 429: 1, 502: 1, 503: 1} {
		label := fmt.Sprintf(`status="%v"`, status)
		if n := len(s.log.find("handled request", "status", status)); n != want || n != int(all.sum("handshakes_total", label)) {
			t.Errorf("%d lines with %v in the access log and %v in the metrics, want %d", n, status, all.sum("handshakes_total", label), want)
		}
	}
}

// A proxy without a backend to ask answers 503, not 502; the access log and the
// metrics must not tell two stories of the same handshake.
func TestMetricsAndAccessLogCountTheSameStatusOfAProxy(t *testing.T) {
	s := start(t, `HTTP {
		log
		websocket /ws {
			reverse_proxy {
				dynamic a {
					name does-not-exist.invalid
					port 1
					resolvers 127.0.0.1:1
				}
			}
		}
	}`)
	_, resp, err := s.tryDial(connection{}, "ws:/ws", nil)
	if err == nil || resp == nil {
		t.Fatalf("connecting: %v, want a refusal", err)
	}
	s.log.wait(t, "handled request", "status", float64(resp.StatusCode))
	if got := s.scrape(t).sum("handshakes_total", fmt.Sprintf(`status="%d"`, resp.StatusCode)); got != 1 {
		t.Errorf("%v handshakes with %d in the metrics, want 1", got, resp.StatusCode)
	}
}

// Histograms answer "how slow is my logic": what they sum up must be what there was.
func TestCallbackHistogramHasCumulativeBuckets(t *testing.T) {
	s := start(t, "HTTP {\n websocket /ws {\n logic echo\n}\n}\n")
	c := s.dial("ws:/ws")
	for range 20 {
		c.ask("tom", "tom")
	}
	s.waitFor("the last callback to be counted", func() bool {
		return s.scrape(t).sum("callback_duration_seconds_count", `callback="message"`) == 20
	})
	all := s.scrape(t)
	bounds := make(map[float64]float64)
	for series, value := range all {
		if m := regexp.MustCompile(`seconds_bucket\{callback="message",.*le="([^"]+)"`).FindStringSubmatch(series); m != nil {
			bound, err := strconv.ParseFloat(m[1], 64) // takes +Inf
			if err != nil {
				t.Fatal(err)
			}
			bounds[bound] = value
		}
	}
	last := 0.0
	for _, bound := range slices.Sorted(maps.Keys(bounds)) {
		if bounds[bound] < last {
			t.Errorf("%v took at most %v s, and %v less: buckets are not cumulative", bounds[bound], bound, last)
		}
		last = bounds[bound]
	}
	if sum := all.sum("callback_duration_seconds_sum", `callback="message"`); bounds[math.Inf(1)] != 20 || len(bounds) < 10 || sum <= 0 || sum > wait.Seconds() {
		t.Errorf("20 messages took %v s in buckets %v", sum, bounds)
	}
}
