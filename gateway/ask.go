package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"
)

// AnswerTimeout is how long other nodes are waited for where the caller's context has no
// deadline.
const AnswerTimeout = 2 * time.Second

// maxQuestions is how many questions of others may wait to be answered.
const maxQuestions = 10000

// question is what a node asks others. One field is set.
type question struct {
	Ping    bool         `json:"ping,omitempty"` // the answer shows that it was heard
	Clients *Query       `json:"clients,omitempty"`
	Client  *clientQuery `json:"client,omitempty"`
	Groups  *NameQuery   `json:"groups,omitempty"`
	Users   *NameQuery   `json:"users,omitempty"`
	Count   *Target      `json:"count,omitempty"`
	Stats   *statsQuery  `json:"stats,omitempty"`
	Drain   *drainQuery  `json:"drain,omitempty"`
	Resume  bool         `json:"resume,omitempty"`
}

type clientQuery struct {
	ID      string `json:"id"`
	Session bool   `json:"session,omitempty"`
}

type statsQuery struct {
	Endpoints []string `json:"endpoints,omitempty"`
}

type drainQuery struct {
	Restart bool          `json:"restart,omitempty"`
	Timeout time.Duration `json:"timeout"`
}

// response is what comes back.
type response struct {
	Error  string          `json:"error,omitempty"`
	Result json.RawMessage `json:"result,omitempty"`
}

// failure returns what a node has answered instead of a result, or nil.
func (r response) failure(node string) error {
	if r.Error == "" {
		return nil
	}
	return fmt.Errorf("node %s: %s", node, r.Error)
}

// asks are questions that wait for answers.
type asks struct {
	mu   sync.Mutex
	last uint64             // guarded by mu
	open map[uint64]*asking // guarded by mu
}

// asking is one of them.
type asking struct {
	waits   map[string]struct{} // guarded by asks.mu; nodes that have not answered
	answers map[string]response // guarded by asks.mu
	done    chan struct{}       // closed when waits is empty
}

func (a *asks) begin(nodes []string) (uint64, *asking) {
	q := &asking{waits: make(map[string]struct{}, len(nodes)), answers: make(map[string]response, len(nodes)), done: make(chan struct{})}
	for _, node := range nodes {
		q.waits[node] = struct{}{}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.last++
	a.open[a.last] = q
	return a.last, q
}

// end returns what was answered, and who has not.
func (a *asks) end(id uint64) (answers map[string]response, missing []string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	q := a.open[id]
	delete(a.open, id)
	return q.answers, slices.Sorted(maps.Keys(q.waits))
}

// take notes an answer.
func (a *asks) take(id uint64, node string, what response) {
	a.mu.Lock()
	defer a.mu.Unlock()
	q := a.open[id]
	if q == nil {
		return // too late
	}
	if _, waits := q.waits[node]; !waits {
		return // he was not asked
	}
	q.answers[node] = what
	delete(q.waits, node)
	if len(q.waits) == 0 {
		close(q.done)
	}
}

// gone stops waiting for a node that is not there any more: nothing is missing without
// it.
func (a *asks) gone(node string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, q := range a.open {
		if _, waits := q.waits[node]; !waits {
			continue
		}
		delete(q.waits, node)
		if len(q.waits) == 0 {
			close(q.done)
		}
	}
}

// asked are the other nodes that a question is for.
type asked struct {
	nodes    []string // that are known
	missing  []string // that are not, and were named
	subjects []string
}

// whom returns whom to ask if these nodes are meant, or all if none is named.
func (c *cluster) whom(named []string) asked {
	known := c.known()
	if len(named) == 0 {
		return asked{nodes: known, subjects: []string{subjectAll}}
	}
	var a asked
	for _, node := range slices.Compact(slices.Sorted(slices.Values(named))) {
		switch {
		case node == c.s.node:
		case slices.Contains(known, node):
			a.nodes = append(a.nodes, node)
			a.subjects = append(a.subjects, subjectNode+node)
		default:
			a.missing = append(a.missing, node)
		}
	}
	return a
}

// ask publishes a message that asks for answers, and waits for those.
func (c *cluster) ask(ctx context.Context, of asked, kind envelopeKind, body func(id uint64) ([]byte, error)) (map[string]response, []string, error) {
	if len(of.nodes) == 0 {
		return nil, of.missing, nil
	}
	ctx, cancel := within(ctx, AnswerTimeout)
	defer cancel()
	id, q := c.asks.begin(of.nodes)
	b, err := body(id)
	if err == nil {
		if err := c.publish(kind, b, of.subjects...); err == nil {
			select {
			case <-q.done:
			case <-ctx.Done():
			case <-c.s.ctx.Done():
			}
		}
	}
	answers, missing := c.asks.end(id)
	return answers, slices.Sorted(slices.Values(slices.Concat(missing, of.missing))), err
}

// within returns ctx, which ends after d if it has no deadline of its own.
func within(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	if _, bounded := ctx.Deadline(); bounded {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, d)
}

// noAnswer says why a node that was to be asked gives no answer. The error wraps ErrNoAnswer.
func (c *cluster) noAnswer(node string) error {
	if !c.up() {
		return notAskedError(node)
	}
	return fmt.Errorf("%w: %s", ErrNoAnswer, node)
}

// notAskedError names a node that could not be asked.
type notAskedError string

func (e notAskedError) Error() string {
	return fmt.Sprintf("node %s was not asked: %v", string(e), ErrLinkDown)
}

// Unwrap also returns ErrNoAnswer: there is none, though not for want of time.
func (e notAskedError) Unwrap() []error { return []error{ErrNoAnswer, ErrLinkDown} }

// put publishes a question and waits for the answers.
func (c *cluster) put(ctx context.Context, of asked, q question) (map[string]response, []string, error) {
	answers, missing, err := c.ask(ctx, of, kindQuestion, q.encode)
	if err != nil {
		return nil, nil, fmt.Errorf("asking other nodes: %w", err)
	}
	return answers, missing, nil
}

// encode writes the body of a question.
func (q question) encode(id uint64) ([]byte, error) { return appendJSON(id, q) }

// inquire asks a question and decodes the answers. A node that has none to give is missing
// like one that is silent: what others have said counts all the same.
func inquire[T any](ctx context.Context, c *cluster, of asked, q question) (results map[string]T, missing []string, err error) {
	answers, missing, err := c.put(ctx, of, q)
	if err != nil {
		return nil, nil, err
	}
	results = make(map[string]T, len(answers))
	for node, a := range answers {
		var result T
		why := a.Error
		if why == "" {
			if err := json.Unmarshal(a.Result, &result); err != nil {
				why = fmt.Sprintf("decoding its answer: %v", err)
			}
		}
		if why != "" {
			c.s.log.Load().Warn("another node has no answer", "gateway", c.s.name, "node", node, "error", why)
			missing = append(missing, node)
			continue
		}
		results[node] = result
	}
	slices.Sort(missing)
	return results, missing, nil
}

// answered takes an answer to a question of ours.
func (c *cluster) answered(p *peer, body []byte) error {
	var a response
	id, err := parseJSON(body, &a)
	if err != nil {
		return fmt.Errorf("decoding an answer: %w", err)
	}
	c.asks.take(id, p.id, a)
	return nil
}

// questioned answers a question, in a goroutine of its own: a list of a hundred thousand
// clients takes a moment, and messages behind it should not wait.
func (c *cluster) questioned(p *peer, body []byte) error {
	var q question
	id, err := parseJSON(body, &q)
	if err != nil {
		return fmt.Errorf("decoding a question: %w", err)
	}
	if q.Ping {
		c.answer(p.id, id, struct{}{}, nil)
		return nil
	}
	if c.waiting.Add(1) > maxQuestions {
		c.waiting.Add(-1)
		c.answer(p.id, id, nil, fmt.Errorf("more than %d questions at a time", maxQuestions))
		return nil
	}
	c.s.helper("answer", func() {
		defer c.waiting.Add(-1)
		c.busy <- struct{}{}
		defer func() { <-c.busy }()
		result, err := here{c.s}.answer(&q)
		c.answer(p.id, id, result, err)
	})
	return nil
}

// answer tells a node what it has asked for.
func (c *cluster) answer(node string, id uint64, result any, err error) {
	var a response
	if err != nil {
		a.Error = err.Error()
	}
	if result != nil {
		if a.Result, err = json.Marshal(result); err != nil {
			a.Error = fmt.Sprintf("encoding the answer: %v", err)
		}
	}
	body, err := appendJSON(id, a)
	if err != nil {
		return // cannot happen: a message is text, a result valid JSON
	}
	c.tell(kindAnswer, body, subjectNode+node)
}

// answer answers a question about this node.
func (h here) answer(q *question) (any, error) {
	switch {
	case q.Clients != nil:
		return h.clients(*q.Clients)
	case q.Client != nil:
		return h.client(*q.Client), nil
	case q.Groups != nil:
		return listNames(&h.registry.groups, *q.Groups)
	case q.Users != nil:
		return listNames(&h.registry.users, *q.Users)
	case q.Count != nil:
		found, err := h.resolve(q.Count)
		return Reach{Clients: len(found)}, err
	case q.Stats != nil:
		return h.stats(q.Stats.Endpoints...), nil
	case q.Drain != nil:
		ctx, cancel := context.WithTimeout(h.ctx, q.Drain.Timeout)
		defer cancel()
		return struct{}{}, (&Gateway{shared: h.shared}).Drain(ctx, q.Drain.Restart)
	case q.Resume:
		(&Gateway{shared: h.shared}).Resume()
		return struct{}{}, nil
	}
	return nil, errors.New("this node does not know the question")
}
