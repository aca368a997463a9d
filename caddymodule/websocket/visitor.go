package websocket

import (
	"fmt"
	"net/http"
	"net/netip"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddy-websocket/caddy-websocket/gateway"
)

// identity evaluates the lines user, join and session for a handshake.
func (h *Handler) identity(r *http.Request, ip string) gateway.Identity {
	repl := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
	evaluate := func(template string) string {
		value, err := repl.ReplaceOrErr(template, true, true)
		if err != nil {
			return "" // a placeholder is empty
		}
		return value
	}
	id := gateway.Identity{RealIP: ip, User: evaluate(h.User)}
	for _, template := range h.Join {
		if group := evaluate(template); group != "" {
			id.Groups = append(id.Groups, group)
		}
	}
	for key, template := range h.Session {
		if value := evaluate(template); value != "" {
			if id.Session == nil {
				id.Session = make(map[string]any, len(h.Session))
			}
			id.Session[key] = value
		}
	}
	return id
}

// warnUntrusted says once that a proxy seems to stand in front which is not
// trusted, so that everybody has its address.
func (h *Handler) warnUntrusted(r *http.Request, ip string) {
	if r.Header.Get("X-Forwarded-For") == "" {
		return
	}
	if trusted, _ := caddyhttp.GetVar(r.Context(), caddyhttp.TrustedProxyVarKey).(bool); trusted {
		return
	}
	addr, err := netip.ParseAddr(ip)
	if err != nil || !isInternal(addr) {
		return
	}
	h.warned.Do(func() {
		h.log.Warn("a private address that is not a trusted proxy sends X-Forwarded-For: if it is a proxy, all clients seem to have its address",
			"endpoint", h.Name, "remote_ip", ip,
			"to_trust", fmt.Sprintf("{ servers { trusted_proxies static %s; trusted_proxies_strict } } in the global options, each on a line of its own", ip))
	})
}

// sharedSpace is what providers use between their load balancers and the
// machines behind (RFC 6598).
var sharedSpace = netip.MustParsePrefix("100.64.0.0/10")

// isInternal tells whether an address cannot be that of a visitor from the
// Internet.
func isInternal(addr netip.Addr) bool {
	addr = addr.Unmap()
	return addr.IsPrivate() || addr.IsLoopback() || addr.IsLinkLocalUnicast() || sharedSpace.Contains(addr)
}
