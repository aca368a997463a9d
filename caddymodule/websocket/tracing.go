package websocket

import (
	"errors"
	"net/http"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/zap"

	"github.com/caddy-websocket/caddy-websocket/gateway"
)

// scopeName is what traces name as the origin of the spans.
const scopeName = "github.com/caddy-websocket/caddy-websocket/caddymodule/websocket"

// spanName is the name of the span of a handshake.
const spanName = "websocket handshake"

// answerFunc answers a handshake. The client is nil if it was refused.
type answerFunc func(http.ResponseWriter, *http.Request, gateway.Identity) (*gateway.Client, error)

// traced answers a handshake within a span of its own, if the directive `tracing`
// records the request. The span ends with the handshake, not with the connection,
// which over HTTP/2 and HTTP/3 is when answer returns: it would be seen too late, or
// never.
func (h *Handler) traced(w http.ResponseWriter, r *http.Request, id gateway.Identity, answer answerFunc) error {
	parent := trace.SpanFromContext(r.Context())
	if !parent.IsRecording() {
		id.Opened = func(c *gateway.Client) { h.opened(r, c) }
		c, err := answer(w, r, id)
		identify(r, c) // it may have been lost when it was answered
		return h.refuse(w, err)
	}
	ctx, span := parent.TracerProvider().Tracer(scopeName).Start(r.Context(), spanName)
	defer span.End() // also if a handshake is aborted by a panic
	key := h.key()
	span.SetAttributes(attribute.String("websocket.gateway", key.gateway), attribute.String("websocket.endpoint", key.name))
	if id.RealIP != "" {
		span.SetAttributes(attribute.String("client.address", id.RealIP))
	}
	recorder := caddyhttp.NewResponseRecorder(w, nil, nil) // buffers nothing
	opened := false
	id.Opened = func(c *gateway.Client) {
		opened = true
		h.opened(r, c)
		describeHandshake(span, c, id, recorder.Status(), nil)
		span.End()
	}
	c, err := answer(recorder, r.WithContext(ctx), id)
	err = h.refuse(w, err)
	if !opened {
		identify(r, c) // it may have been lost when it was answered
		describeHandshake(span, c, id, recorder.Status(), err)
	}
	return err
}

// describeHandshake writes into the span how a handshake went. status is that of an
// answer that has been written.
func describeHandshake(span trace.Span, c *gateway.Client, id gateway.Identity, status int, err error) {
	user := id.User
	if c != nil {
		user = c.User() // which the logic may have changed
		span.SetAttributes(attribute.String("websocket.client_id", c.ID()))
	}
	if user != "" {
		span.SetAttributes(attribute.String("enduser.id", user))
	}
	if err != nil {
		status = http.StatusInternalServerError
		if refused, ok := errors.AsType[caddyhttp.HandlerError](err); ok {
			status = refused.StatusCode
		}
		span.RecordError(err)
	}
	if status != 0 {
		span.SetAttributes(attribute.Int("http.response.status_code", status))
	}
	if status >= http.StatusInternalServerError {
		text := http.StatusText(status)
		if err != nil {
			text = err.Error()
		}
		span.SetStatus(codes.Error, text)
	}
}

// identify tells the access log and later directives the id of the client, which
// the lines "client connected" and "client gone" have, too, and what it came over.
func identify(r *http.Request, c *gateway.Client) {
	if c == nil {
		return
	}
	if repl, ok := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer); ok {
		repl.Set("http.websocket.client_id", c.ID())
		repl.Set("http.websocket.proto", c.Proto())
	}
	if extra, ok := r.Context().Value(caddyhttp.ExtraLogFieldsCtxKey).(*caddyhttp.ExtraLogFields); ok {
		extra.Set(zap.String("websocket_client", c.ID()))
	}
}
