package gateway

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Defaults of Options.
const (
	DefaultName         = "default"
	DefaultCloseRate    = 2000
	DefaultDrainTimeout = 4 * time.Second
)

// Options are the settings of a gateway. The zero value works.
type Options struct {
	// Name tells gateways of one process apart. Empty means "default".
	Name string

	// Logger takes what the gateway has to say that belongs to no endpoint. Nil
	// discards it.
	Logger *slog.Logger

	// CloseRate is how many clients are closed a second when many have to go: at
	// a shutdown, or when their endpoint was removed. They come back, and should
	// not all do so at once. Zero means 2000; negative is an error.
	CloseRate int

	// Broker connects the gateway with those of the same name in other processes: they are
	// nodes of one, and commands and questions are for the clients of all. It is attached
	// when the first generation is committed. Nil: this node is alone.
	Broker Broker

	// DrainTimeout is how long a shutdown takes at most: with many clients it
	// raises CloseRate so far that all can go in time. Zero means 4s; negative
	// is an error.
	DrainTimeout time.Duration
}

func (o Options) withDefaults() (Options, error) {
	if o.Name == "" {
		o.Name = DefaultName
	}
	if err := checkName("gateway", o.Name); err != nil {
		return o, err
	}
	if o.CloseRate < 0 {
		return o, fmt.Errorf("gateway %q: close rate %d: allowed are 1 and more, or 0 for %d", o.Name, o.CloseRate, DefaultCloseRate)
	}
	if o.DrainTimeout < 0 {
		return o, fmt.Errorf("gateway %q: drain timeout %s: allowed are positive durations, or 0 for %s", o.Name, o.DrainTimeout, DefaultDrainTimeout)
	}
	if o.CloseRate == 0 {
		o.CloseRate = DefaultCloseRate
	}
	if o.DrainTimeout == 0 {
		o.DrainTimeout = DefaultDrainTimeout
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o, nil
}

// Gateway is the registry of the live clients of one process, and delivery to
// them. It outlives configurations: what is served at a time is a Generation.
//
// All methods are safe for concurrent use. A Gateway is a handle: the one that
// OnStart and Client.Gateway give reaches the same clients, but what its Go and
// Every start ends with the generation that it belongs to.
//
// Shutdown ends it and waits until every goroutine that it started has returned.
type Gateway struct {
	*shared
	tasks *tasks
}

// shared is what all handles of a gateway have in common.
type shared struct {
	name      string
	node      string // names this process in client ids
	epoch     time.Time
	began     time.Time
	cluster   *cluster
	registry  *registry
	writers   writers
	attendant attendant
	log       atomic.Pointer[slog.Logger] // the current generation's

	// ctx is what clients' contexts derive from.
	ctx    context.Context
	cancel context.CancelFunc

	// overdue is done when the time of a shutdown is over: handshakes that nobody
	// has answered are given up then.
	overdue context.Context
	giveUp  context.CancelFunc

	// conns counts handshakes and clients; it is added to under mu, while
	// stopping is open.
	conns sync.WaitGroup
	// helpers counts goroutines of the gateway's own: they end by themselves
	// once the clients are gone and ctx is done.
	helpers sync.WaitGroup

	mu      sync.Mutex
	slots   map[string]*slot // guarded by mu
	living  []*Generation    // guarded by mu; prepared and not closed, oldest first
	current *Generation      // guarded by mu; nil before the first commit
	served  *Generation      // guarded by mu; the one that Serve made
	options Options          // guarded by mu; of the current generation

	// evicting has one place: two evictions at once would close twice as many
	// clients a second as CloseRate says.
	evicting chan struct{}

	// commit serializes commits, which call logic and so cannot hold mu.
	commit sync.Mutex

	watchers   atomic.Pointer[[]*Watcher]  // nil while there are none
	evacuating atomic.Pointer[CloseReason] // what Drain tells clients; nil otherwise
	sweepLag   atomic.Int64                // nanoseconds from when the last sweep was due to its end

	shutdown atomic.Bool   // Shutdown was called
	stopping chan struct{} // closed under mu when Shutdown begins
	drained  chan struct{} // closed when Shutdown is through
	drainErr error         // written before drained is closed
}

// New returns a gateway without endpoints. Serve or Prepare gives it some.
func New(o Options) (*Gateway, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	overdue, giveUp := context.WithCancel(ctx)
	s := &shared{
		overdue: overdue, giveUp: giveUp,
		name:     o.Name,
		node:     strings.ToLower(rand.Text()[:nodeLength]),
		began:    time.Now(),
		epoch:    time.Now().Add(-time.Second), // so that now is never 0
		registry: newRegistry(),
		ctx:      ctx,
		cancel:   cancel,
		slots:    make(map[string]*slot),
		options:  o,
		evicting: make(chan struct{}, 1),
		stopping: make(chan struct{}),
		drained:  make(chan struct{}),
	}
	s.cluster = newCluster(s)
	s.registry.users.interest, s.registry.groups.interest = &s.cluster.users, &s.cluster.groups
	s.log.Store(o.Logger)
	s.writers.shared, s.writers.most = s, runtime.GOMAXPROCS(0)
	s.helper("sweeper", s.sweep)
	return &Gateway{shared: s, tasks: newTasks(ctx, o.Logger)}, nil
}

// Name returns the gateway's name.
func (g *Gateway) Name() string { return g.name }

// Node returns the id of this process, which begins the ids of its clients. It
// is random: a restarted process is another node.
func (g *Gateway) Node() string { return g.node }

// Serve puts endpoints in force in place of those of the last Serve: the short
// way for programs that do not prepare and commit generations. Clients of
// endpoints that are no longer there are closed with 1001. The error is that of
// an OnStart, whose endpoint then refuses handshakes, or says why nothing was
// changed.
func (g *Gateway) Serve(endpoints ...*Endpoint) error {
	g.mu.Lock()
	o := g.options
	g.mu.Unlock()
	gen, err := g.Prepare(o)
	if err != nil {
		return err
	}
	for _, e := range endpoints {
		if err := gen.Add(e); err != nil {
			gen.Close()
			return err
		}
	}
	startErr := gen.Commit()
	g.mu.Lock()
	old := g.served
	g.served = gen
	g.mu.Unlock()
	if old != nil {
		ctx, cancel := context.WithTimeout(g.ctx, o.DrainTimeout)
		defer cancel()
		startErr = errors.Join(startErr, old.Stop(ctx))
		old.Close()
	}
	return startErr
}

// draining tells whether Shutdown has begun.
func (s *shared) draining() bool {
	select {
	case <-s.stopping:
		return true
	default:
		return false
	}
}

// now returns monotonic nanoseconds that are never 0.
func (s *shared) now() int64 { return int64(time.Since(s.epoch)) }

// helper runs f in a goroutine that Shutdown waits for.
func (s *shared) helper(name string, f func()) {
	s.helpers.Go(func() {
		defer s.recovered(name)
		f()
	})
}

// recovered is deferred at the top of every goroutine of ours: a panic there
// would end the whole process.
func (s *shared) recovered(name string) {
	if p := recover(); p != nil {
		s.log.Load().Error("panic in the gateway", "goroutine", name, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
	}
}
