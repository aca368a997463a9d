package websocket_test

import (
	"context"
	"net/http"
	"strconv"
	"sync/atomic"
	"testing"

	"go.opentelemetry.io/contrib/exporters/autoexport"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/caddy-websocket/caddy-websocket/gateway"
)

// spans is where Caddy's directive `tracing` exports to, of the test that runs.
var spans atomic.Pointer[tracetest.InMemoryExporter]

func init() {
	autoexport.RegisterSpanExporter("websocket_test", func(context.Context) (sdktrace.SpanExporter, error) {
		e := tracetest.NewInMemoryExporter()
		spans.Store(e)
		return e, nil
	})
}

// tracedStart is start with tracing to memory.
func tracedStart(t *testing.T, sites string) *server {
	t.Helper()
	t.Setenv("OTEL_TRACES_EXPORTER", "websocket_test")
	t.Setenv("OTEL_BSP_SCHEDULE_DELAY", "10")
	t.Setenv("OTEL_SERVICE_NAME", "test")
	return start(t, sites)
}

// span waits for the n-th span of this name that was exported.
func (s *server) span(name string, n int) tracetest.SpanStub {
	s.t.Helper()
	var found []tracetest.SpanStub
	s.waitFor("a span "+name, func() bool {
		found = nil
		for _, span := range spans.Load().GetSpans() {
			if span.Name == name {
				found = append(found, span)
			}
		}
		return len(found) > n
	})
	return found[n]
}

// attributes returns those of a span, as text.
func attributes(span tracetest.SpanStub) map[string]string {
	all := make(map[string]string)
	for _, a := range span.Attributes {
		all[string(a.Key)] = a.Value.String()
	}
	return all
}

// A slow page load is looked at in a trace, and from there the way must lead to the
// lines of the log about the same connection.
func TestSpanAndAccessLogNameTheClient(t *testing.T) {
	inside := make(chan trace.SpanContext, 1)
	hook := func(c *gateway.Client, r *http.Request) {
		if err := c.Bind("tom"); err != nil {
			t.Error(err)
		}
		inside <- trace.SpanContextFromContext(r.Context())
	}
	probeConnect.Store(&hook)
	defer probeConnect.Store(nil)
	s := tracedStart(t, `HTTP {
		log
		log_append who {http.websocket.client_id}
		tracing {
			span page
		}
		websocket /ws {
			logic probe x
		}
	}`)
	c := s.dial("ws:/ws", "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
	c.ask("user", "tom")
	id := s.log.wait(t, "client connected")["client"].(string)
	if entry := s.log.wait(t, "handled request"); entry["websocket_client"] != id || entry["who"] != id {
		t.Errorf("the access log has %v and, by log_append, %v; want %s", entry["websocket_client"], entry["who"], id)
	}
	request, handshake := s.span("page", 0), s.span("websocket handshake", 0)
	if handshake.Parent.SpanID() != request.SpanContext.SpanID() || handshake.SpanContext.TraceID().String() != "0af7651916cd43dd8448eb211c80319c" {
		t.Errorf("the span's parent is %v and its trace %v, want the request's %v", handshake.Parent.SpanID(), handshake.SpanContext.TraceID(), request.SpanContext)
	}
	if got := <-inside; got.SpanID() != handshake.SpanContext.SpanID() {
		t.Errorf("OnConnect was called in span %v, want %v", got.SpanID(), handshake.SpanContext.SpanID())
	}
	got := attributes(handshake)
	for name, want := range map[string]string{
		"websocket.client_id": id, "websocket.endpoint": "/ws", "websocket.gateway": "default",
		"client.address": "127.0.0.1", "enduser.id": "tom", "http.response.status_code": "101",
	} {
		if got[name] != want {
			t.Errorf("%s is %q, want %q", name, got[name], want)
		}
	}
	if handshake.Status.Code != codes.Unset {
		t.Errorf("the span's status is %v, want none", handshake.Status)
	}
	c.leave(1000, "")
	s.log.wait(t, "client gone", "client", id)
}

// The id belongs into the access log whether there is tracing or not, and for
// clients of a backend, too; requests that became no client have none.
func TestAccessLogNamesTheClientWithoutTracing(t *testing.T) {
	b := newBackend(t, false)
	s := start(t, `HTTP {
		log
		websocket /ws {
			logic echo
		}
		websocket /proxied {
			reverse_proxy `+b.addr()+`
		}
		respond "no client"
	}`)
	s.dial("ws:/ws")
	s.dial("ws:/proxied")
	for _, endpoint := range []string{"/ws", "/proxied"} {
		id := s.log.wait(t, "client connected", "endpoint", endpoint)["client"]
		s.log.wait(t, "handled request", "status", 101.0, "websocket_client", id)
	}
	s.request("GET /ws HTTP/1.1\nHost: " + s.http.String() + "\n\n")
	s.refused(http.StatusForbidden, "ws:/ws", "Origin: https://evil.example")
	for _, status := range []float64{200, 403} {
		if entry := s.log.wait(t, "handled request", "status", status); entry["websocket_client"] != nil {
			t.Errorf("a request that was answered with %v has the client %v", status, entry["websocket_client"])
		}
	}
}

// Whose fault it was that a handshake failed is what colours a trace: the server's
// are errors, the client's are not.
func TestSpanOfARefusedHandshake(t *testing.T) {
	b := newBackend(t, false)
	hook := func(_ *gateway.Client, r *http.Request) {
		if r.URL.Query().Has("panic") {
			panic("as it should")
		}
	}
	probeConnect.Store(&hook)
	defer probeConnect.Store(nil)
	s := tracedStart(t, `HTTP {
		tracing
		websocket /ws {
			logic probe x
		}
		websocket /full {
			max_clients 1
		}
		websocket /proxied {
			reverse_proxy `+b.addr()+`
		}
		websocket /dead {
			reverse_proxy 127.0.0.1:1
		}
	}`)
	s.dial("ws:/full")
	s.span("websocket handshake", 0)
	for i, tt := range []struct {
		url    string
		header string
		status int
		code   codes.Code
	}{
		{"ws:/ws", "Origin: https://evil.example", 403, codes.Unset},
		{"ws:/ws?panic", "X-A: b", 500, codes.Error},
		{"ws:/full", "X-A: b", 503, codes.Error},
		{"ws:/proxied?refuse", "X-A: b", 418, codes.Unset},
		{"ws:/dead", "X-A: b", 502, codes.Error},
	} {
		s.refused(tt.status, tt.url, tt.header)
		span := s.span("websocket handshake", i+1)
		got := attributes(span)
		if got["http.response.status_code"] != strconv.Itoa(tt.status) || span.Status.Code != tt.code {
			t.Errorf("%s: the span has status %q and %v, want %d and %v", tt.url, got["http.response.status_code"], span.Status, tt.status, tt.code)
		}
		if id, ok := got["websocket.client_id"]; ok {
			t.Errorf("%s: the span names client %s, though there is none", tt.url, id)
		}
	}
	c := s.dial("ws:/proxied")
	fields(t, c)
	c.ask("tom", "tom")
	if got := attributes(s.span("websocket handshake", 6)); got["http.response.status_code"] != "101" || got["websocket.client_id"] == "" || got["websocket.endpoint"] != "/proxied" {
		t.Errorf("the span of a proxied client has %v", got)
	}
}

// Who samples one request in a thousand pays for that one only; and middleware
// decorates the answer as it does without.
func TestRequestThatIsNotSampledHasNoSpan(t *testing.T) {
	recording := make(chan bool, 1)
	hook := func(_ *gateway.Client, r *http.Request) {
		recording <- trace.SpanFromContext(r.Context()).IsRecording()
	}
	probeConnect.Store(&hook)
	defer probeConnect.Store(nil)
	for sampler, want := range map[string]bool{"always_off": false, "always_on": true} {
		t.Run(sampler, func(t *testing.T) {
			t.Setenv("OTEL_TRACES_SAMPLER", sampler)
			s := tracedStart(t, `HTTP {
				encode
				header >X-Deferred later
				tracing
				websocket /ws {
					logic probe x
				}
			}`)
			c := s.dial("ws:/ws")
			if got := c.resp.Header.Get("X-Deferred"); got != "later" {
				t.Errorf("X-Deferred is %q, want later", got)
			}
			if got := <-recording; got != want {
				t.Errorf("OnConnect was called in a span that records: %v, want %v", got, want)
			}
			c.ask("tom", "tom")
		})
	}
}
