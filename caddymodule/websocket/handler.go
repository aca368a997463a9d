// Package websocket is the Caddy side of the gateway: the handler and directive
// `websocket`, which upgrade requests to WebSocket connections and give them to
// message logic in the same process, and the app that keeps those connections
// through reloads.
package websocket

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/netip"
	"sync"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"

	"github.com/caddy-websocket/caddy-websocket/gateway"
)

func init() {
	caddy.RegisterModule(&Handler{})
}

// DefaultEndpointName is the name of an endpoint that was given none.
const DefaultEndpointName = "websocket"

// Handler upgrades WebSocket handshakes and hands the connections to an
// endpoint: handshake rules, limits and message logic under one name. Requests
// that are no handshake go to the next handler; if there is none the answer is
// 426.
//
// A visitor's real IP is Caddy's client_ip, which heeds the server's
// trusted_proxies. Connections live through configuration reloads: their next
// message finds the new limits and the new logic.
type Handler struct {
	// Name names the endpoint. Handlers with the same name and gateway must be
	// configured alike, and then share their clients and limits. Default: the
	// matcher of the directive as written in the Caddyfile, else `websocket`.
	Name string `json:"name,omitempty"`

	// Gateway names the registry that the clients belong to. Default: `default`.
	Gateway string `json:"gateway,omitempty"`

	// Origins says which web pages may connect: `https://example.com`,
	// `https://*.example.com`, `*` for any, `null` for pages without an origin,
	// `require` to refuse requests without an Origin header. Default: pages whose
	// host name is the request's.
	Origins []string `json:"origins,omitempty"`

	// Subprotocols are those that the server speaks, in its order of preference.
	Subprotocols []string `json:"subprotocols,omitempty"`

	// User is the client's user id, with placeholders of the request, like
	// `{http.auth.user.id}`. If a placeholder is empty there is no user.
	User string `json:"user,omitempty"`

	// Join are groups that the client joins, with placeholders of the request. A
	// group with an empty placeholder is not joined.
	Join []string `json:"join,omitempty"`

	// Session are entries of the client's session, with placeholders of the
	// request. An entry with an empty placeholder is not set.
	Session map[string]string `json:"session,omitempty"`

	// MaxMessageSize is how many bytes a message may have; more closes the client
	// with 1009. Default: 1 MiB.
	MaxMessageSize int64 `json:"max_message_size,omitempty"`

	// MaxClients is how many clients the endpoint may have; more get 503.
	// Default: no limit.
	MaxClients int `json:"max_clients,omitempty"`

	// MaxClientsPerIP is how many of them may have the same real IP, or the same
	// /64 of IPv6; more get 429. Default: no limit.
	MaxClientsPerIP int `json:"max_clients_per_ip,omitempty"`

	// MessageRate bounds how many messages a client may send; more closes it with
	// 1008. Default: no limit.
	MessageRate *MessageRate `json:"message_rate,omitempty"`

	// SendBuffer bounds what may wait for a client.
	SendBuffer *SendBuffer `json:"send_buffer,omitempty"`

	// WriteTimeout is how long a client may take in nothing of what is written to
	// it before its connection is cut. Default: 10s.
	WriteTimeout caddy.Duration `json:"write_timeout,omitempty"`

	// Ping finds out whether a silent client is still there.
	Ping *Ping `json:"ping,omitempty"`

	// Heartbeat sends a text of the application's to clients that send no messages.
	// Default: none.
	Heartbeat *Heartbeat `json:"heartbeat,omitempty"`

	// IdleTimeout closes a client with 1001 that has sent no message for so long.
	// Default: never.
	IdleTimeout caddy.Duration `json:"idle_timeout,omitempty"`

	// Compression offers permessage-deflate to clients that ask for it. Default:
	// off.
	Compression *Compression `json:"compression,omitempty"`

	// LogicRaw is the message logic. Without it messages are counted and dropped,
	// and clients can only be sent to.
	LogicRaw json.RawMessage `json:"logic,omitempty" caddy:"namespace=websocket.logic inline_key=module"`

	// ReverseProxyRaw is a reverse_proxy handler: instead of logic, a backend
	// answers the handshake, and is then joined with the client. Beside it only
	// name, gateway, origins, user, max_clients, max_clients_per_ip and
	// idle_timeout have a meaning; any other option is an error.
	ReverseProxyRaw json.RawMessage `json:"reverse_proxy,omitempty" caddy:"namespace=http.handlers inline_key=handler"`

	app     *App
	service *service
	log     *slog.Logger
	warned  sync.Once // about a proxy that is not trusted

	parsedProxy *reverseproxy.Handler // while a Caddyfile is adapted
}

// CaddyModule returns the Caddy module information.
func (*Handler) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.websocket", New: func() caddy.Module { return new(Handler) }}
}

// Provision builds the endpoint, or finds the one that an equal handler built.
func (h *Handler) Provision(ctx caddy.Context) error {
	h.log = ctx.Slogger()
	config, err := h.configuration() // before LoadModule, which empties LogicRaw
	if err != nil {
		return err
	}
	app, err := ctx.App("websocket")
	if err != nil {
		return fmt.Errorf("loading the websocket app: %w", err)
	}
	h.app = app.(*App)
	h.service, err = h.app.service(h.key(), config, serverOf(ctx), func() (*service, error) { return h.build(ctx) })
	return err
}

// key says which endpoint the handler is about.
func (h *Handler) key() endpointKey {
	return endpointKey{cmp.Or(h.Gateway, gateway.DefaultName), cmp.Or(h.Name, DefaultEndpointName)}
}

// configuration returns the whole configuration as JSON, the same for handlers
// that are configured alike.
func (h *Handler) configuration() ([]byte, error) {
	key := h.key()
	h.Gateway, h.Name = key.gateway, key.name
	config, err := json.Marshal(h)
	if err != nil {
		return nil, fmt.Errorf("encoding the configuration: %w", err)
	}
	var sorted any // the logic's own keys may come in any order
	if err := json.Unmarshal(config, &sorted); err != nil {
		return nil, fmt.Errorf("decoding the configuration: %w", err)
	}
	return json.Marshal(sorted)
}

// serverOf says in words which server the handler is provisioned for.
func serverOf(ctx caddy.Context) string {
	if s, ok := ctx.Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server); ok && s != nil {
		return fmt.Sprintf("server %q (%v)", s.Name(), s.Listen)
	}
	return "a route outside of any server"
}

// build makes the endpoint and loads its logic or its proxy.
func (h *Handler) build(ctx caddy.Context) (*service, error) {
	o, err := h.options()
	if err != nil {
		return nil, err
	}
	built := new(service)
	if h.ReverseProxyRaw != nil {
		if built.proxy, err = h.loadProxy(ctx); err != nil {
			return nil, err
		}
	}
	if h.LogicRaw != nil {
		guest, err := ctx.LoadModule(h, "LogicRaw")
		if err != nil {
			return nil, fmt.Errorf("loading the logic: %w", err)
		}
		logic, ok := guest.(gateway.Logic)
		if !ok {
			return nil, fmt.Errorf("the logic %T does not implement gateway.Logic", guest)
		}
		o.Logic = logic
	}
	built.endpoint, err = gateway.NewEndpoint(h.Name, o)
	return built, err
}

// ServeHTTP upgrades a handshake; everything else goes to next.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	if !gateway.IsHandshake(r) {
		return h.pass(w, r, next)
	}
	ip, _ := caddyhttp.GetVar(r.Context(), caddyhttp.ClientIPVarKey).(string)
	if _, err := netip.ParseAddr(ip); err != nil {
		ip = "" // a unix socket has a name instead
	}
	h.warnUntrusted(r, ip)
	withoutIdleTimeout(r)
	id := h.identity(r, ip)
	return h.traced(w, r, id, func(w http.ResponseWriter, r *http.Request, id gateway.Identity) (*gateway.Client, error) {
		if p := h.service.proxy; p != nil {
			return p.forward(h.service.endpoint, w, r, id, next)
		}
		return h.service.endpoint.Upgrade(w, r, id)
	})
}

// opened is called when a handshake is answered.
func (h *Handler) opened(r *http.Request, c *gateway.Client) {
	identify(r, c)
	if r.ProtoMajor > 1 {
		h.app.streams.keep(c)
	}
}

// withoutIdleTimeout gives a handshake over HTTP/2 or HTTP/3 the body that the
// server made. Caddy's own ends a request whose body pauses for read_idle_timeout, a
// minute: every connection on which nothing happens for so long. What else may be
// around it, like the limit of request_body, is meant for bodies, too; over HTTP/1.1
// nothing of it is left when the connection is taken over.
func withoutIdleTimeout(r *http.Request) {
	if idle, _ := caddyhttp.IdleTimeoutsFromContext(r.Context()); idle != nil && r.ProtoMajor > 1 {
		r.Body = idle.ReadCloser
	}
}

// refuse turns a refusal of the engine's into an error of Caddy's, so that
// handle_errors answers it.
func (h *Handler) refuse(w http.ResponseWriter, err error) error {
	refused, ok := errors.AsType[*gateway.HandshakeError](err)
	if !ok {
		return err
	}
	maps.Copy(w.Header(), refused.Header)
	return caddyhttp.Error(refused.Status, fmt.Errorf("endpoint %q: %w", h.Name, err))
}

// pass lets the next handler answer what is no handshake, and answers itself if
// nobody does.
func (h *Handler) pass(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	if err := next.ServeHTTP(w, r); err != nil {
		return err
	}
	if unhandled, _ := caddyhttp.GetVar(r.Context(), "unhandled").(bool); !unhandled {
		return nil
	}
	caddyhttp.SetVar(r.Context(), "unhandled", nil) // the access log would call it NOP
	return h.refuse(w, gateway.RefuseOther(r))
}

// Interface guards
var (
	_ caddy.Provisioner           = (*Handler)(nil)
	_ caddyhttp.MiddlewareHandler = (*Handler)(nil)
)
