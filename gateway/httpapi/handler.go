package httpapi

import (
	"net/http"
	"slices"
	"strings"

	"github.com/caddy-websocket/caddy-websocket/gateway"
)

// Defaults of Options.
const (
	DefaultMaxBody     = 4 << 20
	DefaultMaxCommands = 1000
	DefaultMaxNames    = 10000
)

// maxTails is how many GET /tail a handler serves at a time.
const maxTails = 16

// Options are the settings of a Handler. The zero value works.
type Options struct {
	// Endpoints is an allow-list: commands and lists reach clients of these only.
	// Empty means all.
	Endpoints []string

	// MaxBody is how many bytes the body of a request may have; more get 413. Zero
	// means 4 MiB.
	MaxBody int64

	// MaxCommands is how many commands a batch may have. Zero means 1000.
	MaxCommands int

	// MaxNames is how many names a target, or a list of groups, may have. Zero means
	// 10000.
	MaxNames int

	// Replay remembers answers by Idempotency-Key. The caller keeps it, so that it
	// outlives the Handler. Nil means that the header is refused.
	Replay *Replay

	// Scope keeps callers apart who share a Replay: keys of one are unknown to the
	// others. Gateways are kept apart anyway.
	Scope string

	// Operator adds GET /tail and, unless Endpoints narrows, POST /drain and
	// POST /resume, which are about the whole gateway.
	Operator bool

	// Payload is how many bytes of a message's payload a tail may show, to who asks
	// for them. Zero means none.
	Payload int
}

// Handler serves the calls. It is safe for concurrent use.
type Handler struct {
	g     *gateway.Gateway
	o     Options
	calls []call
	tails chan struct{} // holds one for each that is running
}

// New returns a handler for the gateway's calls. Their paths are relative: where it
// is mounted below a prefix, the caller strips that, as http.StripPrefix does.
func New(g *gateway.Gateway, o Options) *Handler {
	o.Endpoints = slices.Clone(o.Endpoints)
	if o.MaxBody <= 0 {
		o.MaxBody = DefaultMaxBody
	}
	if o.MaxCommands <= 0 {
		o.MaxCommands = DefaultMaxCommands
	}
	if o.MaxNames <= 0 {
		o.MaxNames = DefaultMaxNames
	}
	h := &Handler{g: g, o: o, tails: make(chan struct{}, maxTails)}
	h.calls = slices.Concat(h.commandCalls(), h.listCalls(), h.operatorCalls())
	return h
}

// call is one of the API: exactly one of its functions is set.
type call struct {
	method string
	path   string
	query  []param

	command func(do do, body []byte) (any, error)                    // changes something; may be repeated with a key
	read    func(r *http.Request, q query) (any, error)              // answers JSON
	operate func(r *http.Request, q query, body []byte) (any, error) // changes something; its body may be missing
	serve   func(w http.ResponseWriter, r *http.Request, q query) error
}

// ServeHTTP answers a call.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	harden(w.Header())
	here := h.callsAt("/" + strings.TrimPrefix(r.URL.Path, "/"))
	if len(here) == 0 {
		h.refuse(w, r, &failure{http.StatusNotFound, CodeUnknownCall, "no such call: there are " + h.list()})
		return
	}
	if r.Method == http.MethodOptions {
		w.Header().Set("Allow", allow(here))
		w.WriteHeader(http.StatusNoContent)
		return
	}
	method := r.Method
	if method == http.MethodHead {
		method = http.MethodGet
	}
	i := slices.IndexFunc(here, func(c call) bool { return c.method == method })
	if i < 0 {
		w.Header().Set("Allow", allow(here))
		h.refuse(w, r, failed(http.StatusMethodNotAllowed, CodeMethodNotAllowed,
			"%.20q is no method of this call: allowed are %s", r.Method, allow(here)))
		return
	}
	if err := h.do(w, r, &here[i]); err != nil {
		h.refuse(w, r, err)
	}
}

func (h *Handler) do(w http.ResponseWriter, r *http.Request, c *call) error {
	q, err := parseQuery(r.URL.RawQuery, c.query)
	if err != nil {
		return err
	}
	switch {
	case c.serve != nil:
		return c.serve(w, r, q)
	case c.read != nil:
		body, err := c.read(r, q)
		if err != nil {
			return err
		}
		return Answer(w, r, http.StatusOK, body)
	}
	body, err := h.readBody(w, r, c.operate != nil)
	if err != nil {
		return err
	}
	if h.ended() {
		return failed(http.StatusServiceUnavailable, CodeShutdown, "gateway %q is shut down", h.g.Name())
	}
	if c.operate != nil {
		body, err := c.operate(r, q, body)
		if err != nil {
			return err
		}
		return Answer(w, r, http.StatusOK, body)
	}
	do, end, err := h.way(r, q)
	if err != nil {
		return err
	}
	defer end()
	return h.command(w, r, fingerprint(c, q, body), func() (any, error) { return c.command(do, body) })
}

func (h *Handler) ended() bool {
	select {
	case <-h.g.Done():
		return true
	default:
		return false
	}
}

// callsAt returns the calls of a path, one for each method.
func (h *Handler) callsAt(path string) []call {
	if id, ok := strings.CutPrefix(path, "/clients/"); ok && id != "" && !strings.Contains(id, "/") {
		path = clientPath
	}
	var here []call
	for _, c := range h.calls {
		if c.path == path {
			here = append(here, c)
		}
	}
	return here
}

// list returns the calls for an error.
func (h *Handler) list() string {
	all := make([]string, 0, len(h.calls))
	for _, c := range h.calls {
		all = append(all, c.method+" "+c.path)
	}
	return strings.Join(all, ", ")
}

// allow returns the Allow header (RFC 9110 section 10.2.1) of a path.
func allow(calls []call) string {
	var methods []string
	for _, c := range calls {
		methods = append(methods, c.method)
		if c.method == http.MethodGet {
			methods = append(methods, http.MethodHead)
		}
	}
	return strings.Join(append(methods, http.MethodOptions), ", ")
}
