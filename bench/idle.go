package main

import (
	"fmt"
	"regexp"
	"strconv"
	"time"

	"github.com/caddy-websocket/caddy-websocket/bench/load"
)

// idle holds connections that say nothing.
func idle(scheme string, conns int) *workload {
	w := &workload{
		id:     "idle/" + scheme,
		title:  fmt.Sprintf("%d idle connections, %s", conns, scheme),
		op:     "connection",
		memory: true,
		note: "Given back: all Go servers run with GOMEMLIMIT=16MiB, are made to collect three times, and are waited for. " +
			"As it floats: a second after the last handshake, with Go's defaults. Each run is a new process.",
		target: map[string]string{"wss": "given back at most 1.25 of bare", "ws": "given back at most 8 KB"}[scheme],
	}
	for _, c := range contenders {
		if c.onlyHandshakes || c.onlyFanout {
			continue
		}
		w.subjects = append(w.subjects, subject{c.name, func(l *lab, r *run) (runner, error) {
			h := &holder{l: l, c: c, set: setting{plain: scheme == "ws"}, conns: conns, profile: r.profileFile(w, "heap")}
			s, err := c.open(l, h.set) // whether it can be started at all
			if err == nil {
				s.stop()
			}
			return h, err
		}})
	}
	return w
}

// holder measures the memory of idle connections.
type holder struct {
	l       *lab
	c       *contender
	set     setting
	conns   int
	profile string // where the last heap profile goes; empty for nowhere
}

func (h *holder) server() *server { return nil }

func (h *holder) close() {}

func (h *holder) run(time.Duration) (*sample, error) {
	out := &sample{}
	var err error
	wait := func(*server) error {
		time.Sleep(time.Second)
		return nil
	}
	if out.floating, _, err = h.measure(nil, wait); err != nil {
		return nil, err
	}
	out.kept, out.note, err = h.measure([]string{"GOMEMLIMIT=16MiB"}, settle)
	return out, err
}

// measure returns how many kilobytes more a server has for each of the connections, and of
// what kind they are.
func (h *holder) measure(env []string, settle func(*server) error) (kb float64, kinds string, err error) {
	set := h.set
	set.env = env
	s, err := h.c.open(h.l, set)
	if err != nil {
		return 0, "", err
	}
	defer s.stop()
	target := s.target("/echo")
	target.Deflate = true
	warm, err := target.DialMany(h.l.ctx, 64, 4<<10) // what is made once is made now
	if err != nil {
		return 0, "", err
	}
	load.CloseAll(warm)
	if err := settle(s); err != nil {
		return 0, "", err
	}
	before, were := s.pss(), s.goMemory()
	conns, err := target.DialMany(h.l.ctx, h.conns, 4<<10)
	if err != nil {
		return 0, "", err
	}
	defer load.CloseAll(conns)
	stop := load.Listen(conns)
	defer stop()
	if err := settle(s); err != nil {
		return 0, "", err
	}
	after, are := s.pss(), s.goMemory()
	if env != nil && h.profile != "" && h.c == contenders[0] {
		if err := saveProfile(s.admin[0], "/debug/pprof/heap?gc=1", h.profile); err != nil {
			return 0, "", err
		}
	}
	each := func(n int64) float64 { return float64(n) / 1024 / float64(h.conns) }
	if are != (goMemory{}) {
		kinds = fmt.Sprintf("heap %.1f KB, stacks %.1f KB", each(are.heap-were.heap), each(are.stacks-were.stacks))
	}
	return each(after - before), kinds, nil
}

// goMemory is bytes in use.
type goMemory struct{ heap, stacks int64 }

var (
	heapAlloc  = regexp.MustCompile(`(?m)^# HeapAlloc = (\d+)$`)
	stackInUse = regexp.MustCompile(`(?m)^# Stack = (\d+) / `)
)

// goMemory adds up what the Go servers say; nothing for others.
func (s *server) goMemory() (total goMemory) {
	for _, admin := range s.admin {
		profile, err := fetch(admin, "/debug/pprof/heap?debug=1")
		if err != nil {
			continue
		}
		for pattern, sum := range map[*regexp.Regexp]*int64{heapAlloc: &total.heap, stackInUse: &total.stacks} {
			if found := pattern.FindSubmatch(profile); found != nil {
				n, _ := strconv.ParseInt(string(found[1]), 10, 64)
				*sum += n
			}
		}
	}
	return total
}

// settle makes Go servers collect what they can, and waits until they have given it back.
func settle(s *server) error {
	for _, admin := range s.admin {
		for range 3 { // what is in a sync.Pool, or has a finalizer, survives a collection or two
			if _, err := fetch(admin, "/debug/pprof/heap?gc=1"); err != nil {
				return fmt.Errorf("asking %s for a collection: %w", admin, err)
			}
		}
	}
	const step, most = 500 * time.Millisecond, 10 * time.Second
	last := s.pss()
	for begun := time.Now(); time.Since(begun) < most; {
		time.Sleep(step)
		now := s.pss()
		if last-now < last/200 {
			return nil
		}
		last = now
	}
	return nil
}
