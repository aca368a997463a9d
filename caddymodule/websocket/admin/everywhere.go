package admin

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"sync"

	"github.com/caddy-websocket/caddy-websocket/gateway"
	"github.com/caddy-websocket/caddy-websocket/gateway/httpapi"
)

// States is the answer to /websocket/drain and /websocket/resume for all gateways.
type States struct {
	Gateways []GatewayState `json:"gateways"`

	// LocalOnly is set if other nodes are meant, and could not be told: the broker cannot be
	// reached.
	LocalOnly bool `json:"local_only,omitempty"`
}

// GatewayState is what has become of one gateway.
type GatewayState struct {
	Gateway string `json:"gateway"`

	// Node is set if nodes were named.
	Node string `json:"node,omitempty"`

	httpapi.State

	// Error is set if the gateway has refused, because it has ended, or the node does
	// not answer.
	Error *httpapi.Error `json:"error,omitempty"`
}

// maxOperation is how many bytes the body of a call for all gateways may have.
const maxOperation = 64 << 10

// everywhere does a call for all gateways at once, since each may take its time. If
// all refuse, as when the call is wrong, the first one's refusal is the answer.
func (a *API) everywhere(w http.ResponseWriter, r *http.Request, gateways map[string]*gateway.Gateway) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxOperation))
	if err != nil {
		httpapi.Refuse(w, r, http.StatusBadRequest, httpapi.CodeMalformed, fmt.Sprintf("reading the body: %v", err))
		return
	}
	query, _ := url.ParseQuery(r.URL.RawQuery) // with an error it is refused by all of them
	nodes, err := perGateway(query["node"], gateways)
	if err != nil {
		refuseNodes(w, r, err)
		return
	}
	names := slices.Sorted(maps.Keys(gateways))
	if len(query["node"]) > 0 {
		names = slices.Sorted(maps.Keys(nodes))
	}
	answers := make([]*kept, len(names))
	var all sync.WaitGroup
	for i, name := range names {
		each := r.Clone(r.Context())
		if len(nodes[name]) > 0 && !slices.Contains(query["node"], httpapi.NodeAll) {
			own := maps.Clone(query)
			own["node"] = nodes[name]
			each.URL.RawQuery = own.Encode()
		}
		each.Body, each.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
		answers[i] = &kept{status: http.StatusOK, header: make(http.Header)}
		all.Go(func() {
			defer answers[i].recovered()
			a.handler(gateways[name], 0).ServeHTTP(answers[i], each)
		})
	}
	all.Wait()
	if !slices.ContainsFunc(answers, func(k *kept) bool { return k.status == http.StatusOK }) {
		maps.Copy(w.Header(), answers[0].header)
		w.WriteHeader(answers[0].status)
		_, _ = w.Write(answers[0].body.Bytes())
		return
	}
	states := States{Gateways: []GatewayState{}}
	for i, name := range names {
		var answer stateAnswer
		_ = json.Unmarshal(answers[i].body.Bytes(), &answer) // it was encoded by us
		states.Gateways = append(states.Gateways, answer.states(name)...)
		states.LocalOnly = states.LocalOnly || answer.LocalOnly
	}
	_ = httpapi.Answer(w, r, http.StatusOK, states) // it can be encoded
}

// stateAnswer is the answer of one gateway: its state on this node, or on those that
// were named.
type stateAnswer struct {
	httpapi.NodeStates
	httpapi.State
	Error *httpapi.Error `json:"error"`
}

func (a *stateAnswer) states(gateway string) []GatewayState {
	if a.Nodes == nil {
		return []GatewayState{{Gateway: gateway, State: a.State, Error: a.Error}}
	}
	all := make([]GatewayState, len(a.Nodes))
	for i, n := range a.Nodes {
		all[i] = GatewayState{gateway, n.Node, n.State, n.Error}
	}
	return all
}

// kept is an answer that is not sent yet.
type kept struct {
	status int
	header http.Header
	body   bytes.Buffer
}

func (k *kept) Header() http.Header         { return k.header }
func (k *kept) WriteHeader(status int)      { k.status = status }
func (k *kept) Write(p []byte) (int, error) { return k.body.Write(p) }

// recovered makes an answer of a panic, which in a goroutine would end Caddy.
func (k *kept) recovered() {
	if p := recover(); p != nil {
		k.status = http.StatusInternalServerError
		k.body.Reset()
		_ = json.NewEncoder(&k.body).Encode(httpapi.Result{Error: &httpapi.Error{Code: httpapi.CodeInternal, Message: fmt.Sprint(p)}})
	}
}
