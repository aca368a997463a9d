// Package webhook is message logic in any language: what clients do is posted to
// an HTTP backend, and what the backend answers is done.
package webhook

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-websocket/caddy-websocket/gateway"
)

func init() {
	caddy.RegisterModule(&Webhook{})
}

// Defaults of the options.
const (
	DefaultTimeout       = 10 * time.Second
	DefaultRetries       = 3
	DefaultMaxConcurrent = 64
	DefaultBatchSize     = 100
	DefaultBatchInterval = 500 * time.Millisecond
)

// Webhook posts what happens to clients to an HTTP backend (PHP-FPM, Laravel, Node,
// Python) and does the commands that the backend answers. Requests and answers
// are in docs/webhook.md, signatures are those of standardwebhooks.com.
//
// A client's events reach the backend one at a time and in order; those of
// different clients do at the same time, up to max_concurrent. A message is sent
// once, whatever happens; connect and close are tried again and may arrive twice.
type Webhook struct {
	// URL is where events are posted to, http or https. Placeholders like
	// `{env.BACKEND}` are resolved when the configuration is loaded, here, in Secret
	// and in Headers; one that is empty is an error.
	URL string `json:"url"`

	// Events are those that are sent: `connect`, `message`, `close`. Without connect every
	// client is let in, without message messages are dropped. Default: all.
	Events []string `json:"events,omitempty"`

	// Secret is the key of the signatures: `whsec_` and base64, or any text, whose
	// bytes are the key. Default: requests are not signed.
	Secret string `json:"secret,omitempty"`

	// Timeout is how long the backend may take for one request. A handshake may take
	// twice as long, with its retries. Default: 10s.
	Timeout caddy.Duration `json:"timeout,omitempty"`

	// Retries is how often connect and close are sent again after no answer or a 5xx,
	// with pauses of 250 ms, 500 ms, 1 s and so on. A message is sent again only if no
	// connection could be made. 0 is never. Default: 3.
	Retries *int `json:"retries,omitempty"`

	// MaxConcurrent is how many requests may be in flight; what is more waits, and with
	// it the client that it is about, not more of its messages. A request is in flight
	// until the commands of its answer are done. Default: 64.
	MaxConcurrent int `json:"max_concurrent,omitempty"`

	// Headers are added to every request.
	Headers map[string][]string `json:"headers,omitempty"`

	// CloseBatch gathers close events.
	CloseBatch *CloseBatch `json:"close_batch,omitempty"`

	// OnError says what becomes of a client whose message the backend did not handle:
	// `ignore` keeps it, so that an outage of the backend costs messages and not
	// connections; `close` closes it with 1011. Either way there is a log line. Default:
	// `ignore`.
	OnError string `json:"on_error,omitempty"`

	// UnixSocket is the path of a socket to connect to, whatever the host of URL.
	UnixSocket string `json:"unix_socket,omitempty"`

	// TLSTrustedCACerts are PEM files with the authorities that the backend's
	// certificate may come from. Default: those of the system.
	TLSTrustedCACerts []string `json:"tls_trusted_ca_certs,omitempty"`

	// TLSInsecureSkipVerify accepts any certificate: for tests.
	TLSInsecureSkipVerify bool `json:"tls_insecure_skip_verify,omitempty"`

	log     *slog.Logger
	backend atomic.Pointer[backend] // nil after Cleanup
	closes  *closeQueue             // shared with the instances before and after this one
	retired sync.Once               // this instance's workers have left the queue
}

// CloseBatch says when close events are sent.
type CloseBatch struct {
	// Size is how many make one request. Default: 100.
	Size int `json:"size,omitempty"`

	// Interval is how long the first of them waits for others. Default: 500ms.
	Interval caddy.Duration `json:"interval,omitempty"`
}

// CaddyModule returns the Caddy module information.
func (*Webhook) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "websocket.logic.webhook", New: func() caddy.Module { return new(Webhook) }}
}

// Provision fills in the defaults and prepares the connections.
func (w *Webhook) Provision(ctx caddy.Context) error {
	w.log = ctx.Slogger()
	w.setDefaults()
	if err := w.check(); err != nil {
		return err
	}
	b, err := newBackend(w, w.log)
	if err != nil {
		return err
	}
	w.backend.Store(b)
	w.closes = newCloseQueue()
	return nil
}

// Cleanup gives up the connections to the backend.
func (w *Webhook) Cleanup() error {
	if b := w.backend.Swap(nil); b != nil {
		b.client.CloseIdleConnections()
	}
	return nil
}

// Inherit goes on with the close events that the instance before has not sent yet.
func (w *Webhook) Inherit(old gateway.Logic) {
	if o, ok := old.(*Webhook); ok {
		w.closes = o.closes
	}
}

// OnStart starts sending close events.
func (w *Webhook) OnStart(g *gateway.Gateway) error {
	w.closes.join()
	for range closeWorkers {
		g.Go("webhook: close events", func(ctx context.Context) { w.sendCloses(ctx, g) })
	}
	return nil
}

// OnConnect asks the backend whether the client may come in.
func (w *Webhook) OnConnect(c *gateway.Client, r *http.Request) error {
	if !w.sends(eventConnect) {
		return nil
	}
	b := w.backend.Load()
	if b == nil {
		return refusal(http.StatusServiceUnavailable, nil, errEnded)
	}
	body, err := newRequest(connectEvent(c, r))
	if err != nil {
		return refusal(http.StatusInternalServerError, nil, err)
	}
	// A visitor who has given up need not be waited for, nor one whom nobody answers.
	ctx, cancel := context.WithTimeout(c.Context(), 2*b.timeout)
	defer cancel()
	defer context.AfterFunc(r.Context(), cancel)()
	failed := b.deliver(&delivery{
		kind: eventConnect, body: body, again: true, requests: ctx, waits: ctx,
		use: func(a *answer) error {
			if err := a.admit(c); err != nil {
				return err
			}
			b.do(c.Gateway(), a.Commands, aboutClient(c))
			return nil
		},
	})
	if failed == nil {
		return nil
	}
	gone := r.Context().Err() != nil
	refused := !gone && failed.status >= 400 && failed.status < 500
	if !refused && !failed.unsent && w.sends(eventClose) {
		// The backend may believe that the client is there.
		w.queueClose(c, gateway.CloseReason{Code: gateway.CloseAbnormal, Reason: "handshake failed", ByPeer: gone})
	}
	if !gone && !failed.deliberate() {
		b.report("connect was not answered as it should be: the handshake is refused", failed, aboutClient(c)...)
	}
	return failed.refusal()
}

// OnMessage lets the backend handle the message.
func (w *Webhook) OnMessage(c *gateway.Client, m gateway.Message) error {
	b := w.backend.Load()
	if b == nil || !w.sends(eventMessage) {
		return nil
	}
	body, err := newRequest(messageEvent(c, m))
	if err != nil {
		return err
	}
	ctx := c.Context()
	failed := b.deliver(&delivery{
		kind: eventMessage, body: body, requests: ctx, waits: ctx,
		use: func(a *answer) error {
			if err := a.onlyCommands(); err != nil {
				return err
			}
			b.do(c.Gateway(), a.Commands, aboutClient(c))
			return nil
		},
	})
	if failed == nil || ctx.Err() != nil {
		return nil
	}
	b.report("message was not handled by the backend", failed, aboutClient(c)...)
	if w.OnError == onErrorClose {
		return &gateway.CloseError{Code: gateway.CloseInternalError, Reason: "logic failed"}
	}
	return nil
}

// OnClose has the backend told, soon.
func (w *Webhook) OnClose(c *gateway.Client, reason gateway.CloseReason) {
	if w.sends(eventClose) {
		w.queueClose(c, reason)
	}
}

func (w *Webhook) sends(kind string) bool { return slices.Contains(w.Events, kind) }

// aboutClient is what log lines say of a client.
func aboutClient(c *gateway.Client) []any {
	return []any{"client", c.ID(), "client_ip", c.RealIP(), "endpoint", c.Endpoint(), "user", c.User()}
}

// refusal returns the refusal of a handshake. header is that of the backend's answer.
func refusal(status int, header http.Header, err error) error {
	refused := &gateway.HandshakeError{Status: status, Header: make(http.Header), Err: err}
	for _, name := range []string{"Retry-After", "Www-Authenticate"} {
		if values := header.Values(name); len(values) > 0 {
			refused.Header[name] = values
		}
	}
	if status == http.StatusServiceUnavailable && refused.Header.Get("Retry-After") == "" {
		refused.Header.Set("Retry-After", "5")
	}
	return refused
}

// errEnded is the failure of what comes after Cleanup.
var errEnded = errors.New("the configuration has ended")

// Interface guards
var (
	_ caddy.Provisioner  = (*Webhook)(nil)
	_ caddy.CleanerUpper = (*Webhook)(nil)
	_ gateway.Logic      = (*Webhook)(nil)
	_ gateway.Starter    = (*Webhook)(nil)
	_ gateway.Inheritor  = (*Webhook)(nil)
)
