package httpapi

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/caddy-websocket/caddy-websocket/gateway"
)

// Time that POST /drain takes at most.
const (
	defaultDrainTimeout = 30 * time.Second
	maxDrainTimeout     = time.Hour
)

// State is the answer to /drain and /resume.
type State struct {
	// Draining is set while handshakes are refused.
	Draining bool `json:"draining"`

	// Clients is how many are connected.
	Clients int `json:"clients"`
}

// NodeStates is the answer to /drain and /resume if nodes are named.
type NodeStates struct {
	// Nodes are in the order of their ids.
	Nodes []NodeState `json:"nodes"`

	// LocalOnly is set if other nodes are meant, and could not be told: the broker cannot be
	// reached.
	LocalOnly bool `json:"local_only,omitempty"`
}

// NodeState is what has become of one node.
type NodeState struct {
	Node string `json:"node"`
	State

	// Error is set if the node does not answer: what it did is not known, unless it could
	// not be asked.
	Error *Error `json:"error,omitempty"`
}

func (h *Handler) operatorCalls() []call {
	if !h.o.Operator {
		return nil
	}
	node := []param{{name: "node", many: true}}
	calls := []call{
		{
			method: http.MethodGet, path: "/tail", serve: h.tail,
			query: []param{{name: "client"}, {name: "endpoint"}, {name: "messages"}, {name: "payload"}, node[0]},
		},
		{method: http.MethodPost, path: "/drain", query: node, operate: h.drain},
		{method: http.MethodPost, path: "/resume", query: node, operate: h.resume},
	}
	if len(h.o.Endpoints) > 0 { // the others are about everybody
		return calls[:1]
	}
	return calls
}

// operated returns the nodes that are to be drained or resumed; none is named if it is
// this one, as ever.
func (h *Handler) operated(q query) ([]string, error) {
	ids, err := h.known(q["node"])
	if err == nil && slices.Contains(q["node"], NodeAll) {
		ids = NodesNamed(h.g.Nodes(), NodeAll)
	}
	return ids, err
}

// onNodes does something on nodes at once, since each may take its time, and returns what
// has become of them.
func (h *Handler) onNodes(ctx context.Context, q query, nodes []string, draining bool, do func(node string) error) NodeStates {
	slices.Sort(nodes)
	nodes = slices.Compact(nodes)
	errs := make([]error, len(nodes))
	var all sync.WaitGroup
	for i, node := range nodes {
		all.Go(func() {
			defer func() {
				if p := recover(); p != nil { // it would end the process
					errs[i] = fmt.Errorf("node %s: panic: %v", node, p)
				}
			}()
			errs[i] = do(node)
		})
	}
	all.Wait()
	stats, _, _ := h.g.AllStats(ctx, nodes) // who does not answer is not in them
	others := slices.Contains(q["node"], NodeAll) || slices.ContainsFunc(nodes, func(node string) bool { return node != h.g.Node() })
	states := NodeStates{Nodes: make([]NodeState, len(nodes)), LocalOnly: others && h.cutOff()}
	for i, node := range nodes {
		states.Nodes[i].Node = node
		at := slices.IndexFunc(stats, func(s gateway.Stats) bool { return s.Node == node })
		if at >= 0 {
			states.Nodes[i].State = State{Draining: stats[at].Draining, Clients: stats[at].Clients}
		}
		if at < 0 || errs[i] != nil && stats[at].Draining != draining {
			err := cmp.Or(errs[i], h.noAnswer(node))
			states.Nodes[i].Error = &Error{CodeNoAnswer, err.Error()}
		}
	}
	return states
}

// drain answers when all are gone, or the time is over.
func (h *Handler) drain(r *http.Request, q query, body []byte) (any, error) {
	nodes, err := h.operated(q)
	if err != nil {
		return nil, err
	}
	var in struct {
		Restart bool   `json:"restart"`
		Timeout string `json:"timeout"`
	}
	if len(body) > 0 {
		if err := decode(body, &in); err != nil {
			return nil, err
		}
	}
	timeout := defaultDrainTimeout
	if in.Timeout != "" {
		var err error
		timeout, err = time.ParseDuration(in.Timeout)
		if err != nil || timeout <= 0 || timeout > maxDrainTimeout {
			return nil, invalid(CodeInvalidCommand, "timeout: %.50q, allowed are durations like \"30s\" up to %s", in.Timeout, maxDrainTimeout)
		}
	}
	// A caller who hangs up has not said that half of the clients should stay.
	whole := context.WithoutCancel(r.Context())
	ctx, cancel := context.WithTimeout(whole, timeout)
	defer cancel()
	if nodes != nil {
		return h.onNodes(whole, q, nodes, true, func(node string) error { return h.g.DrainNode(ctx, node, in.Restart) }), nil
	}
	_ = h.g.Drain(ctx, in.Restart) // what it says is in the state
	return h.state(), nil
}

func (h *Handler) resume(r *http.Request, q query, body []byte) (any, error) {
	nodes, err := h.operated(q)
	if err != nil {
		return nil, err
	}
	if len(body) > 0 {
		if err := decode(body, &struct{}{}); err != nil {
			return nil, err
		}
	}
	if nodes != nil {
		ctx := context.WithoutCancel(r.Context())
		return h.onNodes(ctx, q, nodes, false, func(node string) error { return h.g.ResumeNode(ctx, node) }), nil
	}
	h.g.Resume()
	return h.state(), nil
}

func (h *Handler) state() State {
	return State{Draining: h.g.Draining(), Clients: h.g.Stats().Clients}
}
