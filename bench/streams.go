package main

import (
	"fmt"

	"github.com/caddy-websocket/caddy-websocket/bench/load"
)

// overStreams is the product, built with WebSockets over HTTP/2.
var overStreams = &contender{name: "caddy-websocket", start: func(l *lab, s setting) (*server, error) {
	return startCaddy(l, site{s, "fanout-caddy", productRoutes})
}}

// protos are in the order of the table; HTTP/1.1 is last, so that each is compared with it.
var protos = []struct{ proto, name string }{{"h2", "HTTP/2"}, {"h3", "HTTP/3"}, {"", "HTTP/1.1"}}

// streamsEcho compares one version of HTTP with HTTP/1.1. The generator is Go's client, which
// costs more than the server: only the server's processor time says something.
func streamsEcho(proto string, conns int) *workload {
	w := &workload{
		id:    "echo/" + proto,
		title: fmt.Sprintf("Echo of 32 B, %d sockets, 1 in flight on each, over %s", conns, nameOf(proto)),
		op:    "message",
		note:  "Up to 100 streams share a connection. The client is Go's own, and slower than the server: times and rates are its.",
	}
	for _, p := range []string{proto, ""} {
		w.subjects = append(w.subjects, subject{nameOf(p), overStreams.with(setting{proto: p}, func(l *lab, s *server, session *session) error {
			return connectEcho(l, s, session, 32, conns, load.Flight{Messages: 1})
		})})
	}
	return w
}

// streamsIdle compares the memory of idle sockets.
func streamsIdle(conns int) *workload {
	w := &workload{
		id: "idle/streams", op: "connection", memory: true,
		title: fmt.Sprintf("%d idle sockets over HTTP/2, HTTP/3 and HTTP/1.1", conns),
		note:  "Up to 100 streams share a connection, whose memory is divided among them.",
	}
	for _, p := range protos {
		w.subjects = append(w.subjects, subject{p.name, func(l *lab, _ *run) (runner, error) {
			return &holder{l: l, c: overStreams, set: setting{proto: p.proto}, conns: conns}, nil
		}})
	}
	return w
}

func nameOf(proto string) string {
	for _, p := range protos {
		if p.proto == proto {
			return p.name
		}
	}
	return proto
}

// streams are the workloads that compare versions of HTTP.
func streams(conns int) []*workload {
	return []*workload{streamsEcho("h2", 64), streamsEcho("h3", 64), streamsIdle(min(conns, maxStreams))}
}

// maxStreams bounds the idle ones: each takes a few goroutines of the generator's.
const maxStreams = 2000
