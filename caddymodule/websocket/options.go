package websocket

import (
	"errors"
	"fmt"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-websocket/caddy-websocket/gateway"
)

// MessageRate is a token bucket.
type MessageRate struct {
	// PerSecond is how many messages a client may send a second in the long run.
	PerSecond float64 `json:"per_second"`

	// Burst is how many it may send at once.
	Burst int `json:"burst"`
}

// SendBuffer is a client's queue.
type SendBuffer struct {
	// Size is how many bytes may wait. Default: 1 MiB, or max_message_size if that is
	// more.
	Size int64 `json:"size,omitempty"`

	// WhenFull is what happens to a message that does not fit: `close` closes the
	// client with 1013, `drop_newest` drops the message, `drop_oldest` what has
	// waited longest. Default: `close`.
	WhenFull string `json:"when_full,omitempty"`
}

// Ping is the protocol's own sign of life.
type Ping struct {
	// Interval is after how much silence a client is pinged. Negative: never.
	// Default: 25s.
	Interval caddy.Duration `json:"interval,omitempty"`

	// Timeout is how long it may then remain silent. Default: 10s.
	Timeout caddy.Duration `json:"timeout,omitempty"`
}

// Heartbeat is a sign of life that a page's own code can see.
type Heartbeat struct {
	// Interval is after how long without a message the text is sent. Pongs do not
	// count.
	Interval caddy.Duration `json:"interval"`

	// Text is what is sent, as it stands.
	Text string `json:"text"`

	// MaxUnanswered is how many of them may be followed by no message.
	MaxUnanswered int `json:"max_unanswered"`
}

// Compression is permessage-deflate without context takeover.
type Compression struct {
	// Level is 1 (fast) to 9 (small).
	Level int `json:"level"`

	// MinSize is how many bytes a message must have to be compressed. Default: 512.
	MinSize int64 `json:"min_size,omitempty"`
}

// checkOptions tells whether the endpoint could be made as far as is known
// without its logic.
func (h *Handler) checkOptions() error {
	o, err := h.options()
	if err == nil {
		_, err = gateway.NewEndpoint(h.key().name, o)
	}
	if cause := errors.Unwrap(err); cause != nil {
		return cause // the line is known, and so the endpoint
	}
	return err
}

// options returns the engine's options, without logic.
func (h *Handler) options() (gateway.EndpointOptions, error) {
	o := gateway.EndpointOptions{
		Forwarding:      h.ReverseProxyRaw != nil,
		Logger:          h.log,
		Origins:         h.Origins,
		Subprotocols:    h.Subprotocols,
		MaxMessageSize:  h.MaxMessageSize,
		MaxClients:      h.MaxClients,
		MaxClientsPerIP: h.MaxClientsPerIP,
		WriteTimeout:    time.Duration(h.WriteTimeout),
		IdleTimeout:     time.Duration(h.IdleTimeout),
	}
	if r := h.MessageRate; r != nil {
		o.MessageRate = gateway.Rate{PerSecond: r.PerSecond, Burst: r.Burst}
	}
	if p := h.Ping; p != nil {
		o.PingInterval, o.PingTimeout = time.Duration(p.Interval), time.Duration(p.Timeout)
	}
	if b := h.Heartbeat; b != nil {
		o.Heartbeat = gateway.Heartbeat{Interval: time.Duration(b.Interval), Text: b.Text, MaxUnanswered: b.MaxUnanswered}
	}
	if c := h.Compression; c != nil {
		o.Compression = gateway.Compression{Level: c.Level, MinSize: c.MinSize}
	}
	if b := h.SendBuffer; b != nil {
		policy, err := parsePolicy(b.WhenFull)
		if err != nil {
			return o, err
		}
		o.SendBuffer, o.WhenFull = b.Size, policy
	}
	return o, nil
}

// parsePolicy returns the queue policy of this name; "" is the default.
func parsePolicy(name string) (gateway.QueuePolicy, error) {
	for _, p := range []gateway.QueuePolicy{gateway.CloseWhenFull, gateway.DropNewest, gateway.DropOldest} {
		if name == p.String() {
			return p, nil
		}
	}
	if name == "" {
		return gateway.CloseWhenFull, nil
	}
	return 0, fmt.Errorf("%q for a full send buffer: allowed are %s, %s, %s",
		name, gateway.CloseWhenFull, gateway.DropNewest, gateway.DropOldest)
}
