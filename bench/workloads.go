package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/caddy-websocket/caddy-websocket/bench/load"
)

// usual is what is run without -run: what the project has set itself targets for, and what a
// cluster costs.
const usual = `^((echo|burst)/32/64/(1|16)|half-peak/32|fanout/1000/(1|4)|stuck/1000|idle/wss|idle/ws|handshake/(new|resumed)|cluster/.*)$`

// workloads are all that there are.
func workloads(conns int) (all []*workload) {
	for _, size := range []int{32, 1 << 10, 64 << 10} {
		for _, n := range []int{64, 1000} {
			for _, inFlight := range []int{1, 16} {
				all = append(all, echo(size, n, load.Flight{Messages: inFlight}))
			}
		}
	}
	all = append(all, echo(32, 64, load.Flight{Messages: 16, Burst: true}))
	all = append(all, halfPeak(32), halfPeak(1<<10))
	for _, members := range []int{1000, 5000} {
		for _, outstanding := range []int{1, 4} {
			all = append(all, fanout(members, outstanding))
		}
		all = append(all, stuck(members))
	}
	all = append(all, groups(10_000, 5, 1000),
		idle("wss", conns), idle("ws", conns), handshakes(false), handshakes(true))
	all = append(all, streams(conns)...)
	return append(all, clusters(conns)...)
}

func bytesOf(n int) string {
	if n >= 1<<10 {
		return fmt.Sprintf("%d KiB", n>>10)
	}
	return fmt.Sprintf("%d B", n)
}

func echo(size, conns int, flight load.Flight) *workload {
	w := &workload{
		id:    fmt.Sprintf("echo/%d/%d/%d", size, conns, flight.Messages),
		title: fmt.Sprintf("Echo of %s, %d connections, %d in flight on each", bytesOf(size), conns, flight.Messages),
		op:    "message",
		subjects: each(talks, setting{}, func(l *lab, s *server, session *session) error {
			return connectEcho(l, s, session, size, conns, flight)
		}),
	}
	switch {
	case flight.Burst:
		w.id, w.title = strings.Replace(w.id, "echo", "burst", 1), w.title+", the next when all are back"
	case size == 32 && conns == 64 && flight.Messages == 1:
		w.target = "CPU at most 1.02 of gorilla's and 0.50 of nginx > gorilla's"
	case size == 32 && conns == 64:
		w.target = "CPU at most 0.60 of gorilla's"
	}
	return w
}

func connectEcho(l *lab, s *server, session *session, size, conns int, flight load.Flight) error {
	target := s.target("/echo")
	open, err := target.DialMany(l.ctx, conns, min(32<<10, 4<<10+size*flight.Messages))
	if err != nil {
		return err
	}
	frame := load.Text(size)
	session.end = func() { load.CloseAll(open) }
	session.drive = func(lasts time.Duration) (*load.Result, error) { return load.Echo(open, frame, flight, lasts) }
	return nil
}

// halfPeak is at half of what gorilla does with one message in flight on each connection.
func halfPeak(size int) *workload {
	const conns = 64
	rate := 0.0
	return &workload{
		id:     fmt.Sprintf("half-peak/%d", size),
		title:  fmt.Sprintf("Echo of %s over %d connections at a fixed rate: half of gorilla's peak", bytesOf(size), conns),
		op:     "message",
		note:   "Times count from when a message was due.",
		target: "p99 at most 1.10 of gorilla's",
		subjects: each(talks, setting{}, func(l *lab, s *server, session *session) error {
			if rate == 0 {
				var err error
				if rate, err = peak(l, size, conns); err != nil {
					return err
				}
				rate /= 2
			}
			target := s.target("/echo")
			open, err := target.DialMany(l.ctx, conns, 32<<10)
			if err != nil {
				return err
			}
			frame := load.Text(size)
			session.end = func() { load.CloseAll(open) }
			session.drive = func(lasts time.Duration) (*load.Result, error) { return load.Open(open, frame, rate, lasts) }
			return nil
		}),
	}
}

// peak returns the middle of three short runs of gorilla's.
func peak(l *lab, size, conns int) (float64, error) {
	s, err := contenders[slices.IndexFunc(contenders, func(c *contender) bool { return c.name == "gorilla" })].open(l, setting{})
	if err != nil {
		return 0, err
	}
	session := &session{s: s, end: func() {}}
	defer func() { session.close() }()
	if err := connectEcho(l, s, session, size, conns, load.Flight{Messages: 1}); err != nil {
		return 0, err
	}
	rates := make([]float64, 3)
	for i := range rates {
		r, err := session.drive(time.Second)
		if err != nil {
			return 0, err
		}
		rates[i] = r.Rate()
	}
	return median(rates), nil
}

// message is what is sent to groups.
var message = []byte(strings.Repeat("m", 90))

func fanout(members, outstanding int) *workload {
	w := &workload{
		id:     fmt.Sprintf("fanout/%d/%d", members, outstanding),
		title:  fmt.Sprintf("90 B to a group of %d, %d outstanding", members, outstanding),
		op:     "delivery",
		fanout: true,
		subjects: each(fansOut, setting{}, func(l *lab, s *server, session *session) error {
			return connectFanout(l, s, session, members, 0, outstanding)
		}),
	}
	if members == 1000 {
		w.target = map[int]string{1: "CPU at most 1.00 of gorilla's", 4: "CPU at most 0.45 of gorilla's"}[outstanding]
	}
	return w
}

func connectFanout(l *lab, s *server, session *session, members, stuck, outstanding int) error {
	f, err := load.NewFanout(l.ctx, s.target("/fanout"), members, stuck)
	if err != nil {
		return err
	}
	session.end = f.Close
	session.drive = func(lasts time.Duration) (*load.Result, error) { return f.Run(message, outstanding, lasts) }
	return nil
}

func stuck(members int) *workload {
	w := &workload{
		id:     fmt.Sprintf("stuck/%d", members),
		title:  fmt.Sprintf("90 B to a group of %d, 1 outstanding, of whom 1 %% do not read", members),
		op:     "delivery to one who reads",
		fanout: true,
		target: "p99 at most 1.20 of that with none stuck",
	}
	for _, c := range contenders {
		if !fansOut(c) || c.proxy { // it would take much more until its buffers were full, too
			continue
		}
		with := func(stuck int) func(*lab, *run) (runner, error) {
			return c.with(setting{}, func(l *lab, s *server, session *session) error {
				return connectFanout(l, s, session, members-stuck, stuck, 1)
			})
		}
		w.subjects = append(w.subjects, subject{c.name + ", 1 % stuck", with(members / 100)})
		if len(w.subjects) == 1 {
			w.subjects = append(w.subjects, subject{c.name + ", none stuck", with(0)})
		}
	}
	return w
}

func groups(count, size, clients int) *workload {
	return &workload{
		id:     "groups",
		title:  fmt.Sprintf("90 B to one of %d groups of %d after the other, 16 outstanding", count, size),
		op:     "delivery",
		fanout: true,

		untimed: true, // who waits for a message cannot know when it was sent
		subjects: each(fansOut, setting{}, func(l *lab, s *server, session *session) error {
			g, err := load.NewGroups(l.ctx, s.target("/fanout"), clients, count, size)
			if err != nil {
				return err
			}
			session.end = g.Close
			session.drive = func(lasts time.Duration) (*load.Result, error) { return g.Run(message, 16, lasts) }
			return nil
		}),
	}
}

func handshakes(resume bool) *workload {
	const lines = 8
	w := &workload{
		id:     "handshake/new",
		title:  fmt.Sprintf("wss handshakes on %d lines, each a new TLS session", lines),
		op:     "handshake",
		target: "at least 0.95 of gorilla's rate",
		subjects: each(connects, setting{}, func(l *lab, s *server, session *session) error {
			session.drive = func(lasts time.Duration) (*load.Result, error) {
				return load.Handshakes(l.ctx, s.target("/echo"), lines, resume, lasts)
			}
			return nil
		}),
	}
	if resume {
		w.id, w.title = "handshake/resumed", fmt.Sprintf("wss handshakes on %d lines, the TLS session taken up again", lines)
	}
	return w
}
