package websocket

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"runtime/debug"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-websocket/caddy-websocket/gateway"
)

// Events that are emitted for Caddy's events app, if anybody has subscribed when
// the configuration comes into force. Both have the data gateway, endpoint, client,
// client_ip and user; a closed one has code, reason and by_peer, too.
const (
	EventConnected = "websocket_connected"
	EventClosed    = "websocket_closed"
)

func init() {
	caddy.RegisterModule(&Events{})
}

// Events is where the events come from: who subscribes to those of the module
// `websocket.events`, or of all of `websocket`, gets them. It has no configuration.
//
// It is a module because the app's own context does not reliably name the app: in
// Caddy 2.11.9 contexts of modules that were loaded by the same one share the
// array in which it looks up who they belong to.
type Events struct {
	ctx caddy.Context
}

// CaddyModule returns the Caddy module information.
func (*Events) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "websocket.events", New: func() caddy.Module { return new(Events) }}
}

// Provision keeps the context.
func (e *Events) Provision(ctx caddy.Context) error {
	e.ctx = ctx
	return nil
}

// originate returns a context that names Events as its module, and ends with the
// app's.
func (a *App) originate() (caddy.Context, error) {
	fresh, cancel := caddy.NewContext(a.ctx) // without the array
	context.AfterFunc(a.ctx, cancel)
	module, err := fresh.LoadModuleByID("websocket.events", nil)
	if err != nil {
		return a.ctx, err
	}
	return module.(*Events).ctx, nil
}

// eventBuffer is how many events of a gateway may wait for slow handlers.
const eventBuffer = 1024

// feed is what happens at a gateway, as long as a configuration wants to hear it.
// During a reload two may take from it, and each event goes to one of them: none
// is lost, and none comes twice.
type feed struct {
	gateway *gateway.Gateway

	mu      sync.Mutex
	watcher *gateway.Watcher // guarded by mu; nil while nobody listens
	users   int              // guarded by mu
	lost    int64            // guarded by mu; what watchers have missed, as far as they were asked
}

// join begins to listen.
func (f *feed) join() <-chan gateway.Event {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.users++; f.users == 1 {
		f.watcher = f.gateway.Watch(gateway.WatchOptions{Buffer: eventBuffer})
	}
	return f.watcher.Events()
}

// leaveIfShared ends a use if somebody else listens, too, and tells whether it did.
func (f *feed) leaveIfShared() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.users < 2 {
		return false
	}
	f.users--
	return true
}

// leave ends a use, and tells whether it was the last, so that what still waits is
// the caller's.
func (f *feed) leave() (last bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.users--; f.users > 0 {
		return false
	}
	f.watcher.Close()
	f.lost += f.watcher.Missed()
	f.watcher = nil
	return true
}

// missed returns how many events nobody could be told.
func (f *feed) missed() int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.watcher != nil {
		f.lost += f.watcher.Missed()
	}
	return f.lost
}

// discard counts events as missed.
func (f *feed) discard(n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.lost += int64(n)
}

// emitter tells the subscribers of a configuration what happens at a gateway, in a
// goroutine of its own: handlers of events may block.
type emitter struct {
	app    *App
	ctx    caddy.Context // names Events
	name   string        // the gateway's
	feed   *feed
	events <-chan gateway.Event
	done   chan struct{} // closed when the goroutine has ended

	mu   sync.Mutex
	stop chan struct{} // closed when no more is to be taken
	left bool          // guarded by mu; the feed is others', or nobody's
	last bool          // written before stop is closed: what waits is still to be emitted

	// used by the goroutine only
	reported   int64     // of the feed's missed events
	reportedAt time.Time // zero before the first report
}

// startEvents begins to emit events if somebody would see them.
func (a *App) startEvents(shares map[string]*share) {
	if !a.events.ShouldEmit(EventConnected) && !a.events.ShouldEmit(EventClosed) {
		return
	}
	ctx, err := a.originate()
	if err != nil {
		a.log.Error("no events are emitted", "error", err)
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for name, s := range shares {
		e := &emitter{
			app: a, ctx: ctx, name: name, feed: s.feed, events: s.feed.join(),
			done: make(chan struct{}), stop: make(chan struct{}), reported: s.feed.missed(),
		}
		a.emitters = append(a.emitters, e)
		go e.run()
	}
}

// yieldEvents leaves the events to a newer configuration where one takes them.
func (a *App) yieldEvents() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, e := range a.emitters {
		e.end(e.feed.leaveIfShared)
	}
}

// stopEvents waits until everything that has happened has been emitted, or ctx is
// done.
func (a *App) stopEvents(ctx context.Context) error {
	var errs []error
	for _, e := range a.takeEmitters() {
		e.end(func() bool {
			e.last = e.feed.leave()
			return true
		})
		select {
		case <-e.done:
			continue
		default:
		}
		select {
		case <-e.done:
		case <-ctx.Done():
			errs = append(errs, fmt.Errorf("gateway %q: a handler of %s or %s has not returned", e.name, EventConnected, EventClosed))
		}
	}
	return errors.Join(errs...)
}

// takeEmitters returns the emitters to who waits for them, once.
func (a *App) takeEmitters() []*emitter {
	a.mu.Lock()
	defer a.mu.Unlock()
	taken := a.emitters
	a.emitters = nil
	return taken
}

// end lets the goroutine end if leave, which is asked once, says so.
func (e *emitter) end(leave func() bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.left && leave() {
		e.left = true
		close(e.stop)
	}
}

// run is the goroutine.
func (e *emitter) run() {
	defer close(e.done)
	for {
		select {
		case event := <-e.events:
			e.emit(event)
		case <-e.stop:
			if e.last {
				e.rest()
			}
			e.report(true)
			return
		}
	}
}

// rest emits what waits when nobody else is there to do so.
func (e *emitter) rest() {
	for len(e.events) > 0 {
		if e.ctx.Err() != nil { // handlers are not called any more
			e.feed.discard(len(e.events))
			return
		}
		e.emit(<-e.events)
	}
}

// emit calls the handlers, and waits for them.
func (e *emitter) emit(event gateway.Event) {
	defer func() {
		if p := recover(); p != nil {
			e.app.log.Error("panic in a handler of an event", "event_type", string(event.Type), "client", event.Client,
				"panic", fmt.Sprint(p), "stack", string(debug.Stack()))
		}
		e.report(false)
	}()
	data := map[string]any{
		"gateway": e.name, "endpoint": event.Endpoint,
		"client": event.Client, "client_ip": event.RealIP, "user": event.User,
	}
	name := EventConnected
	if event.Type == gateway.EventClose {
		name = EventClosed
		maps.Copy(data, map[string]any{"code": event.Code, "reason": event.Reason, "by_peer": event.ByPeer})
	}
	e.app.events.Emit(e.ctx, name, data)
}

// report logs that events were missed, not more than once a minute unless it is the
// last time.
func (e *emitter) report(last bool) {
	missed := e.feed.missed()
	if missed == e.reported || !last && time.Since(e.reportedAt) < time.Minute {
		return
	}
	e.app.log.Warn("events were missed: their handlers take too long", "gateway", e.name, "missed", missed-e.reported)
	e.reported, e.reportedAt = missed, time.Now()
}
