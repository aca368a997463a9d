package httpapi

import (
	"container/list"
	"crypto/sha256"
	"sync"
	"time"
)

// Defaults of ReplayOptions.
const (
	DefaultReplayFor     = 10 * time.Minute
	DefaultReplayAnswers = 100_000
	DefaultReplayBytes   = 64 << 20
)

// ReplayOptions are the settings of a Replay. The zero value works.
type ReplayOptions struct {
	// For is how long an answer is remembered. Zero means 10 minutes.
	For time.Duration

	// MaxAnswers and MaxBytes are how many are remembered, and how much memory they
	// may take: beyond that the oldest are forgotten early. Zero means 100,000 and
	// 64 MiB.
	MaxAnswers int
	MaxBytes   int64
}

// Replay remembers answers by Idempotency-Key, in memory: those of this process. It
// is safe for concurrent use, by several Handlers and gateways.
type Replay struct {
	o ReplayOptions

	mu      sync.Mutex
	answers map[replayKey]*remembered // guarded by mu
	done    *list.List                // guarded by mu; of *remembered, the oldest first
	bytes   int64                     // guarded by mu; of done
}

// NewReplay returns an empty memory.
func NewReplay(o ReplayOptions) *Replay {
	if o.For <= 0 {
		o.For = DefaultReplayFor
	}
	if o.MaxAnswers <= 0 {
		o.MaxAnswers = DefaultReplayAnswers
	}
	if o.MaxBytes <= 0 {
		o.MaxBytes = DefaultReplayBytes
	}
	return &Replay{o: o, answers: make(map[replayKey]*remembered), done: list.New()}
}

// replayKey tells requests apart by who sent them where, and their key.
type replayKey struct{ scope, gateway, key string }

// remembered is a request, and its answer once there is one.
type remembered struct {
	key      replayKey
	request  [sha256.Size]byte
	answered bool
	until    time.Time
	status   int
	body     []byte
}

// overhead is about what an answer costs beside its text.
const overhead = 400

func (a *remembered) size() int64 {
	return overhead + int64(len(a.body)+len(a.key.key))
}

// begin returns what is known of a request with this key. If that is nothing it is
// noted, and the caller must end it with finish or forget.
func (p *Replay) begin(key replayKey, request [sha256.Size]byte) (known *remembered, begun *remembered) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.trim(time.Now())
	if a := p.answers[key]; a != nil {
		copied := *a
		return &copied, nil
	}
	a := &remembered{key: key, request: request}
	p.answers[key] = a
	return nil, a
}

func (p *Replay) finish(a *remembered, status int, body []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	a.answered, a.status, a.body, a.until = true, status, body, now.Add(p.o.For)
	p.done.PushBack(a)
	p.bytes += a.size()
	p.trim(now)
}

func (p *Replay) forget(a *remembered) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.answers, a.key)
}

// trim forgets what is too old or too much. The caller holds mu.
func (p *Replay) trim(now time.Time) {
	for e := p.done.Front(); e != nil; e = p.done.Front() {
		a, _ := e.Value.(*remembered)
		if now.Before(a.until) && p.done.Len() <= p.o.MaxAnswers && p.bytes <= p.o.MaxBytes {
			return
		}
		p.done.Remove(e)
		p.bytes -= a.size()
		delete(p.answers, a.key)
	}
}
