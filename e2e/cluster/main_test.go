package cluster

import (
	"flag"
	"os"
	"testing"
	"time"

	"github.com/caddy-websocket/caddy-websocket/e2e/internal/e2etest"
)

// The defaults are the short form, which ordinary test runs have time for.
var (
	flagClients = flag.Int("cluster.clients", 600, "clients, over all nodes")
	flagPause   = flag.Duration("cluster.pause", 20*time.Millisecond, "mean pause of each of six senders between two messages")
	flagLoad    = flag.Duration("cluster.load", 300*time.Millisecond, "how long messages are sent before and after what a phase does")
	flagRounds  = flag.Int("cluster.rounds", 1, "messages to each kind of target, from each sender, while nothing is wrong")
	flagTimes   = flag.Int("cluster.times", 1, "how often each phase is run")
	flagReport  = flag.String("cluster.report", "", "file that the report is written to")
)

func TestMain(m *testing.M) {
	os.Exit(e2etest.Main(m))
}

// patience is after how long something that has not come is taken for lost.
const patience = 30 * time.Second

// bound is how long something may take that is promised in so long: on a busy machine
// with the race detector, three times that.
func bound(promised time.Duration) time.Duration {
	if e2etest.Raced() {
		return 3 * promised
	}
	return promised
}
