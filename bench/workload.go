package main

import (
	"fmt"
	"time"

	"github.com/caddy-websocket/caddy-websocket/bench/load"
)

// workload is one thing that is measured, of several servers in turn.
type workload struct {
	id     string // what -run selects
	title  string
	op     string // what is counted
	note   string // what else must be known to read the table
	fanout bool   // needs the benchmark's own logic
	target string // whose ratio the project has set itself

	// subjects are in the order of the table; the first is compared with the others.
	subjects []subject
	memory   bool // kilobytes are measured, not time
	untimed  bool // the generator cannot tell how long one takes
	joined   bool // there is a broker, whose part is shown
}

// subject is one line of a table.
type subject struct {
	name    string
	prepare func(*lab, *run) (runner, error)
}

// runner does the same again and again.
type runner interface {
	run(lasts time.Duration) (*sample, error)
	server() *server // for profiles
	close()
}

// sample is what one run has shown. Times are microseconds for one operation.
type sample struct {
	cpu, broker    float64
	rate           float64 // operations a second
	p50, p99, p999 float64
	kept, floating float64 // kilobytes for each connection
	note           string
}

// session is connections to one server.
type session struct {
	s     *server
	drive func(lasts time.Duration) (*load.Result, error)
	end   func()
}

func (s *session) server() *server { return s.s }

func (s *session) close() {
	s.end()
	s.s.stop()
}

func (s *session) run(lasts time.Duration) (*sample, error) {
	before, brokers := s.s.cpu(), s.s.brokerCPU()
	r, err := s.drive(lasts)
	if err != nil {
		return nil, err
	}
	spent, brokers := s.s.cpu()-before, s.s.brokerCPU()-brokers
	us := func(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }
	out := &sample{
		cpu: us(spent) / float64(r.Messages), broker: us(brokers) / float64(r.Messages), rate: r.Rate(),
		p50: us(r.Latency.Quantile(0.5)), p99: us(r.Latency.Quantile(0.99)), p999: us(r.Latency.Quantile(0.999)),
	}
	if r.Late != nil {
		out.note = fmt.Sprintf("generator late by %s at p99", r.Late.Quantile(0.99).Round(time.Microsecond))
	}
	if r.Resumed > 0 {
		out.note = fmt.Sprintf("%.0f %% resumed", 100*float64(r.Resumed)/float64(r.Messages))
	}
	return out, nil
}

// with starts the contender's server, and lets connect make a session of it.
func (c *contender) with(set setting, connect func(*lab, *server, *session) error) func(*lab, *run) (runner, error) {
	return func(l *lab, _ *run) (runner, error) {
		s, err := c.open(l, set)
		if err != nil {
			return nil, err
		}
		session := &session{s: s, end: func() {}}
		if err := connect(l, s, session); err != nil {
			session.close()
			return nil, fmt.Errorf("%s: %w", c.name, err)
		}
		return session, nil
	}
}

// each makes a subject of all contenders that can do it.
func each(can func(*contender) bool, set setting, connect func(*lab, *server, *session) error) (all []subject) {
	for _, c := range contenders {
		if can(c) {
			all = append(all, subject{c.name, c.with(set, connect)})
		}
	}
	return all
}

func connects(c *contender) bool { return !c.onlyIdle && !c.onlyFanout }

func talks(c *contender) bool { return connects(c) && !c.onlyHandshakes }

func fansOut(c *contender) bool { return c.onlyFanout || talks(c) && !c.noFanout }
