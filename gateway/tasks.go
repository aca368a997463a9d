package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"
)

// tasks are the goroutines that logic runs without a client in hand.
type tasks struct {
	ctx    context.Context
	cancel context.CancelFunc
	log    *slog.Logger

	mu      sync.Mutex
	running map[string]int // guarded by mu; by name
	idle    chan struct{}  // guarded by mu; made by stop, closed when none runs
}

func newTasks(ctx context.Context, log *slog.Logger) *tasks {
	ctx, cancel := context.WithCancel(ctx)
	return &tasks{ctx: ctx, cancel: cancel, log: log, running: make(map[string]int)}
}

// Go runs f in a goroutine of its own. ctx ends with the gateway's generation,
// or with the gateway, and f should then return: it is waited for, and named in
// the log if it does not. A panic is logged and ends f alone. After that end Go
// does nothing.
func (g *Gateway) Go(name string, f func(ctx context.Context)) { g.tasks.start(name, f) }

// Every calls f every d, in a goroutine of its own and not before the last call
// has returned, until stop is called or as Go says. A panic is logged and ends
// that call alone. d must be positive.
func (g *Gateway) Every(d time.Duration, f func(ctx context.Context)) (stop func()) {
	if d <= 0 {
		panic(fmt.Sprintf("gateway: Every: interval %s is not positive", d))
	}
	name := "every " + d.String()
	quit := make(chan struct{})
	g.tasks.start(name, func(ctx context.Context) {
		ticker := time.NewTicker(d)
		defer ticker.Stop()
		for {
			select {
			case <-ticker.C:
				g.tasks.contain(name, func() { f(ctx) })
			case <-quit:
				return
			case <-ctx.Done():
				return
			}
		}
	})
	return sync.OnceFunc(func() { close(quit) })
}

// start runs f, unless the tasks have been stopped.
func (t *tasks) start(name string, f func(context.Context)) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ctx.Err() != nil {
		return false
	}
	t.running[name]++
	go func() {
		defer t.done(name)
		t.contain(name, func() { f(t.ctx) })
	}()
	return true
}

func (t *tasks) done(name string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.running[name]--
	if t.running[name] == 0 {
		delete(t.running, name)
	}
	if len(t.running) == 0 && t.idle != nil {
		close(t.idle)
		t.idle = nil
	}
}

// contain calls f and logs its panic.
func (t *tasks) contain(name string, f func()) {
	defer func() {
		if p := recover(); p != nil {
			t.log.Error("panic in a task of the logic", "task", name, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
		}
	}()
	f()
}

// stop cancels all tasks and waits for them until ctx is done. The error names
// those that still run.
func (t *tasks) stop(ctx context.Context) error {
	t.mu.Lock()
	t.cancel()
	if len(t.running) == 0 {
		t.mu.Unlock()
		return nil
	}
	if t.idle == nil {
		t.idle = make(chan struct{})
	}
	idle := t.idle
	t.mu.Unlock()
	select {
	case <-idle:
		return nil
	case <-ctx.Done():
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	var names []string
	for name := range t.running {
		names = append(names, name)
	}
	if len(names) == 0 {
		return nil
	}
	slices.Sort(names)
	t.log.Error("tasks of the logic still run and are not waited for", "tasks", names)
	return errors.New("tasks still run: " + strings.Join(names, ", "))
}
