package cluster

import (
	"slices"
	"sync"
	"time"

	"github.com/caddy-websocket/caddy-websocket/e2e/internal/e2etest"
)

// tally is what became of the messages of one phase, each counted once for every client that
// it was for.
type tally struct {
	sent            int // messages, not clients
	localOnly       int
	due, came       int
	lost, lostAside int // of nodes that something was done to; of all others, which is wrong
}

// phase is one line of the report.
type phase struct {
	name      string
	took      time.Duration
	load      tally // while something was done
	quiet     tally // afterwards
	recovered time.Duration
	notes     []string
	ends      map[string]int
}

// hit tells whether messages from one node to another may be lost in a phase.
type hit func(from, to *node) bool

// across is for what is done to the connection of some node: what stays within one is
// delivered all the same, and so is what passes between others.
func across(of ...*node) hit {
	return func(from, to *node) bool {
		return from != to && (slices.Contains(of, from) || slices.Contains(of, to))
	}
}

func nobody(*node, *node) bool { return false }

// run does something while messages are sent from all nodes to all, waits until the town has
// recovered, and then looks whether all is as before.
func (w *town) run(name string, hit hit, recovers time.Duration, do func(*phase)) *phase {
	w.t.Helper()
	began := time.Now()
	w.reset()
	p := &phase{name: name}
	stop := w.work()
	time.Sleep(*flagLoad)
	do(p)
	time.Sleep(*flagLoad)
	stop()
	p.recovered = w.recovered(bound(recovers))
	p.load = w.tally(hit)
	p.ends = w.reset()
	p.quiet = w.survey()
	p.took = time.Since(began)
	w.t.Logf("%s: %+v", name, *p)
	w.must(name)
	return p
}

// work lets all senders send until stop is called.
func (w *town) work() (stop func()) {
	done := make(chan struct{})
	var working sync.WaitGroup
	for _, s := range w.senders {
		working.Go(func() { s.work(done) })
	}
	return sync.OnceFunc(func() {
		close(done)
		working.Wait()
		w.senders = slices.DeleteFunc(w.senders, func(s *sender) bool { return s.gone })
	})
}

// survey sends to every kind of target from every node, and wants everything to arrive.
func (w *town) survey() tally {
	w.t.Helper()
	w.agree()
	w.reset()
	var surveying sync.WaitGroup
	for _, s := range w.senders {
		surveying.Go(s.survey)
	}
	surveying.Wait()
	w.recovered(patience)
	all := w.tally(nobody)
	w.reset()
	return all
}

// tally compares what was sent with what came. Who was not connected all of the time, and
// senders whose node was ended, are left out.
func (w *town) tally(hit hit) tally {
	var all tally
	for _, s := range w.senders {
		all.sent += len(s.sent)
		all.localOnly += s.localOnly
		for _, p := range w.people {
			came, whole := p.count(s.id)
			if !whole {
				continue
			}
			due := 0
			for _, a := range s.sent {
				if w.crowd.meets(a, p.i) {
					due++
				}
			}
			all.due += due
			all.came += came
			switch {
			case came == due:
			case came > due:
				w.wrong("client %d at %s received %d messages of %d that were sent through %s", p.i, p.home, came, due, s.node)
			case hit(s.node, p.home):
				all.lost += due - came
			default:
				all.lostAside += due - came
				w.wrong("client %d at %s received %d messages of %d that were sent through %s", p.i, p.home, came, due, s.node)
			}
		}
	}
	return all
}

// reset begins to count anew. It returns how connections have ended.
func (w *town) reset() map[string]int {
	for _, s := range w.senders {
		s.sent, s.localOnly = nil, 0
	}
	for _, p := range w.people {
		p.reset(p.now() != "")
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	ends := w.ends
	w.ends = make(map[string]int)
	return ends
}

// raced is for the report.
func raced() string {
	if e2etest.Raced() {
		return ", with the race detector"
	}
	return ""
}
