package httpapi

import (
	"context"
	"net/http"
	"time"
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

func (h *Handler) operatorCalls() []call {
	if !h.o.Operator {
		return nil
	}
	calls := []call{
		{
			method: http.MethodGet, path: "/tail", serve: h.tail,
			query: []param{{name: "client"}, {name: "endpoint"}, {name: "messages"}, {name: "payload"}},
		},
		{method: http.MethodPost, path: "/drain", operate: h.drain},
		{method: http.MethodPost, path: "/resume", operate: h.resume},
	}
	if len(h.o.Endpoints) > 0 { // the others are about everybody
		return calls[:1]
	}
	return calls
}

// drain answers when all are gone, or the time is over.
func (h *Handler) drain(r *http.Request, body []byte) (any, error) {
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
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), timeout)
	defer cancel()
	_ = h.g.Drain(ctx, in.Restart) // what it says is in the state
	return h.state(), nil
}

func (h *Handler) resume(_ *http.Request, body []byte) (any, error) {
	if len(body) > 0 {
		if err := decode(body, &struct{}{}); err != nil {
			return nil, err
		}
	}
	h.g.Resume()
	return h.state(), nil
}

func (h *Handler) state() State {
	return State{Draining: h.g.Draining(), Clients: h.g.Stats().Clients}
}
