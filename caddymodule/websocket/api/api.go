// Package api lets other programs push: the handler and directive
// `websocket_api` answer JSON over HTTP for the commands and lists of a gateway
// (see gateway/httpapi), to whoever has a token.
package api

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddy-websocket/caddy-websocket/gateway"
	"github.com/caddy-websocket/caddy-websocket/gateway/httpapi"
)

func init() {
	caddy.RegisterModule(&Handler{})
}

// Handler is the push API: programs in any language send to WebSocket clients,
// close, group and name them, and see who is connected. The calls are described
// by its GET /openapi.yaml.
//
// Errors are JSON, the refusal of a token included, and do not go through
// handle_errors. Browsers are not meant to call it, and there is no CORS: whoever
// can read a page could read its token.
type Handler struct {
	// Tokens are those of which a request must have one, as `Authorization: Bearer
	// <token>`. Each has at least 16 characters of printable ASCII, and may have
	// placeholders {env.*} and {file.*}, which are resolved when the configuration is
	// loaded. To replace a token, have both for a while.
	Tokens []string `json:"tokens,omitempty"`

	// InsecureNoToken serves whoever comes. It is for what stands behind something else
	// that keeps strangers out, like basic_auth or client certificates.
	InsecureNoToken bool `json:"insecure_no_token,omitempty"`

	// Gateway names the registry whose clients are meant. Default: `default`.
	Gateway string `json:"gateway,omitempty"`

	// Endpoints is an allow-list: no call reaches or shows clients of any other
	// endpoint. Default: all of the gateway.
	Endpoints []string `json:"endpoints,omitempty"`

	// MaxBody is how many bytes the body of a request may have; more get 413.
	// Default: 4 MiB.
	MaxBody int64 `json:"max_body,omitempty"`

	// Prefix is what of the path comes before that of the call: `/push` where
	// `/push/send` is to send. Requests outside of it go to the next handler.
	// Default: nothing, and every request is answered here. A Caddyfile has it from
	// the directive's matcher.
	Prefix string `json:"prefix,omitempty"`

	log     *slog.Logger
	accepts tokens
	refused failures

	api    atomic.Pointer[httpapi.Handler] // nil after Cleanup
	pooled string                          // the key that is held in replays
}

// replays keeps what was answered to an Idempotency-Key from one configuration to
// the next, by gateway.
var replays = caddy.NewUsagePool()

type pooledReplay struct{ *httpapi.Replay }

// Destruct has nothing to do: it is memory.
func (pooledReplay) Destruct() error { return nil }

// CaddyModule returns the Caddy module information.
func (*Handler) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.websocket_api", New: func() caddy.Module { return new(Handler) }}
}

// Provision resolves the tokens and finds the gateway.
func (h *Handler) Provision(ctx caddy.Context) error {
	h.log = ctx.Slogger()
	h.Gateway = cmp.Or(h.Gateway, gateway.DefaultName)
	if err := h.check(); err != nil {
		return err
	}
	var err error
	if h.accepts, err = resolve(h.Tokens); err != nil {
		return err
	}
	app, err := ctx.App("websocket")
	if err != nil {
		return fmt.Errorf("loading the websocket app: %w", err)
	}
	owner, ok := app.(interface {
		Gateway(name string) (*gateway.Gateway, error)
	})
	if !ok {
		return fmt.Errorf("the websocket app %T has no gateways", app)
	}
	g, err := owner.Gateway(h.Gateway)
	if err != nil {
		return err
	}
	if err := h.warnOfUnknown(ctx, g); err != nil {
		return err
	}
	replay, _, err := replays.LoadOrNew(h.Gateway, func() (caddy.Destructor, error) {
		return pooledReplay{httpapi.NewReplay(httpapi.ReplayOptions{})}, nil
	})
	if err != nil {
		return err
	}
	h.pooled = h.Gateway
	h.api.Store(httpapi.New(g, httpapi.Options{
		Endpoints: h.Endpoints, MaxBody: h.MaxBody,
		Replay: replay.(pooledReplay).Replay, Scope: h.scope(),
	}))
	return nil
}

// check tells whether the options are right, as far as they are known without
// resolving the tokens.
func (h *Handler) check() error {
	switch {
	case h.InsecureNoToken && len(h.Tokens) > 0:
		return errors.New("token and insecure_no_token contradict each other: allowed is one of them")
	case !h.InsecureNoToken && len(h.Tokens) == 0:
		return errors.New("no token: anybody could send to your clients; give at least one token, or write insecure_no_token if something else keeps strangers out")
	case slices.Contains(h.Endpoints, ""):
		return errors.New("endpoints: a name is empty")
	case h.MaxBody < 0:
		return fmt.Errorf("max_body %d: allowed are positive numbers of bytes", h.MaxBody)
	case h.Prefix != "" && (h.Prefix[0] != '/' || strings.HasSuffix(h.Prefix, "/") || strings.ContainsAny(h.Prefix, "*{}")):
		return fmt.Errorf("prefix %q: allowed is a path like /push, without wildcards and placeholders", h.Prefix)
	}
	return nil
}

// scope keeps the keys of different mounts apart. Tokens have no part in it: a
// request that is repeated with the new token is the same request.
func (h *Handler) scope() string {
	endpoints := slices.Sorted(slices.Values(h.Endpoints))
	scope, _ := json.Marshal([]any{slices.Compact(endpoints), h.Prefix}) // strings can be encoded
	return string(scope)
}

// Cleanup gives back what this configuration held.
func (h *Handler) Cleanup() error {
	h.api.Store(nil)
	if h.pooled == "" {
		return nil
	}
	_, err := replays.Delete(h.pooled)
	h.pooled = ""
	return err
}

// ServeHTTP answers a call, if the request is one and has a token.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	path, ok := cutPrefix(r.URL.Path, h.Prefix)
	if !ok {
		return next.ServeHTTP(w, r)
	}
	if !h.InsecureNoToken {
		if err := h.accepts.check(r); err != nil {
			h.refuse(w, r, err)
			return nil
		}
	}
	api := h.api.Load()
	if api == nil { // the server did not wait for this request any longer
		w.Header().Set("Retry-After", "1")
		httpapi.Refuse(w, r, http.StatusServiceUnavailable, httpapi.CodeShutdown, "the configuration has been replaced: try again")
		return nil
	}
	relative := new(http.Request)
	*relative = *r
	relative.URL = new(url.URL)
	*relative.URL = *r.URL
	relative.URL.Path, relative.URL.RawPath = path, ""
	api.ServeHTTP(w, relative)
	return nil
}

// cutPrefix returns what follows the prefix in a path. Like Caddy's path matcher
// it takes // for / and makes no difference between upper and lower case.
func cutPrefix(path, prefix string) (rest string, ok bool) {
	if prefix == "" {
		return path, true
	}
	path = caddyhttp.CleanPath(path, true)
	if len(path) < len(prefix) || !strings.EqualFold(path[:len(prefix)], prefix) {
		return "", false
	}
	rest = path[len(prefix):]
	return rest, rest == "" || rest[0] == '/'
}

// Interface guards
var (
	_ caddy.Provisioner           = (*Handler)(nil)
	_ caddy.CleanerUpper          = (*Handler)(nil)
	_ caddyhttp.MiddlewareHandler = (*Handler)(nil)
)
