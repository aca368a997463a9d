package api

import (
	"errors"
	"net/http"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddy-websocket/caddy-websocket/gateway/httpapi"
)

// refuse answers 401, and logs who was refused.
func (h *Handler) refuse(w http.ResponseWriter, r *http.Request, err error) {
	ip, _ := caddyhttp.GetVar(r.Context(), caddyhttp.ClientIPVarKey).(string)
	if suppressed, ok := h.refused.take(ip, time.Now()); ok {
		attrs := []any{"client_ip", ip, "gateway", h.Gateway, "error", err.Error()}
		if suppressed > 0 {
			attrs = append(attrs, "suppressed", suppressed)
		}
		h.log.Warn("a call of the push API was refused", attrs...)
	}
	challenge := "Bearer" // RFC 6750 section 3: no error if there was no token
	if errors.Is(err, errWrongToken) {
		challenge += ` error="invalid_token"`
	}
	w.Header().Set("WWW-Authenticate", challenge)
	httpapi.Refuse(w, r, http.StatusUnauthorized, httpapi.CodeUnauthorized, err.Error())
}

// failures bounds the log lines about refusals: one a second for each address, and
// some for all together.
type failures struct {
	mu         sync.Mutex
	begin      time.Time           // guarded by mu; of the second
	logged     map[string]struct{} // guarded by mu; addresses, in it
	suppressed int                 // guarded by mu; since the last line
}

// take takes a line, if there is one, and returns how many were refused before it.
func (f *failures) take(ip string, now time.Time) (suppressed int, ok bool) {
	const perSecond = 20
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.logged == nil || now.Sub(f.begin) >= time.Second {
		f.begin, f.logged = now, make(map[string]struct{})
	}
	if _, again := f.logged[ip]; again || len(f.logged) == perSecond {
		f.suppressed++
		return 0, false
	}
	f.logged[ip] = struct{}{}
	suppressed, f.suppressed = f.suppressed, 0
	return suppressed, true
}
