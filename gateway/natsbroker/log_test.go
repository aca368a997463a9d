package natsbroker

import (
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-websocket/caddy-websocket/gateway/gatewaytest"
)

// A server that is away for a night is a line a minute, not one for every attempt.
func TestOneLineAMinuteOfEachKind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log gatewaytest.Log
		limited := newLimitedLog(log.Logger())
		for range 2 * 60 {
			limited.line(slog.LevelWarn, "lost")
			limited.line(slog.LevelWarn, "failed")
			time.Sleep(time.Second)
		}
		for _, kind := range []string{"lost", "failed"} {
			if n := len(log.Find(kind)); n != 2 {
				t.Errorf("%d lines of %q in two minutes, want 2", n, kind)
			}
		}
	})
}
