package main

import (
	"crypto/tls"
	"fmt"
	"strings"
	"time"

	"github.com/caddy-websocket/caddy-websocket/bench/load"
)

// server is one that runs: a process, or a proxy and what is behind it.
type server struct {
	contender *contender
	parts     []*process
	addr      string
	tls       *tls.Config
	admin     []string // addresses of /debug/pprof

	nodes  []string // the addresses of all nodes; none if there is one
	broker *process // what joins them; nil without, and no part

	streams *load.Streams // nil for HTTP/1.1
}

// setting is what a server is started for.
type setting struct {
	plain bool     // ws
	full  bool     // with access log, metrics and compression
	env   []string // for instance GOMEMLIMIT
	nats  string   // URL of a NATS server that joins it to others
	proto string   // h2 or h3; empty for HTTP/1.1
}

// contender is a kind of server, by the name that it has in the tables.
type contender struct {
	name  string
	start func(*lab, setting) (*server, error)

	noFanout       bool
	onlyFanout     bool
	onlyIdle       bool
	onlyHandshakes bool
	proxy          bool

	dialect *load.Dialect // nil for load.Plain
}

// missingError says what is left out, since it is not installed.
type missingError struct{ what string }

// Error names what is missing.
func (e *missingError) Error() string { return e.what + " is not installed" }

// contenders are all; the first is the product, which the others are compared with.
var contenders = []*contender{
	{name: "caddy-websocket", start: startProduct},
	{name: "caddy-websocket full", start: startFull, onlyIdle: true},
	{name: "gorilla", start: peer("gorilla")},
	{name: "gorilla in Caddy", start: startGorilla, onlyHandshakes: true},
	{name: "coder", start: peer("coder"), noFanout: true},
	{name: "gws", start: peer("gws")},
	{name: "centrifuge", start: peer("centrifuge"), onlyFanout: true, dialect: load.Centrifuge},
	{name: "bare", start: peer("bare"), noFanout: true, onlyIdle: true},
	{name: "nginx > gorilla", start: startNginx("gorilla"), proxy: true},
	{name: "nginx > node ws", start: startNginx("node"), noFanout: true, proxy: true},
	{name: "reverse_proxy > gorilla", start: startReverseProxy, proxy: true},
}

// peer returns how to start one of bench/server.
func peer(kind string) func(*lab, setting) (*server, error) {
	return func(l *lab, s setting) (*server, error) {
		var files []string
		var secure *tls.Config
		if !s.plain {
			files, secure = []string{"-cert", l.cert, "-key", l.key}, l.tls
		}
		p, err := l.start(append([]string{"NATS_URL=" + s.nats}, s.env...), l.binary("server"), append([]string{kind}, files...)...)
		if err != nil {
			return nil, err
		}
		line, err := p.firstLine()
		if err != nil {
			p.stop()
			return nil, err
		}
		addr, admin, _ := strings.Cut(line, " ")
		return &server{parts: []*process{p}, addr: addr, tls: secure, admin: []string{admin}}, nil
	}
}

// startNode starts the ws backend, if Node and ws are there.
func startNode(l *lab, _ setting) (*server, error) {
	node, modules, err := l.node()
	if err != nil {
		return nil, err
	}
	p, err := l.start([]string{"NODE_PATH=" + modules}, node, l.source("bench/server/echo.cjs"))
	if err != nil {
		return nil, err
	}
	addr, err := p.firstLine()
	if err != nil {
		p.stop()
		return nil, err
	}
	return &server{parts: []*process{p}, addr: addr}, nil
}

func (s *server) stop() {
	if s.streams != nil {
		s.streams.Close()
	}
	for _, p := range s.parts {
		p.stop()
	}
	if s.broker != nil {
		s.broker.stop()
	}
}

// ready waits until the server answers handshakes.
func (s *server) ready(l *lab) error {
	for _, target := range s.targets("/echo") {
		if err := s.answers(l, target); err != nil {
			return err
		}
	}
	return nil
}

func (s *server) answers(l *lab, target load.Target) error {
	var err error
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		var c *load.Conn
		if c, err = target.Dial(l.ctx, 4<<10); err == nil {
			c.Close()
			return nil
		}
		for _, p := range s.parts {
			if p.over() {
				return fmt.Errorf("%s has ended:\n%s", p.cmd.Path, p.lastWords())
			}
		}
	}
	return err
}

func (s *server) target(path string) load.Target {
	return load.Target{Addr: s.addr, TLS: s.tls, Path: path, Streams: s.streams, Dialect: s.contender.dialect}
}

// targets returns the path on all nodes.
func (s *server) targets(path string) []load.Target {
	if len(s.nodes) == 0 {
		return []load.Target{s.target(path)}
	}
	all := make([]load.Target, len(s.nodes))
	for i, addr := range s.nodes {
		all[i] = s.target(path)
		all[i].Addr = addr
	}
	return all
}

// cpu returns the processor time of all parts.
func (s *server) cpu() (total time.Duration) {
	for _, p := range s.parts {
		for _, pid := range p.tree() {
			total += cpu(pid)
		}
	}
	return total
}

// brokerCPU returns the processor time of what joins the nodes.
func (s *server) brokerCPU() time.Duration {
	if s.broker == nil {
		return 0
	}
	return cpu(s.broker.cmd.Process.Pid)
}

func (s *server) pss() (total int64) {
	for _, p := range s.parts {
		for _, pid := range p.tree() {
			total += pss(pid)
		}
	}
	return total
}

// open starts a server of the kind and waits for it.
func (c *contender) open(l *lab, set setting) (*server, error) {
	s, err := c.start(l, set)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", c.name, err)
	}
	s.contender = c
	if set.proto != "" {
		s.streams = load.Over(set.proto)
	}
	if err := s.ready(l); err != nil {
		s.stop()
		return nil, fmt.Errorf("%s does not answer: %w", c.name, err)
	}
	return s, nil
}
