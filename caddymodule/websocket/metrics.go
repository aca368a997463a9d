package websocket

import (
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/caddyserver/caddy/v2"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/caddy-websocket/caddy-websocket/gateway"
)

// collector tells Prometheus what the gateways of this process have counted. It is
// registered with each configuration's own registry and holds nothing itself: the
// counts live in the gateways, so a reload does not reset them, and an old
// registry keeps nothing in memory. After a reload that failed, Caddy's admin
// endpoint answers from the registry of the configuration that failed: there,
// too, the gateways that run are found.
type collector struct{}

// RegisterMetrics makes the metrics part of what the configuration's /metrics
// answers; the global option `metrics` is about Caddy's own of HTTP only.
// Further calls do nothing.
func RegisterMetrics(ctx caddy.Context) error {
	registry := ctx.GetMetricsRegistry()
	if registry == nil {
		return nil // a context that was made by hand
	}
	err := registry.Register(collector{})
	if _, again := errors.AsType[prometheus.AlreadyRegisteredError](err); again {
		return nil
	}
	if err != nil {
		return fmt.Errorf("registering the metrics: %w", err)
	}
	return nil
}

// describe makes a description. The first labels say the place: the gateway, or
// gateway and endpoint.
func describe(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(prometheus.BuildFQName("caddy", "websocket", name), help, labels, nil)
}

// What there is to know of a gateway.
var (
	descUsers        = describe("users", "Users with at least one connection.", "gateway")
	descGroups       = describe("groups", "Groups with at least one member.", "gateway")
	descDraining     = describe("draining", "1 while the gateway refuses handshakes because it is drained or shut down.", "gateway")
	descSweeperLag   = describe("sweeper_lag_seconds", "How late the last round of pings and time-outs was through; it is due once a second.", "gateway")
	descEventsMissed = describe("events_missed_total", "Events that subscribers of Caddy's events were too slow for.", "gateway")
)

// What there is to know of a gateway that has others beside it.
var (
	descConnected = describe("cluster_connected", "1 while the broker can be reached.", "gateway")
	descNodes     = describe("cluster_nodes", "Other nodes of the gateway that are known.", "gateway")
	descPublished = describe("cluster_published_total", "Messages that were given to the broker.", "gateway")
	descReceived  = describe("cluster_received_total", "Messages that came from other nodes.", "gateway")
	descNotSent   = describe("cluster_unsent_total", "Messages for other nodes that the broker did not take.", "gateway")
	descMissed    = describe("cluster_missed_total", "Messages of other nodes that came too fast, or were not understood.", "gateway")
)

// What there is to know of an endpoint.
var (
	descClients    = describe("clients", "Connections, those that are closing included.", "gateway", "endpoint")
	descHandshakes = describe("handshakes_total", "Handshakes by the HTTP status of their answer: 101 became clients, 499 were gone before it.", "gateway", "endpoint", "status")
	descMessages   = describe("messages_total", "Messages that came in, and that were written.", "gateway", "endpoint", "direction")
	descBytes      = describe("bytes_total", "Bytes of frames that came in, and that were written, before TLS.", "gateway", "endpoint", "direction")
	descDropped    = describe("messages_dropped_total", "Messages that were discarded because a send buffer was full.", "gateway", "endpoint")
	descUnsent     = describe("messages_unsent_total", "Messages that still waited when their connection ended.", "gateway", "endpoint")
	descOverflows  = describe("queue_overflows_total", "How often a message found a send buffer full, by what is done then.", "gateway", "endpoint", "policy")
	descCloses     = describe("closes_total", "Connections that have gone, by close code and who began.", "gateway", "endpoint", "code", "by")
	descCallbacks  = describe("callback_duration_seconds", "How long the logic's callbacks took.", "gateway", "endpoint", "callback")
)

// descriptions are all of them.
var descriptions = []*prometheus.Desc{
	descUsers, descGroups, descDraining, descSweeperLag, descEventsMissed,
	descConnected, descNodes, descPublished, descReceived, descNotSent, descMissed,
	descClients, descHandshakes, descMessages, descBytes, descDropped, descUnsent, descOverflows, descCloses, descCallbacks,
}

// callbackLabels are the values of the label callback, by the engine's names.
var callbackLabels = map[string]string{"OnConnect": "connect", "OnMessage": "message", "OnClose": "close"}

// Series that alerts are about exist from the beginning: a counter that appears
// with the value 1 has not increased, as far as Prometheus can tell.
var (
	usualStatuses = []int{101, 403, 429, 503}
	usualCloses   = []gateway.CloseCount{
		{Code: "1006", ByPeer: true},
		{Code: "1006"},
		{Code: "1008"},
		{Code: "1009"},
		{Code: "1011"},
		{Code: "1013"},
	}
)

// Describe lists the metrics.
func (collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range descriptions {
		ch <- d
	}
}

// Collect asks each gateway once.
func (collector) Collect(ch chan<- prometheus.Metric) {
	var gateways []pooled
	pool.Range(func(_, value any) bool {
		gateways = append(gateways, value.(pooled))
		return true
	})
	for _, p := range gateways {
		stats := p.Stats()
		to := series{ch, []string{stats.Gateway}}
		to.gauge(descUsers, float64(stats.Users))
		to.gauge(descGroups, float64(stats.Groups))
		to.gauge(descSweeperLag, stats.SweeperLag)
		to.counter(descEventsMissed, p.feed.missed())
		to.gauge(descDraining, truth(stats.Draining))
		if stats.Cluster != nil {
			to.cluster(stats.Cluster)
		}
		for i := range stats.Endpoints {
			e := &stats.Endpoints[i]
			series{ch, []string{stats.Gateway, e.Endpoint}}.endpoint(e)
		}
	}
}

// series is where the metrics of one place go. Its methods cannot fail: the names
// of gateways and endpoints are UTF-8, and the descriptions are ours.
type series struct {
	ch    chan<- prometheus.Metric
	place []string
}

func (s series) cluster(c *gateway.ClusterStats) {
	s.gauge(descConnected, truth(c.Connected))
	s.gauge(descNodes, float64(c.Nodes))
	s.counter(descPublished, c.Published)
	s.counter(descReceived, c.Received)
	s.counter(descNotSent, c.Unsent)
	s.counter(descMissed, c.Missed)
}

func (s series) endpoint(e *gateway.EndpointStats) {
	s.gauge(descClients, float64(e.Clients))
	s.counter(descMessages, e.MessagesIn, "in")
	s.counter(descMessages, e.MessagesOut, "out")
	s.counter(descBytes, e.BytesIn, "in")
	s.counter(descBytes, e.BytesOut, "out")
	s.counter(descDropped, e.Dropped)
	s.counter(descUnsent, e.Unsent)
	s.handshakes(e.Handshakes)
	s.closes(e.Closes)
	for policy, n := range e.Overflows {
		s.counter(descOverflows, n, policy)
	}
	for callback, d := range e.Callbacks {
		s.histogram(descCallbacks, d, callbackLabels[callback])
	}
}

// handshakes is given a copy.
func (s series) handshakes(counts map[int]int64) {
	for _, status := range usualStatuses {
		counts[status] += 0
	}
	for status, n := range counts {
		s.counter(descHandshakes, n, strconv.Itoa(status))
	}
}

func (s series) closes(counts []gateway.CloseCount) {
	all := make(map[gateway.CloseCount]int64, len(counts)+len(usualCloses))
	for _, c := range append(counts, usualCloses...) {
		all[gateway.CloseCount{Code: c.Code, ByPeer: c.ByPeer}] += c.Count
	}
	for c, n := range all {
		by := "server"
		if c.ByPeer {
			by = "client"
		}
		s.counter(descCloses, n, c.Code, by)
	}
}

// truth is how a gauge says yes or no.
func truth(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}

func (s series) gauge(d *prometheus.Desc, value float64, labels ...string) {
	s.ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, s.labels(labels)...)
}

func (s series) counter(d *prometheus.Desc, value int64, labels ...string) {
	s.ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(value), s.labels(labels)...)
}

func (s series) histogram(d *prometheus.Desc, durations gateway.Durations, labels ...string) {
	buckets := make(map[float64]uint64, len(durations.Buckets))
	for _, b := range durations.Buckets {
		buckets[b.AtMost.Seconds()] = uint64(b.Count) //nolint:gosec // counts are never negative
	}
	//nolint:gosec // counts are never negative
	s.ch <- prometheus.MustNewConstHistogram(d, uint64(durations.Count), durations.Sum.Seconds(), buckets, s.labels(labels)...)
}

func (s series) labels(more []string) []string {
	return append(slices.Clip(s.place), more...)
}
