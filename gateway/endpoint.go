package gateway

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"runtime/debug"
	"sync/atomic"
	"time"
	"unicode/utf8"
)

// Defaults of EndpointOptions.
const (
	DefaultMaxMessageSize = 1 << 20
	DefaultSendBuffer     = 1 << 20
	DefaultWriteTimeout   = 10 * time.Second
	DefaultPingInterval   = 25 * time.Second
	DefaultPingTimeout    = 10 * time.Second
)

// EndpointOptions are the handshake rules, limits and logic of an endpoint. The
// zero value works: it counts messages and drops them, and its clients can be
// sent to.
//
// Time-outs are checked once a second, so they take effect up to a second later.
type EndpointOptions struct {
	// Logic is the message logic. Nil counts messages and drops them.
	Logic Logic

	// Forwarding is set for an endpoint whose handshakes a backend answers: they go
	// to Forward, and to Upgrade without it. Clients of the other kind, from an
	// earlier generation, are closed with 1012. Logic must then be nil.
	Forwarding bool

	// Logger takes the endpoint's log lines, among them one at INFO when a client
	// connects and one when it is gone. Nil discards them.
	Logger *slog.Logger

	// Origins says which web pages may connect, by the Origin header that
	// browsers send (RFC 6455 section 10.2). Entries are origins like
	// "https://example.com" or "https://*.example.com:8443" (any number of labels
	// below), "*" for any, "null" for the opaque origin of sandboxed pages and
	// files, and "require" to refuse requests without Origin, which programs that
	// are not browsers may leave out. Empty, or only "require", means the origin's
	// host must be the request's, on any port, by http or https.
	Origins []string

	// Subprotocols are those that the server speaks, in its order of preference.
	// The first that the client offers is answered; none shared, none answered.
	Subprotocols []string

	// MaxMessageSize is how many bytes a message may have, all its fragments
	// together. A larger one closes the client with 1009. Zero means 1 MiB;
	// negative is an error.
	MaxMessageSize int64

	// MaxClients is how many clients the endpoint may have; more get 503. Zero
	// means no limit; negative is an error.
	MaxClients int

	// MaxClientsPerIP is how many of them may have the same real IP, where IPv6
	// addresses count as the same within a /64; more get 429. Zero means no
	// limit; negative is an error. Clients whose IP is not known are not limited.
	MaxClientsPerIP int

	// MessageRate bounds what one client may send. More closes it with 1008.
	// The zero value means no limit.
	MessageRate Rate

	// SendBuffer is how many bytes may wait for one client. When it is full,
	// WhenFull decides. A message of exactly so many bytes fits. Zero means 1 MiB,
	// or MaxMessageSize if that is more; negative is an error.
	SendBuffer int64

	// WhenFull decides about a message that finds the send buffer full.
	WhenFull QueuePolicy

	// WriteTimeout is how long a client may take in nothing of what is being
	// written to it, and how long it may take to answer a close frame, before its
	// connection is cut. Zero means 10 s; negative is an error.
	WriteTimeout time.Duration

	// PingInterval is after how much silence a client is pinged, PingTimeout how
	// long it may then remain silent before its connection is cut. Anything it
	// sends breaks the silence. While a callback runs, the gateway does not read
	// and the time does not count. Zero means 25 s and 10 s. A negative interval
	// turns pings off; a negative time-out is an error.
	PingInterval time.Duration
	PingTimeout  time.Duration

	// Heartbeat is for clients that answer text of the application's, but hide
	// pings from their code: browsers. The zero value sends none.
	Heartbeat Heartbeat

	// IdleTimeout closes a client with 1001 that has sent no message for so long;
	// pongs do not count. Zero means never; negative is an error.
	IdleTimeout time.Duration

	// Compression offers permessage-deflate to clients that ask for it. The zero
	// value does not.
	Compression Compression
}

// Rate is a token bucket: PerSecond messages in the long run, Burst at once.
// Control frames count as messages.
type Rate struct {
	PerSecond float64
	Burst     int
}

// Heartbeat sends Text as a text message when the client has sent no message for
// Interval, again after as long, and cuts the connection when MaxUnanswered of
// them have been followed by no message. Pongs do not count.
type Heartbeat struct {
	Interval      time.Duration
	Text          string
	MaxUnanswered int
}

// Endpoint is handshake rules, limits and logic under one name. It is an
// http.Handler; where somebody else knows the client's real address, use
// Upgrade.
type Endpoint struct {
	name    string
	o       EndpointOptions
	origins originRules

	// gen and slot are set when the endpoint is added to a generation; added is set
	// after them.
	gen   *Generation
	slot  *slot
	added atomic.Bool

	// failed is OnStart's error; written before the generation is ready.
	failed error
}

// NewEndpoint returns an endpoint that serves nobody until the generation that
// it is added to is committed, or until Gateway.Serve. The error names the
// option that is wrong and what is allowed.
func NewEndpoint(name string, o EndpointOptions) (*Endpoint, error) {
	e := &Endpoint{name: name, o: o}
	if err := e.normalize(); err != nil {
		return nil, fmt.Errorf("endpoint %q: %w", name, err)
	}
	return e, nil
}

// Name returns the endpoint's name.
func (e *Endpoint) Name() string { return e.name }

func (e *Endpoint) normalize() error {
	o := &e.o
	if err := checkName("endpoint", e.name); err != nil {
		return err
	}
	for _, n := range []struct {
		what  string
		value *int64
		def   int64
	}{
		{"max message size", &o.MaxMessageSize, DefaultMaxMessageSize},
		{"send buffer", &o.SendBuffer, 0},
		{"write timeout", (*int64)(&o.WriteTimeout), int64(DefaultWriteTimeout)},
		{"ping timeout", (*int64)(&o.PingTimeout), int64(DefaultPingTimeout)},
		{"idle timeout", (*int64)(&o.IdleTimeout), 0},
	} {
		if *n.value < 0 {
			return fmt.Errorf("%s is negative: allowed are positive values, or 0 for the default", n.what)
		}
		if *n.value == 0 {
			*n.value = n.def
		}
	}
	if o.SendBuffer == 0 { // what came in can be sent back
		o.SendBuffer = max(DefaultSendBuffer, o.MaxMessageSize)
	}
	if o.SendBuffer > math.MaxInt64-maxServerHeader {
		return fmt.Errorf("send buffer of %d bytes: allowed are less", o.SendBuffer)
	}
	if o.PingInterval == 0 {
		o.PingInterval = DefaultPingInterval
	}
	if o.Forwarding && o.Logic != nil {
		return errors.New("an endpoint that forwards has no logic")
	}
	if o.MaxClients < 0 || o.MaxClientsPerIP < 0 {
		return errors.New("max clients is negative: allowed are positive values, or 0 for no limit")
	}
	if o.WhenFull > DropOldest {
		return fmt.Errorf("%s for a full send buffer: allowed are %s, %s, %s", o.WhenFull, CloseWhenFull, DropNewest, DropOldest)
	}
	if r := o.MessageRate; r != (Rate{}) && (r.PerSecond <= 0 || r.Burst < 1) {
		return fmt.Errorf("message rate of %g a second with a burst of %d: both must be positive", r.PerSecond, r.Burst)
	}
	if err := checkHeartbeat(o.Heartbeat); err != nil {
		return err
	}
	var err error
	if o.Compression, err = o.Compression.withDefaults(); err != nil {
		return err
	}
	for _, p := range o.Subprotocols {
		if !isToken(p) {
			return fmt.Errorf("subprotocol %q: not a token of RFC 9110 (letters, digits, !#$%%&'*+-.^_`|~)", p)
		}
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	e.origins, err = parseOrigins(o.Origins)
	return err
}

func checkHeartbeat(h Heartbeat) error {
	switch {
	case h == (Heartbeat{}):
		return nil
	case h.Interval <= 0 || h.MaxUnanswered < 1:
		return fmt.Errorf("heartbeat every %s, %d unanswered: both must be positive", h.Interval, h.MaxUnanswered)
	case !utf8.ValidString(h.Text):
		return fmt.Errorf("heartbeat text: %w", ErrNotUTF8)
	}
	return nil
}

// start calls the optional interfaces of the logic. A panic there is an error.
func (e *Endpoint) start(g *Gateway) (err error) {
	defer func() {
		if p := recover(); p != nil {
			e.log().Error("panic in the logic", "callback", "OnStart", "endpoint", e.name, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	if l, ok := e.o.Logic.(Inheritor); ok {
		if old := e.slot.current.Load(); old != nil && old.o.Logic != nil {
			l.Inherit(old.o.Logic)
		}
	}
	if l, ok := e.o.Logic.(Starter); ok {
		return l.OnStart(g)
	}
	return nil
}

func (e *Endpoint) log() *slog.Logger { return e.o.Logger }
