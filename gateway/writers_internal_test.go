package gateway

import (
	"slices"
	"testing"
	"time"
)

// A writer that a socket holds up is replaced, wherever it is when that is
// noticed; none of those whose turn was still to come may be forgotten.
func TestReplacedWriterLosesNobody(t *testing.T) {
	late := int64(time.Hour)
	clients := make([]*Client, 2*writerBatch+1)
	for i := range clients {
		clients[i] = new(Client)
	}
	for name, begin := range map[string]func(me *writer) []*Client{
		"in a write": func(me *writer) []*Client {
			first := me.next(1)
			return []*Client{first}
		},
		"in its second write": func(me *writer) []*Client {
			first := me.next(1)
			me.done()
			second := me.next(1)
			return []*Client{first, second}
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := &writers{} // starts none by itself
			w.add(clients...)
			me := new(writer)
			w.active = []*writer{me}
			if !w.take(me) {
				t.Fatal("there was nothing to take")
			}
			seen := begin(me)
			if !w.relieve(late) {
				t.Error("nothing is left to look after")
			}
			if !me.done() {
				t.Error("the writer does not know that it was replaced")
			}
			if c := me.next(late); c != nil || !me.done() {
				t.Error("a writer that was replaced goes on")
			}
			for other := new(writer); w.take(other); {
				for c := other.next(1); c != nil; c = other.next(1) {
					seen = append(seen, c)
					other.done()
				}
			}
			if len(seen) != len(clients) {
				t.Errorf("%d clients had their turn, want %d", len(seen), len(clients))
			}
			for _, c := range clients {
				if !slices.Contains(seen, c) {
					t.Error("a client was forgotten")
				}
			}
		})
	}
}

// Nobody replaces a writer that is not held up.
func TestWriterThatGoesOnIsNotReplaced(t *testing.T) {
	w := &writers{}
	w.add(new(Client), new(Client))
	me := new(writer)
	w.active = []*writer{me}
	w.take(me)
	me.next(1)
	me.done()
	w.relieve(int64(time.Hour))
	if c := me.next(1); c == nil || me.done() {
		t.Error("a writer between two writes was replaced")
	}
}
