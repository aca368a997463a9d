package gatewaytest

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// Logger returns a logger that writes to the test's log.
func Logger(t testing.TB) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// Log keeps log records, to be looked at by a test.
type Log struct {
	mu      sync.Mutex
	records []Record // guarded by mu
}

// Record is one log line.
type Record struct {
	Level    slog.Level
	Message  string
	Attrs    map[string]any
	Function string // that logged it; empty if unknown
}

// Logger returns a logger that writes here.
func (l *Log) Logger() *slog.Logger { return slog.New(logHandler{log: l}) }

// Find returns the records whose message contains text.
func (l *Log) Find(text string) []Record {
	l.mu.Lock()
	defer l.mu.Unlock()
	var found []Record
	for _, r := range l.records {
		if strings.Contains(r.Message, text) {
			found = append(found, r)
		}
	}
	return found
}

// Wait waits for a record whose message contains text and returns the first.
func (l *Log) Wait(t testing.TB, text string) Record {
	t.Helper()
	const pause = 5 * time.Millisecond
	for waited := time.Duration(0); waited < Wait; waited += pause {
		if found := l.Find(text); len(found) > 0 {
			return found[0]
		}
		time.Sleep(pause)
	}
	t.Fatalf("waited %s for a log line with %q", Wait, text)
	return Record{}
}

type logHandler struct {
	log   *Log
	attrs []slog.Attr
}

func (h logHandler) Enabled(context.Context, slog.Level) bool { return true }

func (h logHandler) Handle(_ context.Context, r slog.Record) error {
	attrs := make(map[string]any, r.NumAttrs()+len(h.attrs))
	for _, a := range h.attrs {
		attrs[a.Key] = a.Value.Resolve().Any()
	}
	r.Attrs(func(a slog.Attr) bool {
		attrs[a.Key] = a.Value.Resolve().Any()
		return true
	})
	function := ""
	if source := r.Source(); source != nil {
		function = source.Function
	}
	h.log.mu.Lock()
	defer h.log.mu.Unlock()
	h.log.records = append(h.log.records, Record{r.Level, r.Message, attrs, function})
	return nil
}

func (h logHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return logHandler{h.log, append(slices.Clip(h.attrs), attrs...)}
}

func (h logHandler) WithGroup(string) slog.Handler { return h }
