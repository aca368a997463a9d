package natsbroker

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// limitedLog writes one line a minute of each kind: what is wrong with a server is wrong
// with every message.
type limitedLog struct {
	to *slog.Logger

	mu   sync.Mutex
	last map[string]time.Time // guarded by mu; by message
}

func newLimitedLog(to *slog.Logger) *limitedLog {
	return &limitedLog{to: to, last: make(map[string]time.Time)}
}

func (l *limitedLog) line(level slog.Level, message string, attrs ...slog.Attr) {
	now := time.Now()
	l.mu.Lock()
	last, before := l.last[message]
	if before && now.Sub(last) < time.Minute {
		l.mu.Unlock()
		return
	}
	l.last[message] = now
	l.mu.Unlock()
	l.to.LogAttrs(context.Background(), level, message, attrs...) //nolint:sloglint // all callers give constants
}
