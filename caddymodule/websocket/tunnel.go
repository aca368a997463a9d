package websocket

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/headers"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"
)

func init() {
	caddy.RegisterModule(&TunnelTransport{})
}

// tunnelProtocol is the name of TunnelTransport among reverse_proxy's transports.
const tunnelProtocol = "websocket_tunnel"

// TunnelTransport is a transport of reverse_proxy's around another one. It keeps
// the connection of a handshake that was answered with 101 for the gateway, and
// hands on the answer with a body that is over. The handler `websocket` puts it
// around the transport of its reverse_proxy; it is of no use elsewhere.
type TunnelTransport struct {
	// TransportRaw is the transport that does the work. Default: `http`.
	TransportRaw json.RawMessage `json:"transport,omitempty" caddy:"namespace=http.reverse_proxy.transport inline_key=protocol"`

	inner http.RoundTripper
}

// CaddyModule returns the Caddy module information.
func (*TunnelTransport) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.reverse_proxy.transport." + tunnelProtocol,
		New: func() caddy.Module { return new(TunnelTransport) },
	}
}

// withTunnel returns the configuration of a reverse_proxy with the tunnel around
// its transport.
func withTunnel(raw json.RawMessage) (json.RawMessage, error) {
	var config map[string]json.RawMessage
	if err := json.Unmarshal(raw, &config); err != nil {
		return nil, err
	}
	if name := string(config["handler"]); name != `"reverse_proxy"` {
		return nil, fmt.Errorf("its handler is %s: allowed is reverse_proxy", name)
	}
	wrapped := map[string]any{"protocol": tunnelProtocol}
	if inner, ok := config["transport"]; ok {
		wrapped["transport"] = inner
	}
	transport, err := json.Marshal(wrapped)
	if err != nil {
		return nil, err
	}
	config["transport"] = transport
	return json.Marshal(config)
}

// Provision loads the transport that does the work.
func (t *TunnelTransport) Provision(ctx caddy.Context) error {
	if t.TransportRaw == nil {
		t.TransportRaw = json.RawMessage(`{"protocol":"http"}`)
	}
	module, err := ctx.LoadModule(t, "TransportRaw")
	if err != nil {
		return fmt.Errorf("loading the transport: %w", err)
	}
	inner, ok := module.(http.RoundTripper)
	if !ok {
		return fmt.Errorf("the transport %T is no http.RoundTripper", module)
	}
	t.inner = inner
	return nil
}

// RoundTrip asks the backend.
func (t *TunnelTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := t.inner.RoundTrip(r)
	if err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
		return resp, err
	}
	taken, ok := r.Context().Value(backendKey{}).(*backend)
	conn, writable := resp.Body.(io.ReadWriteCloser)
	if ok && writable {
		taken.keep(conn)
		resp.Body = over{}
	}
	return resp, nil
}

// What follows answers for the inner transport: reverse_proxy asks its transport
// for these interfaces, whose absence means what is returned here without them.

// ProxyProtocolEnabled tells whether the PROXY protocol is spoken to the backend.
func (t *TunnelTransport) ProxyProtocolEnabled() bool {
	inner, ok := t.inner.(reverseproxy.ProxyProtocolTransport)
	return ok && inner.ProxyProtocolEnabled()
}

// RequiresContentLength tells whether bodies must have a known length.
func (t *TunnelTransport) RequiresContentLength() bool {
	inner, ok := t.inner.(reverseproxy.ContentLengthRequiredTransport)
	return ok && inner.RequiresContentLength()
}

// DefaultBufferSizes returns how much of bodies is buffered.
func (t *TunnelTransport) DefaultBufferSizes() (request, response int64) {
	if inner, ok := t.inner.(reverseproxy.BufferedTransport); ok {
		return inner.DefaultBufferSizes()
	}
	return 0, 0
}

// OverrideHealthCheckScheme chooses http or https for a health check.
func (t *TunnelTransport) OverrideHealthCheckScheme(base *url.URL, port string) {
	if inner, ok := t.inner.(reverseproxy.HealthCheckSchemeOverriderTransport); ok {
		inner.OverrideHealthCheckScheme(base, port)
	}
}

// RequestHeaderOps returns what is done to a request's header.
func (t *TunnelTransport) RequestHeaderOps() *headers.HeaderOps {
	if inner, ok := t.inner.(reverseproxy.RequestHeaderOpsTransport); ok {
		return inner.RequestHeaderOps()
	}
	return nil
}

// backend holds a connection that was taken from reverse_proxy.
type backend struct{ conn io.ReadWriteCloser }

type backendKey struct{}

// keep keeps a connection in place of the one before, which a retry gave up.
func (b *backend) keep(conn io.ReadWriteCloser) {
	if b.conn != nil {
		_ = b.conn.Close()
	}
	b.conn = conn
}

// take returns the connection, as an interface that is nil if there is none.
func (b *backend) take() io.ReadWriteCloser { return b.conn }

// over is a connection that has ended.
type over struct{}

func (over) Read([]byte) (int, error)    { return 0, io.EOF }
func (over) Write(p []byte) (int, error) { return len(p), nil }
func (over) Close() error                { return nil }

// Interface guards
var (
	_ caddy.Provisioner                                = (*TunnelTransport)(nil)
	_ http.RoundTripper                                = (*TunnelTransport)(nil)
	_ reverseproxy.ProxyProtocolTransport              = (*TunnelTransport)(nil)
	_ reverseproxy.ContentLengthRequiredTransport      = (*TunnelTransport)(nil)
	_ reverseproxy.BufferedTransport                   = (*TunnelTransport)(nil)
	_ reverseproxy.HealthCheckSchemeOverriderTransport = (*TunnelTransport)(nil)
	_ reverseproxy.RequestHeaderOpsTransport           = (*TunnelTransport)(nil)
)
