package natsbroker

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
)

// minMaxSize is what gateway.Link.MaxSize owes, in bytes.
const minMaxSize = 4 << 10

var errTooSmall = fmt.Errorf("the server's max_payload is too small: at least %d bytes are needed", minMaxSize)

// server is where a session can be had.
type server struct {
	url  string
	name string // what its certificate must be for; "" is the URL's host
}

// session is one connection to one server. nats.go would reconnect by itself, but gives
// up for good after an error of the server's that it does not know, tells of a
// reconnection before and after what came on the new one, and writes each of thousands
// of subscriptions by itself: so each connection is a value of its own, and the Broker
// makes the next.
type session struct {
	at      server
	nc      *nats.Conn
	dialer  *dialer
	maxSize int
	ended   chan struct{} // closed when nats.go delivers nothing more

	mu      sync.Mutex
	told    error         // guarded by mu; of the server, the last that asyncError heard
	more    chan struct{} // guarded by mu; closed when there is another
	useless error         // guarded by mu; why it was given up
}

// dial connects to a server. It takes ConnectTimeout, or until ctx ends.
func (b *Broker) dial(ctx context.Context, at server) (*session, error) {
	o := &b.options
	s := &session{at: at, ended: make(chan struct{}), more: make(chan struct{}), dialer: &dialer{ctx: ctx, timeout: o.ConnectTimeout}}
	n := nats.Options{
		Url:                     at.url,
		Name:                    o.Name,
		NoEcho:                  true,
		Timeout:                 o.ConnectTimeout,
		PingInterval:            o.PingInterval,
		MaxPingsOut:             2,
		FlusherTimeout:          2 * o.PingInterval,
		ReconnectOnFlusherError: true, // which ends the session, since there is no reconnecting
		CustomDialer:            s.dialer,
		SkipHostLookup:          true, // the dialer's looking up can be called off
		ClosedCB:                func(*nats.Conn) { close(s.ended) },
		AsyncErrorCB:            func(_ *nats.Conn, _ *nats.Subscription, err error) { b.asyncError(s, err) },
	}
	err := errors.Join(o.authenticate(&n), o.secure(&n, at))
	if err == nil {
		s.nc, err = n.Connect()
	}
	if err == nil {
		s.maxSize = int(s.nc.MaxPayload())
		if s.maxSize < minMaxSize {
			err = fmt.Errorf("%w, it is %d", errTooSmall, s.maxSize)
			s.nc.Close()
		}
	}
	if alive := s.dialer.dialed(); err == nil && !alive {
		err = context.Cause(ctx)
		s.nc.Close()
	}
	if errors.Is(err, nats.ErrNoServers) && s.dialer.failed() != nil {
		err = s.dialer.failed()
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", at.url, explain(err))
	}
	return s, nil
}

// close ends the session after what was written has gone out, or after a second.
func (s *session) close() {
	const patience = time.Second
	timer := time.AfterFunc(patience, s.abort)
	defer timer.Stop()
	s.nc.Close()
}

// abort ends the session at once, also if a write is under way. It does not wait.
func (s *session) abort() { s.dialer.abort() }

// why says what ended the session.
func (s *session) why() error {
	s.mu.Lock()
	useless := s.useless
	s.mu.Unlock()
	if useless != nil {
		return useless
	}
	if err := s.nc.LastError(); err != nil {
		return fmt.Errorf("connection to %s lost: %w", s.at.url, err)
	}
	return fmt.Errorf("connection to %s lost", s.at.url)
}

// dialer makes a session's connection, and holds it, so that it can be cut: nats.go
// waits for a write that is under way before it closes one.
type dialer struct {
	ctx     context.Context // nats.CustomDialer has none
	timeout time.Duration

	mu   sync.Mutex
	conn net.Conn    // guarded by mu
	stop func() bool // guarded by mu
	err  error       // guarded by mu
}

// Dial is of nats.CustomDialer.
func (d *dialer) Dial(network, address string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(d.ctx, d.timeout)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, network, address)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.conn, d.err = conn, err
	if err == nil {
		// The handshake that follows ends with ctx, too.
		d.stop = context.AfterFunc(d.ctx, func() { conn.Close() })
	}
	return conn, err
}

// dialed makes the connection outlive ctx, unless that has ended.
func (d *dialer) dialed() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.stop != nil && d.stop()
}

func (d *dialer) failed() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.err
}

func (d *dialer) abort() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.conn != nil {
		d.conn.Close()
	}
}
