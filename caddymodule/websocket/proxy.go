package websocket

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"

	"github.com/caddy-websocket/caddy-websocket/gateway"
)

// proxy lets Caddy's reverse_proxy find a backend and pass the handshake on. Once
// that is answered with 101 the connections are the gateway's: reverse_proxy
// would close them at a reload, and keep the old configuration as long as they
// live.
type proxy struct{ handler *reverseproxy.Handler }

// besideProxy are the options that have a meaning beside reverse_proxy.
var besideProxy = []string{"name", "gateway", "origins", "user", "max_clients", "max_clients_per_ip", "idle_timeout"}

// loadProxy loads the handler and takes its 101s away from it.
func (h *Handler) loadProxy(ctx caddy.Context) (*proxy, error) {
	if other := h.notBesideProxy(); other != "" {
		return nil, errBesideProxy(other)
	}
	var err error
	if h.ReverseProxyRaw, err = withTunnel(h.ReverseProxyRaw); err != nil {
		return nil, fmt.Errorf("reading the configuration of reverse_proxy: %w", err)
	}
	module, err := ctx.LoadModule(h, "ReverseProxyRaw")
	if err != nil {
		return nil, fmt.Errorf("loading reverse_proxy: %w", err)
	}
	handler, ok := module.(*reverseproxy.Handler)
	if !ok {
		return nil, fmt.Errorf("reverse_proxy is a %T: its handler must be reverse_proxy", module)
	}
	warnStream(h.log, h.Name, handler)
	return &proxy{handler}, nil
}

// warnStream says that the options of reverse_proxy about streams do nothing.
func warnStream(log *slog.Logger, endpoint string, handler *reverseproxy.Handler) {
	for option, set := range map[string]bool{
		"stream_timeout":     handler.StreamTimeout != 0,
		"stream_close_delay": handler.StreamCloseDelay != 0,
		"stream_buffer_size": handler.StreamBufferSize != 0,
	} {
		if set {
			log.Warn("option of reverse_proxy has no effect here: connections live through reloads, and idle_timeout ends them",
				"option", option, "endpoint", endpoint)
		}
	}
}

// forward passes a handshake on.
func (p *proxy) forward(e *gateway.Endpoint, w http.ResponseWriter, r *http.Request, id gateway.Identity, next caddyhttp.Handler) (*gateway.Client, error) {
	return e.Forward(w, r, id, func(w http.ResponseWriter, r *http.Request) (io.ReadWriteCloser, error) {
		taken := new(backend)
		r = r.WithContext(context.WithValue(r.Context(), backendKey{}, taken))
		r.Header = r.Header.Clone()
		// What a client sends under this name must not reach the backend: that one
		// believes it.
		r.Header.Del("X-Real-Ip")
		if id.RealIP != "" {
			r.Header.Set("X-Real-Ip", id.RealIP)
		}
		err := p.handler.ServeHTTP(w, r, next)
		if failed, ok := errors.AsType[caddyhttp.HandlerError](err); ok && failed.StatusCode != 0 {
			err = &gateway.HandshakeError{Status: failed.StatusCode, Err: err} // counted under its status
		}
		return taken.take(), err
	})
}

// notBesideProxy returns an option that is set and has no meaning beside
// reverse_proxy, or "".
func (h *Handler) notBesideProxy() string {
	for option, set := range map[string]bool{
		"subprotocols":     h.Subprotocols != nil,
		"join":             h.Join != nil,
		"session":          h.Session != nil,
		"max_message_size": h.MaxMessageSize != 0,
		"message_rate":     h.MessageRate != nil,
		"send_buffer":      h.SendBuffer != nil,
		"write_timeout":    h.WriteTimeout != 0,
		"ping":             h.Ping != nil,
		"heartbeat":        h.Heartbeat != nil,
		"compression":      h.Compression != nil,
		"logic":            h.LogicRaw != nil,
	} {
		if set {
			return option
		}
	}
	return ""
}

func errBesideProxy(option string) error {
	return fmt.Errorf("option %s has no meaning with reverse_proxy: allowed beside it are %s", option, strings.Join(besideProxy, ", "))
}

// checkProxyOptions refuses options of a Caddyfile that have no meaning beside
// reverse_proxy.
func (h *Handler) checkProxyOptions(given map[string]bool, d *caddyfile.Dispenser) error {
	if !given["reverse_proxy"] {
		return nil
	}
	for _, option := range slices.Sorted(maps.Keys(given)) {
		if option != "reverse_proxy" && !slices.Contains(besideProxy, option) {
			return d.WrapErr(errBesideProxy(option))
		}
	}
	return nil
}

func (h *Handler) parseReverseProxy(d *caddyfile.Dispenser) error {
	h.parsedProxy = new(reverseproxy.Handler)
	if err := h.parsedProxy.UnmarshalCaddyfile(d.NewFromNextSegment()); err != nil {
		return err
	}
	h.encodeProxy()
	return nil
}

func (h *Handler) encodeProxy() {
	h.ReverseProxyRaw = caddyconfig.JSONModuleObject(h.parsedProxy, "handler", "reverse_proxy", nil)
}
