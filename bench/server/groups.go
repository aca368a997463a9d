package main

import (
	"bytes"
	"sync"
)

// groups is what a program without this project would write: a map under a lock, copied
// for each broadcast.
type groups[T comparable] struct {
	mu      sync.RWMutex
	members map[string]map[T]struct{}
}

func newGroups[T comparable]() *groups[T] {
	return &groups[T]{members: make(map[string]map[T]struct{})}
}

func (g *groups[T]) join(c T, names ...string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, name := range names {
		if g.members[name] == nil {
			g.members[name] = make(map[T]struct{})
		}
		g.members[name][c] = struct{}{}
	}
}

func (g *groups[T]) leave(c T) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, m := range g.members {
		delete(m, c)
	}
}

func (g *groups[T]) of(name string) []T {
	g.mu.RLock()
	defer g.mu.RUnlock()
	all := make([]T, 0, len(g.members[name]))
	for c := range g.members[name] {
		all = append(all, c)
	}
	return all
}

// command cuts a message as load.Plain has it.
func command(data []byte) (verb, group string, message []byte) {
	v, rest, _ := bytes.Cut(data, []byte(" "))
	g, message, _ := bytes.Cut(rest, []byte(" "))
	return string(v), string(g), message
}
