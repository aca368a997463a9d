package webhook

import (
	"log/slog"
	"net/http"
)

// Fake makes the logic log to l and, unless rt is nil, send its requests to rt.
func (w *Webhook) Fake(l *slog.Logger, rt http.RoundTripper) {
	w.log = l
	b := w.backend.Load()
	b.log = l
	if rt != nil {
		b.client.Transport = rt
	}
}

// KeepIdle makes idle connections stay until Cleanup.
func (w *Webhook) KeepIdle() { w.backend.Load().client.Transport.(*http.Transport).IdleConnTimeout = 0 }
