package nats

import (
	"context"
	"log/slog"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap/exp/zapslog"
)

// currentLogger returns a logger to Caddy's default log, whichever it is when a line is
// written: a connection outlives the configuration that made it, and the files that
// that one logged to.
func currentLogger() *slog.Logger {
	return slog.New(currentLog{func(h slog.Handler) slog.Handler { return h }})
}

type currentLog struct {
	with func(slog.Handler) slog.Handler // adds attributes and groups
}

func (l currentLog) handler() slog.Handler {
	const never = slog.Level(127)
	name := string((*NATS)(nil).CaddyModule().ID)
	return l.with(zapslog.NewHandler(caddy.Log().Core(), zapslog.WithName(name), zapslog.AddStacktraceAt(never)))
}

// Enabled asks the log that there is now.
func (l currentLog) Enabled(ctx context.Context, level slog.Level) bool {
	return l.handler().Enabled(ctx, level)
}

// Handle writes to the log that there is now.
func (l currentLog) Handle(ctx context.Context, r slog.Record) error {
	return l.handler().Handle(ctx, r)
}

// WithAttrs returns a handler that adds attributes.
func (l currentLog) WithAttrs(attrs []slog.Attr) slog.Handler {
	return currentLog{func(h slog.Handler) slog.Handler { return l.with(h).WithAttrs(attrs) }}
}

// WithGroup returns a handler that puts what is added into a group.
func (l currentLog) WithGroup(name string) slog.Handler {
	return currentLog{func(h slog.Handler) slog.Handler { return l.with(h).WithGroup(name) }}
}

// Interface guards
var _ slog.Handler = currentLog{}
