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
	name  atomic.Pointer[string] // nil while none runs
	since atomic.Int64
}

var callbackConnect, callbackMessage, callbackClose = "OnConnect", "OnMessage", "OnClose"

// errPanic stands for a panic in a callback, which is logged where it happened.
var errPanic = errors.New("panic in the logic")

// running returns the callback that is running and for how long, or "".
func (c *Client) running() (callback string, d time.Duration) {
	name := c.call.name.Load()
	if name == nil {
		return "", 0
	}
	return *name, time.Duration(c.now() - c.call.since.Load())
}

// enter begins a callback and returns the endpoint whose logic is to be called.
// Until exit the endpoint's generation counts as busy: inside is set before the
// slot is looked at again, so whoever replaces the endpoint sees one or the
// other.
func (c *Client) enter(name *string) *Endpoint {
	c.call.since.Store(c.now())
	c.call.name.Store(name)
	for {
		e := c.slot.current.Load()
		c.inside.Store(e)
		if c.slot.current.Load() == e {
			return e
		}
	}
}

// exit ends a callback, and turns a panic of it into errPanic.
func (c *Client) exit(e *Endpoint, err *error) {
	if p := recover(); p != nil {
		e.log().Error("panic in the logic", "callback", *c.call.name.Load(),
			"client", c.id, "client_ip", c.ip, "endpoint", e.name, "user", c.User(),
			"panic", fmt.Sprint(p), "stack", string(debug.Stack()))
		*err = errPanic
	}
	c.call.name.Store(nil)
	c.inside.Store(nil)
}

func (c *Client) onConnect(r *http.Request) (err error) {
	e := c.enter(&callbackConnect)
	defer c.exit(e, &err)
	if e.o.Logic == nil {
		return nil
	}
	return e.o.Logic.OnConnect(c, r)
}

func (c *Client) onMessage(m Message) (err error) {
	e := c.enter(&callbackMessage)
	defer c.exit(e, &err)
	if e.o.Logic == nil {
		return nil
	}
	return e.o.Logic.OnMessage(c, m)
}

func (c *Client) onClose(reason CloseReason) {
	var err error // a panic is logged, and there is nothing left to close
	e := c.enter(&callbackClose)
	defer c.exit(e, &err)
	if e.o.Logic != nil {
		e.o.Logic.OnClose(c, reason)
	}
}

// failed closes the client for what OnMessage returned. That a message could not
// be queued for somebody is no failure of the logic: the policy has decided.
func (c *Client) failed(err error) {
	if errors.Is(err, ErrClosed) || errors.Is(err, ErrQueueFull) || errors.Is(err, ErrForwarded) {
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
		c.slot.current.Load().log().Error("logic failed", "callback", callbackMessage,
			"client", c.id, "client_ip", c.ip, "endpoint", c.slot.name, "user", c.User(), "error", err)
	}
	c.close(CloseReason{Code: CloseInternalError, Reason: "logic failed"}, false)
}
