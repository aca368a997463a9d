// Package admin is for operators: calls below /websocket/ on Caddy's admin endpoint,
// and the command `caddy websocket`, which makes them.
package admin

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-websocket/caddy-websocket/caddymodule/websocket"
	"github.com/caddy-websocket/caddy-websocket/gateway"
	"github.com/caddy-websocket/caddy-websocket/gateway/httpapi"
)

func init() {
	caddy.RegisterModule(new(API))
}

// base is where the calls are mounted on the admin endpoint.
const base = "/websocket"

// CodeUnknownGateway is the code of an error that package httpapi does not know: no
// gateway has this name (404).
const CodeUnknownGateway = "unknown_gateway"

// API serves the calls of package httpapi, those for operators included, on Caddy's
// admin endpoint:
//
//	/websocket/             the gateways and their figures; with ?node= those of other nodes
//	/websocket/clients ...  the calls, for the gateway that ?gateway= names, or `default`
//	/websocket/drain        for all gateways, unless ?gateway= names one; on this node, unless
//	                        ?node= names others
//	/websocket/resume       likewise
//
// Who may reach them is the admin endpoint's to decide. The module has no
// configuration. What a tail shows of messages is the global option's admin_tail.
type API struct {
	once  sync.Once
	ended context.Context // done when the admin server of this instance is shut down
	end   context.CancelFunc

	gateways func() map[string]*gateway.Gateway // those of this process, by name

	mu       sync.Mutex
	handlers map[handlerKey]http.Handler // guarded by mu
}

// handlerKey is what a handler is made from.
type handlerKey struct {
	gateway *gateway.Gateway
	payload int
}

// replay remembers answers through reloads.
var replay = httpapi.NewReplay(httpapi.ReplayOptions{MaxAnswers: 10_000, MaxBytes: 4 << 20})

// CaddyModule returns the Caddy module information.
func (*API) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "admin.api.websocket", New: func() caddy.Module { return new(API) }}
}

// Provision is called once for each admin server.
func (a *API) Provision(ctx caddy.Context) error {
	a.ended, a.end = context.WithCancel(context.Background()) //nolint:gosec // endWith has it called
	a.gateways, a.handlers = websocket.Gateways, make(map[handlerKey]http.Handler)
	// A configuration that fails early has replaced the admin endpoint all the same:
	// what it serves must have the metrics of the gateways that go on.
	return websocket.RegisterMetrics(ctx)
}

// Routes returns the one route.
func (a *API) Routes() []caddy.AdminRoute {
	return []caddy.AdminRoute{{Pattern: base + "/", Handler: caddy.AdminHandlerFunc(a.serve)}}
}

// serve writes errors by itself, in the form that package httpapi has for them.
func (a *API) serve(w http.ResponseWriter, r *http.Request) error {
	a.endWith(r)
	rest, name, err := relative(r)
	if err != nil {
		httpapi.Refuse(w, r, http.StatusBadRequest, httpapi.CodeInvalidQuery, err.Error())
		return nil
	}
	r = rest
	gateways := a.gateways()
	if r.URL.Path == "/" {
		listGateways(w, r, name, gateways)
		return nil
	}
	if name == "" && (r.URL.Path == "/drain" || r.URL.Path == "/resume") && len(gateways) > 0 {
		a.everywhere(w, r, gateways)
		return nil
	}
	g := gateways[cmp.Or(name, gateway.DefaultName)]
	if g == nil {
		httpapi.Refuse(w, r, http.StatusNotFound, CodeUnknownGateway, unknown(cmp.Or(name, gateway.DefaultName), gateways))
		return nil
	}
	payload, while := websocket.TailPayload()
	if r.URL.Path == "/tail" {
		var done context.CancelFunc
		r, done = a.stream(r, while)
		defer done()
	}
	a.handler(g, payload).ServeHTTP(w, r)
	return nil
}

// endWith has the tails of this instance end when its server is shut down: Caddy
// replaces the admin server at each reload, and waits ten seconds for what the old
// one still has to say.
func (a *API) endWith(r *http.Request) {
	a.once.Do(func() {
		if server, ok := r.Context().Value(http.ServerContextKey).(*http.Server); ok {
			server.RegisterOnShutdown(a.end)
		}
	})
}

// stream bounds an answer that has no end: it ends with the admin server, and with
// the configuration that allows it, if it is not nil.
func (a *API) stream(r *http.Request, while context.Context) (*http.Request, context.CancelFunc) {
	ctx, cancel := context.WithCancel(r.Context())
	context.AfterFunc(a.ended, cancel)
	if while != nil {
		context.AfterFunc(while, cancel)
	}
	return r.WithContext(ctx), cancel
}

// relative returns the request with what the handler of a gateway knows nothing of
// taken out: the base path, and the name of the gateway.
func relative(r *http.Request) (rest *http.Request, name string, err error) {
	var kept, names []string
	for pair := range strings.SplitSeq(r.URL.RawQuery, "&") {
		key, value, _ := strings.Cut(pair, "=")
		if key != "gateway" {
			kept = append(kept, pair)
			continue
		}
		if value, err = url.QueryUnescape(value); err != nil {
			return nil, "", fmt.Errorf("gateway: %w", err)
		}
		names = append(names, value)
	}
	switch {
	case len(names) > 1:
		return nil, "", fmt.Errorf("gateway: given %d times, allowed is once", len(names))
	case len(names) == 1 && names[0] == "":
		return nil, "", errors.New("gateway: the value is empty: leave the parameter out, or name one")
	case len(names) == 1:
		name = names[0]
	}
	u := *r.URL
	u.Path, u.RawPath = strings.TrimPrefix(u.Path, base), ""
	u.RawQuery = strings.Join(kept, "&")
	rest = r.WithContext(r.Context()) // a copy
	rest.URL = &u
	return rest, name, nil
}

// handler returns the handler of a gateway, the same each time: it counts its tails.
func (a *API) handler(g *gateway.Gateway, payload int) http.Handler {
	a.mu.Lock()
	defer a.mu.Unlock()
	key := handlerKey{g, payload}
	h := a.handlers[key]
	if h == nil {
		h = httpapi.New(g, httpapi.Options{Operator: true, Payload: payload, Replay: replay, Scope: "admin"})
		a.handlers[key] = h
	}
	return h
}

// listGateways answers with the figures of all gateways, or of one.
func listGateways(w http.ResponseWriter, r *http.Request, name string, gateways map[string]*gateway.Gateway) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		httpapi.Refuse(w, r, http.StatusMethodNotAllowed, httpapi.CodeMethodNotAllowed,
			fmt.Sprintf("%.20q is no method of this call: allowed are GET, HEAD", r.Method))
		return
	}
	query, err := url.ParseQuery(r.URL.RawQuery)
	nodes := query["node"]
	delete(query, "node")
	if err != nil || len(query) > 0 {
		httpapi.Refuse(w, r, http.StatusBadRequest, httpapi.CodeInvalidQuery, "unknown parameter: allowed are gateway, node")
		return
	}
	if name != "" {
		if gateways[name] == nil {
			httpapi.Refuse(w, r, http.StatusNotFound, CodeUnknownGateway, unknown(name, gateways))
			return
		}
		gateways = map[string]*gateway.Gateway{name: gateways[name]}
	}
	named, err := perGateway(nodes, gateways)
	if err != nil {
		refuseNodes(w, r, err)
		return
	}
	answer := Gateways{Gateways: []gateway.Stats{}}
	for _, n := range slices.Sorted(maps.Keys(gateways)) {
		if len(nodes) == 0 {
			answer.Gateways = append(answer.Gateways, gateways[n].Stats())
			continue
		}
		if len(named[n]) == 0 {
			continue
		}
		g := gateways[n]
		stats, missing := statsOf(r.Context(), g, named[n])
		others := slices.Contains(nodes, httpapi.NodeAll) || slices.ContainsFunc(named[n], func(node string) bool { return node != g.Node() })
		if cluster := g.ClusterStats(); others && cluster != nil && !cluster.Connected {
			answer.LocalOnly = true
		}
		answer.Gateways = append(answer.Gateways, stats...)
		answer.Missing = append(answer.Missing, missing...)
	}
	_ = httpapi.Answer(w, r, http.StatusOK, answer) // it can be encoded
}

// refuseNodes answers with an error of perGateway.
func refuseNodes(w http.ResponseWriter, r *http.Request, err error) {
	if _, ok := errors.AsType[unknownNodeError](err); ok {
		httpapi.Refuse(w, r, http.StatusNotFound, httpapi.CodeUnknownNode, err.Error())
		return
	}
	httpapi.Refuse(w, r, http.StatusBadRequest, httpapi.CodeInvalidQuery, err.Error())
}

// Gateways is the answer to GET /websocket/.
type Gateways struct {
	// Gateways are ordered by name, and then by node if nodes are named: otherwise there
	// is this one. There is none if no websocket is configured.
	Gateways []gateway.Stats `json:"gateways"`

	// Missing are nodes that did not answer.
	Missing []string `json:"missing,omitempty"`

	// LocalOnly is set if other nodes are meant, and could not be asked: the broker cannot
	// be reached.
	LocalOnly bool `json:"local_only,omitempty"`
}

// unknown says which gateways there are.
func unknown(name string, gateways map[string]*gateway.Gateway) string {
	if len(gateways) == 0 {
		return fmt.Sprintf("there is no gateway %.100q: no websocket is configured", name)
	}
	are := "there are"
	if len(gateways) == 1 {
		are = "there is"
	}
	return fmt.Sprintf("there is no gateway %.100q: %s %s", name, are, strings.Join(slices.Sorted(maps.Keys(gateways)), ", "))
}

// Interface guards
var (
	_ caddy.AdminRouter = (*API)(nil)
	_ caddy.Provisioner = (*API)(nil)
)
