package soak

import (
	"flag"
	"os"
	"testing"
	"time"

	"github.com/caddy-websocket/caddy-websocket/e2e/internal/e2etest"
)

// The defaults are the short form, which ordinary test runs have time for.
var (
	flagClients = flag.Int("soak.clients", 100, "clients that talk over HTTP/1.1")
	flagStreams = flag.Int("soak.streams", 18, "clients over HTTP/2 beside them, and as many over HTTP/3")
	flagShared  = flag.Int("soak.shared", 8, "of these at most so many share a connection; 99 is the most")
	flagSlow    = flag.Int("soak.slow", 10, "clients beside them that stop reading")
	flagReloads = flag.Int("soak.reloads", 12, "reloads, of which one in three is broken on purpose")
	flagGap     = flag.Duration("soak.gap", 300*time.Millisecond, "mean pause between two reloads")
	flagPause   = flag.Duration("soak.pause", 400*time.Millisecond, "mean pause of a client between messages")
	flagLife    = flag.Duration("soak.life", 2*time.Second, "mean time that a client stays that comes and goes")
	flagWorst   = flag.Duration("soak.worst", 10*time.Second, "an answer over HTTP/1.1 that takes longer fails the test; over all, 30 s")
	flagPeers   = flag.Bool("soak.peers", false, "give the same load to Caddy's reverse_proxy and to nginx")
	flagReport  = flag.String("soak.report", "", "file that the report is written to")
)

func TestMain(m *testing.M) {
	os.Exit(e2etest.Main(m))
}
