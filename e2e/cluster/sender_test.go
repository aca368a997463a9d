package cluster

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/caddy-websocket/caddy-websocket/gateway"
	"github.com/caddy-websocket/caddy-websocket/gateway/httpapi"
)

// sender is a program that pushes messages through one node, one after the other.
type sender struct {
	town   *town
	node   *node
	id     int
	number int

	sent      []aim // since reset
	localOnly int   // since reset; how often the node said that it could not tell others
	gone      bool  // the node has been ended meanwhile: what became of the last is not known
}

// send sends a message; with wait, to be told how many it has reached on all nodes.
func (s *sender) send(a aim, wait string) (httpapi.Result, error) {
	s.number++
	text := message(s.id, s.number, a)
	var to gateway.Target
	if to = gateway.All(); a.kind != mark {
		to = a.target(func(i int) string {
			if id := s.town.people[i].now(); id != "" {
				return id
			}
			return "nobody"
		})
	}
	var answer httpapi.Result
	err := s.node.post("/send"+wait, fmt.Sprintf("%d-%d", s.id, s.number), gateway.SendCommand{To: to, Text: &text}, &answer)
	return answer, err
}

// work sends until it is told to stop, or its node is ended.
func (s *sender) work(stop <-chan struct{}) {
	for {
		select {
		case <-stop:
			return
		case <-time.After(min(time.Duration(rand.ExpFloat64()*float64(*flagPause)), 3**flagPause)):
		}
		a := s.town.crowd.random()
		if a.kind == toAllButOne && s.town.people[a.n].home.ending.Load() {
			continue // who comes back has another id, and is not left out
		}
		answer, err := s.send(a, "")
		switch {
		case err != nil && s.node.ending.Load():
			s.gone = true
			return
		case err != nil:
			s.town.wrong("sending to %s through %s: %v", a, s.node, err)
			return
		}
		s.sent = append(s.sent, a)
		if answer.LocalOnly {
			s.localOnly++
		}
	}
}

// survey sends some messages of every kind while nothing is wrong: all say how many they
// reach, and one in four waits for what the others say.
func (s *sender) survey() {
	for round := range *flagRounds {
		for i, k := range kinds {
			a, wait := s.town.crowd.pick(k), ""
			if waits := (round+i)%4 == 0; waits {
				wait = "?wait=10s"
			}
			answer, err := s.send(a, wait)
			if err != nil || answer.LocalOnly || len(answer.Missing) > 0 {
				s.town.wrong("sending to %s through %s: %+v, %v", a, s.node, answer, err)
				return
			}
			want := 0
			for _, p := range s.town.people {
				if s.town.crowd.meets(a, p.i) && p.now() != "" && (wait != "" || p.home == s.node) {
					want++
				}
			}
			if answer.Clients == nil || *answer.Clients != want {
				s.town.wrong("sending to %s through %s%s has reached %v, want %d", a, s.node, wait, deref(answer.Clients), want)
			}
			s.sent = append(s.sent, a)
		}
	}
}

func deref(n *int) string {
	if n == nil {
		return "nobody knows how many"
	}
	return fmt.Sprint(*n)
}

// reach sends marks until everybody has one, and tells whether that was in time. Everything
// that was sent before has then come, or never will.
func (s *sender) reach(deadline time.Time) bool {
	for {
		answer, err := s.send(aim{kind: mark}, "")
		if err != nil {
			s.town.wrong("sending through %s: %v", s.node, err)
			return false
		}
		again := time.Now().Add(time.Second)
		if answer.LocalOnly {
			again = time.Now().Add(100 * time.Millisecond)
		}
		for again.After(time.Now()) || again.After(deadline) {
			if !slices.ContainsFunc(s.town.people, func(p *person) bool { return p.now() != "" && !p.has(s.id, s.number) }) {
				return true
			}
			if time.Now().After(deadline) {
				return false
			}
			time.Sleep(5 * time.Millisecond)
		}
	}
}
