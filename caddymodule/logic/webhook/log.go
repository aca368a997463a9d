package webhook

import (
	"strings"
	"sync"
	"time"
)

// shownBody is how many bytes of an answer a log line shows.
const shownBody = 200

// report logs a failure.
func (b *backend) report(message string, f *failure, about ...any) {
	attrs := []any{"url", b.where, "error", f.err.Error(), "attempts", f.attempts}
	if f.status != 0 {
		shown := strings.ToValidUTF8(string(f.body[:min(len(f.body), shownBody)]), "\uFFFD")
		attrs = append(attrs, "status", f.status, "body", shown)
	}
	b.logError(message, append(attrs, about...)...)
}

// logError logs an error, unless there have just been many: a backend that is down
// fails for everybody, thousands of times a second.
func (b *backend) logError(message string, attrs ...any) {
	suppressed, ok := b.quota.take(time.Now())
	if !ok {
		return
	}
	if suppressed > 0 {
		attrs = append(attrs, "suppressed", suppressed)
	}
	b.log.Error(message, attrs...) //nolint:sloglint // constants, from a few places
}

// logQuota allows some lines in each second.
type logQuota struct {
	mu         sync.Mutex
	begin      time.Time // guarded by mu; of the second
	lines      int       // guarded by mu; in it
	suppressed int       // guarded by mu; since the last line
}

// take takes a line, if there is one, and returns how many were refused before it.
func (q *logQuota) take(now time.Time) (suppressed int, ok bool) {
	const perSecond = 10
	q.mu.Lock()
	defer q.mu.Unlock()
	if now.Sub(q.begin) >= time.Second {
		q.begin, q.lines = now, 0
	}
	if q.lines == perSecond {
		q.suppressed++
		return 0, false
	}
	q.lines++
	suppressed, q.suppressed = q.suppressed, 0
	return suppressed, true
}
