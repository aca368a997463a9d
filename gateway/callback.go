package gateway

import (
	"errors"
	"fmt"
	"net/http"
	"runtime/debug"
	"sync/atomic"
	"time"
)

// callState says which callback of a client runs, for reports on those that do
// not return.
type callState struct {
	kind  atomic.Int32 // 1 more than a callback, 0 while none runs
	since atomic.Int64
}

// callback is one of Logic's methods.
type callback int32

const (
	callbackConnect callback = iota
	callbackMessage
	callbackClose
	callbackKinds
)

var callbackNames = [callbackKinds]string{"OnConnect", "OnMessage", "OnClose"}

func (k callback) String() string { return callbackNames[k] }

// errPanic stands for a panic in a callback, which is logged where it happened.
var errPanic = errors.New("panic in the logic")

// running returns the callback that is running and for how long, or "".
func (c *Client) running() (name string, d time.Duration) {
	kind := c.call.kind.Load()
	if kind == 0 {
		return "", 0
	}
	return callback(kind - 1).String(), time.Duration(c.now() - c.call.since.Load())
}

// enter begins a callback and returns the endpoint whose logic is to be called.
// Until exit the endpoint's generation counts as busy: inside is set before the
// slot is looked at again, so whoever replaces the endpoint sees one or the
// other.
func (c *Client) enter(kind callback) *Endpoint {
	c.call.since.Store(c.now())
	c.call.kind.Store(int32(kind) + 1)
	for {
		e := c.slot.current.Load()
		c.inside.Store(e)
		if c.slot.current.Load() == e {
			return e
		}
	}
}

// exit ends a callback, and turns a panic of it into errPanic. It is deferred, with
// where the error goes, if there is logic that could panic.
func (c *Client) exit(e *Endpoint, err *error) {
	if p := recover(); p != nil {
		e.log().Error("panic in the logic", c.about("callback", callback(c.call.kind.Load()-1).String(),
			"panic", fmt.Sprint(p), "stack", string(debug.Stack()))...)
		*err = errPanic
	}
	kind, now := callback(c.call.kind.Swap(0)-1), c.now()
	c.slot.tally.callbacks[kind].observe(time.Duration(now - c.call.since.Load()))
	if kind == callbackMessage {
		c.lastMessage.Store(now)
	}
	c.inside.Store(nil)
}

// onConnect calls the logic of the endpoint that enter has returned, which has some.
func (c *Client) onConnect(e *Endpoint, r *http.Request) (err error) {
	defer c.exit(e, &err)
	return e.o.Logic.OnConnect(c, r)
}

func (c *Client) onMessage(m Message) (err error) {
	e := c.enter(callbackMessage)
	defer c.exit(e, &err)
	if e.o.Logic == nil {
		return nil
	}
	return e.o.Logic.OnMessage(c, m)
}

func (c *Client) onClose(reason CloseReason) {
	var err error // a panic is logged, and there is nothing left to close
	e := c.enter(callbackClose)
	defer c.exit(e, &err)
	if e.o.Logic != nil {
		e.o.Logic.OnClose(c, reason)
	}
}

// failed closes the client for what OnMessage returned. That a message could not
// be queued for somebody is no failure of the logic: the policy has decided.
func (c *Client) failed(err error) {
	if errors.Is(err, ErrClosed) || errors.Is(err, ErrQueueFull) || errors.Is(err, ErrForwarded) || errors.Is(err, ErrLocalOnly) {
		return
	}
	if asked, ok := errors.AsType[*CloseError](err); ok {
		bad := checkClose(asked.Code, asked.Reason)
		if bad == nil {
			c.close(CloseReason{Code: asked.Code, Reason: asked.Reason}, false)
			return
		}
		err = fmt.Errorf("%w: %w", err, bad)
	}
	if !errors.Is(err, errPanic) {
		c.slot.current.Load().log().Error("logic failed", c.about("callback", callbackMessage.String(), "error", err)...)
	}
	c.close(CloseReason{Code: CloseInternalError, Reason: "logic failed"}, false)
}
