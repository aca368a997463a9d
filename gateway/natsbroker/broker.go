package natsbroker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/caddy-websocket/caddy-websocket/gateway"
)

// ErrClosed is returned by a broker that is closed.
var ErrClosed = errors.New("natsbroker: the broker is closed")

// errNotYet is why a broker is down that has not tried all servers.
var errNotYet = errors.New("natsbroker: not connected yet")

// Broker is a gateway.Broker over one connection to a NATS server, which its links
// share. Lost, it is made again, to any of the servers, until the broker is closed.
type Broker struct {
	options Options
	log     *limitedLog
	maxSize atomic.Int64 // of the last session
	closing context.Context
	cancel  context.CancelFunc
	once    sync.Once
	tasks   sync.WaitGroup // all goroutines

	mu      sync.Mutex
	closed  bool                          // guarded by mu
	session *session                      // guarded by mu; nil while down
	why     error                         // guarded by mu; of the last session or attempts
	refused bool                          // guarded by mu; by all servers, since the last session
	changed chan struct{}                 // guarded by mu; closed at the next change
	links   map[*link]struct{}            // guarded by mu
	rooms   map[string]map[*link]struct{} // guarded by mu; links by gateway
	servers []server                      // guarded by mu; those given, and those heard of
}

// New checks the options and begins to connect, which it does not wait for. An error
// names the option, what is wrong with it and what is allowed.
func New(o Options) (*Broker, error) {
	o, err := o.check()
	if err != nil {
		return nil, fmt.Errorf("natsbroker: %w", err)
	}
	b := &Broker{
		options: o,
		log:     newLimitedLog(o.Logger),
		why:     errNotYet,
		changed: make(chan struct{}),
		links:   make(map[*link]struct{}),
		rooms:   make(map[string]map[*link]struct{}),
	}
	const natsDefault = 1 << 20
	b.maxSize.Store(natsDefault)
	for _, u := range o.URLs {
		b.servers = append(b.servers, server{url: u})
	}
	b.closing, b.cancel = context.WithCancel(context.Background())
	b.tasks.Go(b.run)
	return b, nil
}

// Connect waits until the broker is connected, and nodes of these gateways may use
// their subjects. An error says why not: when ctx ends, as soon as all servers were
// reached and have refused, for example the password, or, with ErrRefused, when the
// permissions are others. The broker goes on trying in each case.
func (b *Broker) Connect(ctx context.Context, gateways ...string) error {
	if err := b.connected(ctx); err != nil {
		return err
	}
	for _, name := range gateways {
		err := b.try(ctx, name)
		for errors.Is(err, gateway.ErrLinkDown) {
			if err := b.connected(ctx); err != nil {
				return err
			}
			err = b.try(ctx, name)
		}
		if err != nil {
			return fmt.Errorf("gateway %q: %w", name, err)
		}
	}
	return nil
}

// connected waits until there is a session.
func (b *Broker) connected(ctx context.Context) error {
	for {
		b.mu.Lock()
		closed, up, refused, why, changed := b.closed, b.session != nil, b.refused, b.why, b.changed
		b.mu.Unlock()
		switch {
		case closed:
			return ErrClosed
		case up:
			return nil
		case refused:
			return fmt.Errorf("natsbroker: connecting: %w", why)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("natsbroker: connecting: %w, %w", context.Cause(ctx), why)
		}
	}
}

// Attach is of gateway.Broker. Its error is ErrClosed.
func (b *Broker) Attach(gatewayName, _ string, to gateway.Receiver) (gateway.Link, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return nil, ErrClosed
	}
	l := newLink(b, gatewayName, to)
	b.links[l] = struct{}{}
	if b.rooms[gatewayName] == nil {
		b.rooms[gatewayName] = make(map[*link]struct{})
	}
	b.rooms[gatewayName][l] = struct{}{}
	l.attach(b.session, b.why)
	return l, nil
}

// forget takes a closed link out.
func (b *Broker) forget(l *link) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.links, l)
	delete(b.rooms[l.gateway], l)
	if len(b.rooms[l.gateway]) == 0 {
		delete(b.rooms, l.gateway)
	}
}

// neighbours returns the other links of a link's gateway. The server does not send
// back on a connection what was published on it, which spares each node its own
// broadcasts: what passes between links that share one is passed on here.
func (b *Broker) neighbours(l *link) []*link {
	b.mu.Lock()
	defer b.mu.Unlock()
	room := b.rooms[l.gateway]
	if len(room) < 2 {
		return nil
	}
	others := make([]*link, 0, len(room)-1)
	for other := range room {
		if other != l {
			others = append(others, other)
		}
	}
	return others
}

// Close publishes what waits, for a second at most, and ends the links and the
// connection; what a frozen server holds up is cut off after another second. When it
// returns no Receiver is called any more, and no goroutine is left. Further calls wait
// for the same. It must not be called by a Receiver.
func (b *Broker) Close() {
	b.once.Do(func() {
		b.mu.Lock()
		b.closed = true
		b.announce()
		links := b.allLinks()
		b.mu.Unlock()
		var ending sync.WaitGroup
		for _, l := range links {
			ending.Go(func() { l.end(ErrClosed) })
		}
		ending.Wait()
		b.cancel()
	})
	b.tasks.Wait()
}

// announce wakes those who wait for a change. mu is held.
func (b *Broker) announce() {
	close(b.changed)
	b.changed = make(chan struct{})
}

// allLinks is called with mu held.
func (b *Broker) allLinks() []*link {
	links := make([]*link, 0, len(b.links))
	for l := range b.links {
		links = append(links, l)
	}
	return links
}

// run has one session after the other.
func (b *Broker) run() {
	for {
		s := b.connect()
		if s == nil {
			return
		}
		began := time.Now()
		b.log.line(slog.LevelInfo, "connected to NATS", slog.String("server", s.at.url))
		b.begin(s)
		select {
		case <-s.ended:
		case <-b.closing.Done():
			s.close()
			<-s.ended
		}
		b.end(s)
		// A server that accepts and cuts off at once is not hammered.
		if time.Since(began) < b.options.ReconnectWait && !b.pause() {
			return
		}
	}
}

// begin brings the links up.
func (b *Broker) begin(s *session) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.maxSize.Store(int64(s.maxSize))
	b.session, b.refused = s, false
	b.announce()
	for l := range b.links {
		l.begin(s)
	}
}

// end takes the links down.
func (b *Broker) end(s *session) {
	why := s.why()
	b.mu.Lock()
	b.session, b.why = nil, why
	b.announce()
	links := b.allLinks()
	closed := b.closed
	b.discover(s)
	b.mu.Unlock()
	if !closed {
		b.log.line(slog.LevelWarn, "connection to NATS lost", slog.Any("error", why))
	}
	for _, l := range links {
		l.lose(s, why)
	}
}

// discover notes the servers that the session's has told of. mu is held.
func (b *Broker) discover(s *session) {
	// What a cluster has once had is not remembered for ever.
	b.servers = slices.DeleteFunc(b.servers, func(old server) bool { return !slices.Contains(b.options.URLs, old.url) })
	for _, raw := range s.nc.DiscoveredServers() {
		known := func(old server) bool { return old.url == raw }
		if found, ok := s.at.discovered(raw); ok && !slices.ContainsFunc(b.servers, known) {
			b.servers = append(b.servers, found)
		}
	}
}

// connect tries the servers until one is connected. It returns nil when the broker is
// closed.
func (b *Broker) connect() *session {
	for {
		b.mu.Lock()
		servers := slices.Clone(b.servers)
		b.mu.Unlock()
		rand.Shuffle(len(servers), func(i, j int) { servers[i], servers[j] = servers[j], servers[i] }) //nolint:gosec // spreads load, no secret
		errs, refused := make([]error, 0, len(servers)), true
		for _, at := range servers {
			s, err := b.dial(b.closing, at)
			switch {
			case b.closing.Err() != nil:
				if err == nil {
					s.close()
					<-s.ended
				}
				return nil
			case err == nil:
				return s
			}
			errs, refused = append(errs, err), refused && isRefusal(err)
		}
		b.failed(errors.Join(errs...), refused)
		if !b.pause() {
			return nil
		}
	}
}

// failed notes that no server could be had.
func (b *Broker) failed(why error, refused bool) {
	b.log.line(slog.LevelError, "connecting to NATS failed, trying on", slog.Any("error", why))
	b.mu.Lock()
	defer b.mu.Unlock()
	b.why, b.refused = why, refused
	b.announce()
	for l := range b.links {
		l.stillDown(why)
	}
}

// pause waits for ReconnectWait and up to half of it more. It returns false when the
// broker is closed.
func (b *Broker) pause() bool {
	wait := b.options.ReconnectWait
	timer := time.NewTimer(wait + rand.N(wait/2+1)) //nolint:gosec // spreads load, no secret
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-b.closing.Done():
		return false
	}
}

// asyncError hears what went wrong without ending the session. It is called by
// nats.go's own goroutine, and must not wait for nats.go.
func (b *Broker) asyncError(s *session, err error) {
	defer s.tell(err)
	switch {
	case errors.Is(err, nats.ErrSlowConsumer):
		b.mu.Lock()
		links := b.allLinks()
		b.mu.Unlock()
		for _, l := range links {
			l.overtaken()
		}
	case errors.Is(err, nats.ErrPermissionViolation):
		b.violated(s, err)
	case errors.Is(err, nats.ErrMaxSubscriptionsExceeded):
		b.log.line(slog.LevelError, "NATS refuses a subject: nodes do not hear each other there", slog.Any("error", err))
	default:
		b.log.line(slog.LevelWarn, "NATS reports an error", slog.Any("error", err))
	}
}
