package websocket_test

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-websocket/caddy-websocket/caddymodule/websocket"
	"github.com/caddy-websocket/caddy-websocket/gateway"
)

const metricPrefix = "caddy_websocket_"

// scrape is what /metrics of Caddy's admin endpoint says of us: a series as it is
// written, and its value.
type scrape map[string]float64

// scrapeText returns the lines about us.
func (s *server) scrapeText(t testing.TB) string {
	t.Helper()
	hc := &http.Client{Timeout: wait, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", s.admin)
		},
	}}
	resp, err := hc.Get("http://127.0.0.1/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	all, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("metrics: %s %v\n%s", resp.Status, err, all)
	}
	var ours strings.Builder
	for line := range strings.Lines(string(all)) {
		name := strings.TrimPrefix(strings.TrimPrefix(line, "# HELP "), "# TYPE ")
		if strings.HasPrefix(name, metricPrefix) {
			ours.WriteString(line)
		}
	}
	return ours.String()
}

// scrape fails the test if a series is there twice.
func (s *server) scrape(t testing.TB) scrape {
	t.Helper()
	all := make(scrape)
	for line := range strings.Lines(s.scrapeText(t)) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		at := strings.LastIndex(line, " ")
		value, err := strconv.ParseFloat(strings.TrimSpace(line[at:]), 64)
		if _, twice := all[line[:at]]; twice || err != nil {
			t.Errorf("%q is there twice or has no value (%v)", line, err)
		}
		all[line[:at]] = value
	}
	return all
}

// sum adds up the series of a metric that have all of these labels.
func (all scrape) sum(metric string, labels ...string) (total float64) {
	for series, value := range all {
		if strings.HasPrefix(series, metricPrefix+metric+"{") &&
			!slices.ContainsFunc(labels, func(l string) bool { return !strings.Contains(series, l) }) {
			total += value
		}
	}
	return total
}

// lasting returns what does not change by itself.
func (all scrape) lasting() scrape {
	lasting := maps.Clone(all)
	maps.DeleteFunc(lasting, func(series string, _ float64) bool { return strings.Contains(series, "sweeper_lag") })
	return lasting
}

// want compares the series of one endpoint, given without the labels of the place,
// but for bytes and durations.
func (all scrape) want(t *testing.T, endpoint string, want map[string]float64) {
	t.Helper()
	place := fmt.Sprintf(`endpoint=%q,gateway="default"`, endpoint)
	got := make(map[string]float64)
	for series, value := range all {
		if !strings.Contains(series, place) || strings.Contains(series, "_bytes_") || strings.Contains(series, "seconds_bucket") || strings.Contains(series, "seconds_sum") {
			continue
		}
		short := strings.NewReplacer(metricPrefix, "", place+",", "", ","+place, "", "{"+place+"}", "").Replace(series)
		if value != 0 {
			got[short] = value
		}
	}
	if !maps.Equal(got, want) {
		for _, series := range slices.Sorted(maps.Keys(got)) {
			t.Logf("%q: %v,", series, got[series])
		}
		t.Errorf("endpoint %s has these metrics that are not 0, want %v", endpoint, want)
	}
}

// gatewayNow returns a gateway of the configuration in force.
func gatewayNow(t testing.TB, name string) *gateway.Gateway {
	t.Helper()
	app, err := caddy.ActiveContext().App("websocket")
	if err != nil {
		t.Fatal(err)
	}
	g, err := app.(*websocket.App).Gateway(name)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// agree fails the test unless the metrics say what Stats, the list of clients and
// the log say.
func (s *server) agree() {
	s.t.Helper()
	all, g := s.scrape(s.t), gatewayNow(s.t, "")
	stats := g.Stats()
	list, err := g.Clients(s.t.Context(), gateway.Query{Page: gateway.Page{Limit: gateway.MaxPageSize}})
	if err != nil {
		s.t.Fatal(err)
	}
	for i := range stats.Endpoints {
		e := &stats.Endpoints[i]
		place := fmt.Sprintf(`endpoint=%q`, e.Endpoint)
		var fromLog, living gateway.Traffic
		number := func(entry map[string]any, key string) int64 { return int64(entry[key].(float64)) }
		gone := s.log.find("client gone", "endpoint", e.Endpoint)
		for _, entry := range gone {
			fromLog.MessagesIn += number(entry, "messages_in")
			fromLog.MessagesOut += number(entry, "messages_out")
			fromLog.BytesIn += number(entry, "bytes_in")
			fromLog.BytesOut += number(entry, "bytes_out")
			fromLog.Dropped += number(entry, "messages_dropped")
			fromLog.Unsent += number(entry, "messages_unsent")
		}
		clients := 0
		for _, c := range list.Clients {
			if c.Endpoint == e.Endpoint {
				clients++
				living.MessagesIn += c.MessagesIn
				living.MessagesOut += c.MessagesOut
				living.BytesIn += c.BytesIn
				living.BytesOut += c.BytesOut
				living.Dropped += c.Dropped
				living.Unsent += c.Unsent
			}
		}
		for _, tt := range []struct {
			metric, label         string
			stats, listed, logged int64
		}{
			{"clients", "", int64(e.Clients), int64(clients), 0},
			{"handshakes_total", `status="101"`, e.Handshakes[101], 0, int64(len(s.log.find("client connected", "endpoint", e.Endpoint)))},
			{"messages_total", `direction="in"`, e.MessagesIn, living.MessagesIn, fromLog.MessagesIn},
			{"messages_total", `direction="out"`, e.MessagesOut, living.MessagesOut, fromLog.MessagesOut},
			{"bytes_total", `direction="in"`, e.BytesIn, living.BytesIn, fromLog.BytesIn},
			{"bytes_total", `direction="out"`, e.BytesOut, living.BytesOut, fromLog.BytesOut},
			{"messages_dropped_total", "", e.Dropped, living.Dropped, fromLog.Dropped},
			{"messages_unsent_total", "", e.Unsent, living.Unsent, fromLog.Unsent},
			{"closes_total", "", int64(len(gone)), 0, int64(len(gone))},
			{"callback_duration_seconds_count", `callback="message"`, e.Callbacks["OnMessage"].Count, 0, e.Callbacks["OnMessage"].Count},
		} {
			if got := int64(all.sum(tt.metric, place, tt.label)); got != tt.stats || got != tt.listed+tt.logged {
				s.t.Errorf("%s %s of %s is %d; Stats say %d, the list %d and the log %d",
					tt.metric, tt.label, e.Endpoint, got, tt.stats, tt.listed, tt.logged)
			}
		}
	}
}

// waitForClients waits until an endpoint has so many, in the log, too.
func (s *server) waitForClients(endpoint string, n int) {
	s.t.Helper()
	s.waitFor(fmt.Sprintf("%d clients of %s", n, endpoint), func() bool {
		connected, gone := s.log.find("client connected", "endpoint", endpoint), s.log.find("client gone", "endpoint", endpoint)
		return len(connected)-len(gone) == n && int(s.scrape(s.t).sum("clients", fmt.Sprintf("endpoint=%q", endpoint))) == n
	})
}
