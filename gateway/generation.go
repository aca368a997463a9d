package gateway

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync/atomic"
	"time"
)

// Generation is one configuration of a gateway: its endpoints, which come into
// force together. A server that reloads prepares the next generation while the
// last one serves, and commits it when nothing can fail any more:
//
//	gen, err := g.Prepare(options)  // handshakes at its endpoints wait
//	err = gen.Add(endpoint)
//	err = gen.Commit()              // or gen.Close(): nothing has changed
//	err = old.Stop(ctx)             // its tasks and callbacks have ended
//	old.Close()
//
// Live clients go on through a commit: their next message is handled by the
// endpoint of the same name of the new generation, under its limits.
type Generation struct {
	g       *Gateway
	options Options
	ready   chan struct{} // closed when the generation is committed or closed

	// guarded by g.mu until ready is closed, then not written any more
	endpoints map[string]*Endpoint
	moved     map[string]bool
	state     atomic.Int32 // written under g.mu
	committed atomic.Bool  // it has been in force; written before ready is closed
}

const (
	genPrepared = iota
	genCommitted
	genClosed
)

// slot is what stays of an endpoint through all generations: its clients hold
// it, and find in it whoever serves them now.
type slot struct {
	name    string
	current atomic.Pointer[Endpoint]    // nil before the first commit; the last one if removed
	gone    atomic.Pointer[CloseReason] // what clients are told if no endpoint of this name is in force; nil if one is
	counts  admission
	tally   tally
}

// Prepare begins a generation. o.Name must be the gateway's name or empty.
func (g *Gateway) Prepare(o Options) (*Generation, error) {
	if o.Name == "" {
		o.Name = g.name
	}
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	if o.Name != g.name {
		return nil, fmt.Errorf("generation of gateway %q prepared on gateway %q", o.Name, g.name)
	}
	gen := &Generation{options: o, ready: make(chan struct{}), endpoints: make(map[string]*Endpoint), moved: make(map[string]bool)}
	gen.g = &Gateway{shared: g.shared, tasks: newTasks(g.ctx, o.Logger)}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.draining() {
		return nil, ErrShutdown
	}
	g.living = append(g.living, gen)
	return gen, nil
}

// Gateway returns the handle whose Go and Every end with this generation.
func (gen *Generation) Gateway() *Gateway { return gen.g }

// Add gives the generation an endpoint. Its name must be new in the generation,
// and an endpoint belongs to one generation only.
func (gen *Generation) Add(e *Endpoint) error {
	s := gen.g.shared
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case gen.state.Load() != genPrepared:
		return fmt.Errorf("endpoint %q: its generation is no longer being prepared", e.name)
	case e.added.Load():
		return fmt.Errorf("endpoint %q already belongs to a generation", e.name)
	case gen.endpoints[e.name] != nil:
		return fmt.Errorf("endpoint %q exists twice", e.name)
	}
	sl := s.slots[e.name]
	if sl == nil {
		sl = &slot{name: e.name}
		s.slots[e.name] = sl
	}
	e.gen, e.slot = gen, sl
	e.added.Store(true)
	gen.endpoints[e.name] = e
	return nil
}

// Moved notes that endpoints of these names, which the generation does not have,
// are served by another gateway from now on: their clients here are closed with
// 1012, to come back at once, and not with 1001.
func (gen *Generation) Moved(names ...string) {
	s := gen.g.shared
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, name := range names {
		gen.moved[name] = true
	}
}

// Commit puts all endpoints of the generation in force together: Inherit and
// OnStart are called, handshakes that waited go on, the next message of every
// client finds the new endpoint, and clients of endpoints that are no longer
// there are closed with 1001 (see Moved), spread over time.
//
// The error is that of OnStart, see Starter. The generation is in force then,
// too.
func (gen *Generation) Commit() error {
	s := gen.g.shared
	s.commit.Lock()
	defer s.commit.Unlock()
	if gen.state.Load() != genPrepared {
		return errors.New("generation is committed or closed already")
	}
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(gen.endpoints)) {
		e := gen.endpoints[name]
		if err := e.start(gen.g); err != nil {
			e.failed = err
			e.log().Error("logic failed to start: handshakes are refused", "endpoint", name, "error", err)
			errs = append(errs, fmt.Errorf("starting endpoint %q: %w", name, err))
		}
	}
	s.mu.Lock()
	gen.state.Store(genCommitted)
	gen.committed.Store(true)
	s.install(gen)
	s.mu.Unlock()
	if err := s.cluster.use(); err != nil {
		errs = append(errs, err)
	}
	close(gen.ready)
	return errors.Join(errs...)
}

// install makes gen the current generation. The caller holds mu.
func (s *shared) install(gen *Generation) {
	s.current, s.options = gen, gen.options
	s.log.Store(gen.options.Logger)
	due := false // somebody's endpoint is gone, or not what it was
	for name, sl := range s.slots {
		e := gen.endpoints[name]
		if e == nil {
			if sl.current.Load() != nil && sl.gone.Load() == nil {
				due = true
				sl.gone.Store(gen.farewell(name))
			}
			continue
		}
		old := sl.current.Swap(e)
		sl.gone.Store(nil)
		due = due || e.failed != nil || old != nil && old.o.Forwarding != e.o.Forwarding
	}
	if due && !s.draining() {
		o := s.options
		s.helper("evict", func() {
			s.evicting <- struct{}{}
			defer func() { <-s.evicting }()
			s.closePaced(s.ctx, s.registry.everybody(), o)
		})
	}
}

// farewell is what clients of an endpoint are told that the generation does not
// have.
func (gen *Generation) farewell(name string) *CloseReason {
	if gen.moved[name] {
		return &CloseReason{Code: CloseServiceRestart, Reason: reasonMoved}
	}
	return &CloseReason{Code: CloseGoingAway, Reason: reasonRemoved}
}

// Stop ends what runs for the generation once another is in force: its tasks are
// cancelled, and it returns when they and all callbacks of its logic have
// returned, so that the logic may be torn down; or when ctx is done: then clients
// of its removed endpoints that are left are cut, and the error names what still
// runs.
func (gen *Generation) Stop(ctx context.Context) error {
	taskErr := gen.g.tasks.stop(ctx)
	if gen.idle(ctx) {
		return taskErr
	}
	for _, c := range gen.g.registry.everybody() {
		if gen.owes(c) {
			c.kill(CloseReason{Code: CloseAbnormal, Reason: reasonRemoved})
		}
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stuckGrace)
	defer cancel()
	if gen.idle(ctx) {
		return taskErr
	}
	return errors.Join(taskErr, gen.g.reportStuck(gen.serves))
}

// idle waits until no logic of the generation is being called, or will be. It
// returns false if ctx is done before.
func (gen *Generation) idle(ctx context.Context) bool {
	const first, most = time.Millisecond, 50 * time.Millisecond
	for pause := first; gen.busy(); pause = min(pause*2, most) {
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return false
		}
	}
	return true
}

// busy tells whether logic of the generation is being called, or will be.
func (gen *Generation) busy() bool {
	return slices.ContainsFunc(gen.g.registry.everybody(), func(c *Client) bool { return gen.serves(c) || gen.owes(c) })
}

// owes tells whether c is a client of an endpoint that was removed after this
// generation, whose logic will be told of its end.
func (gen *Generation) owes(c *Client) bool {
	return c.slot.gone.Load() != nil && c.slot.current.Load().gen == gen
}

// serves tells whether a callback of c runs in the generation's logic.
func (gen *Generation) serves(c *Client) bool {
	e := c.inside.Load()
	return e != nil && e.gen == gen
}

// Close drops the generation: handshakes that wait at it get 503. If it was in
// force with no successor, the newest of those that are left returns; if there
// is none, live clients stay, and new ones are refused until the next commit.
// Every prepared generation must be closed. Further calls do nothing.
func (gen *Generation) Close() {
	gen.close()
	if gen.committed.Load() { // otherwise nothing has changed
		_ = gen.g.cluster.use() // it has logged why not
	}
}

func (gen *Generation) close() {
	s := gen.g.shared
	s.mu.Lock()
	defer s.mu.Unlock()
	state := gen.state.Swap(genClosed)
	if state == genClosed {
		return
	}
	if state == genPrepared {
		close(gen.ready)
	}
	gen.g.tasks.cancel()
	s.living = slices.DeleteFunc(s.living, func(other *Generation) bool { return other == gen })
	defer s.forgetSlots()
	if s.current != gen {
		return
	}
	s.current = nil
	for _, older := range slices.Backward(s.living) {
		if older.state.Load() == genCommitted {
			s.install(older)
			return
		}
	}
	for name := range gen.endpoints {
		s.slots[name].gone.Store(gen.farewell(name))
	}
}

// forgetSlots drops what no generation has an endpoint for and no client holds.
// The caller holds mu.
func (s *shared) forgetSlots() {
	maps.DeleteFunc(s.slots, func(name string, sl *slot) bool {
		named := slices.ContainsFunc(s.living, func(gen *Generation) bool { return gen.endpoints[name] != nil })
		served := sl.current.Load() != nil && sl.gone.Load() == nil
		return !named && !served && sl.counts.empty()
	})
}
