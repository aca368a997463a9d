package gateway

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"
)

// alone tells whether there is nobody to tell anything: no broker, or no other node on
// one that can be reached.
func (c *cluster) alone() bool {
	a := c.current.Load()
	return a == nil || a.up() && c.others.Load() == 0
}

// publish sends a message on each of the subjects. The error wraps ErrLocalOnly.
func (c *cluster) publish(kind envelopeKind, body []byte, subjects ...string) error {
	c.sending.Lock()
	defer c.sending.Unlock()
	a := c.current.Load()
	if a == nil {
		return fmt.Errorf("%w: %w", ErrLocalOnly, ErrLinkDown)
	}
	var failed error
	for _, subject := range subjects {
		if err := c.publishOn(a.link, subject, kind, body); err != nil && failed == nil {
			failed = err
		}
	}
	if failed != nil {
		c.reportUnsent(failed)
		return fmt.Errorf("%w: %w", ErrLocalOnly, failed)
	}
	return nil
}

// publishOn publishes a message, in parts if it is long. The caller holds sending.
func (c *cluster) publishOn(l Link, subject string, kind envelopeKind, body []byte) (err error) {
	defer func() {
		switch {
		case err == nil:
			c.published.Add(1)
		case kind == kindHello && errors.Is(err, ErrLinkDown):
			// Nobody misses it: Up greets. A link may say that it is down just after it was made.
		default:
			c.unsent.Add(1)
		}
	}()
	size := l.MaxSize()
	if maxHeader+len(body) <= size {
		c.number++
		c.buf = appendHeader(c.buf[:0], kind, c.s.node, c.number)
		c.buf = append(c.buf, body...)
		return l.Publish(subject, c.buf)
	}
	if len(body) >= maxAssembled {
		return fmt.Errorf("%d bytes: allowed are %d", len(body), maxAssembled-1)
	}
	whole := append([]byte{byte(kind)}, body...)
	parts := cut(whole, size)
	for i, chunk := range parts {
		c.number++
		c.buf = appendHeader(c.buf[:0], kindPart, c.s.node, c.number)
		c.buf = appendPart(c.buf, i, len(parts), chunk)
		if err := l.Publish(subject, c.buf); err != nil {
			return err
		}
	}
	return nil
}

// reportUnsent says that more is to be sent than the broker takes, once in a while. That it
// cannot be reached is said by Down.
func (c *cluster) reportUnsent(err error) {
	if errors.Is(err, ErrLinkDown) {
		return
	}
	const often = 10 * time.Second
	now, last := c.s.now(), c.full.Load()
	if last != 0 && time.Duration(now-last) < often || !c.full.CompareAndSwap(last, now) {
		return
	}
	c.s.log.Load().Warn("messages to other nodes are not sent", "error", err, "unsent", c.unsent.Load())
}

// tell publishes what nobody waits for the result of.
func (c *cluster) tell(kind envelopeKind, body []byte, subject string) {
	_ = c.publish(kind, body, subject) // it is counted
}

// greeting is what a node says of itself.
type greeting struct {
	Host     string `json:"host,omitempty"`
	Clients  int    `json:"clients"`
	Draining bool   `json:"draining,omitempty"`
	Ask      bool   `json:"ask,omitempty"` // whoever hears it is to greet back
}

var machineName = sync.OnceValue(func() string {
	name, _ := os.Hostname() // it is for people to read
	return name
})

// greeting returns the body of a greeting. It is never nil.
func (c *cluster) greeting(ask bool) []byte {
	body, err := json.Marshal(greeting{Host: machineName(), Clients: c.s.registry.clients.size(), Draining: c.s.unwilling(), Ask: ask})
	if err != nil {
		return []byte("{}") // cannot happen
	}
	return body
}

func (c *cluster) greet(ask bool, subject string) { c.tell(kindHello, c.greeting(ask), subject) }
