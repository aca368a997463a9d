package natsbroker

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-websocket/caddy-websocket/e2e/internal/natsserver"
	"github.com/caddy-websocket/caddy-websocket/gateway/brokertest"
	"github.com/caddy-websocket/caddy-websocket/gateway/gatewaytest"
	"github.com/caddy-websocket/caddy-websocket/gateway/natsbroker"
)

// What is true of the memory broker, with which logic is tested, is true of NATS.
func TestBrokerPassesTheSuite(t *testing.T) {
	testSuite(t, natsserver.Start(t))
}

// In a cluster each process is connected to another server.
func TestBrokerOverAClusterPassesTheSuite(t *testing.T) {
	testSuite(t, startCluster(t)...)
}

// What gateways do together they do over a real broker, whose subscriptions take a while.
func TestGatewaysOverNATSAreOne(t *testing.T) {
	testGateways(t, natsserver.Start(t))
}

// In a cluster a subscription is known at one server before it is at the others.
func TestGatewaysOverAClusterAreOne(t *testing.T) {
	testGateways(t, startCluster(t)...)
}

func startCluster(t *testing.T) []*natsserver.Server {
	t.Helper()
	return natsserver.StartCluster(t, 3, natsserver.Hidden)
}

func testSuite(t *testing.T, servers ...*natsserver.Server) {
	brokertest.Run(t, fleet(servers, 2<<20)) // soon full
}

func testGateways(t *testing.T, servers ...*natsserver.Server) {
	brokertest.RunGateways(t, nil, fleet(servers, natsbroker.DefaultReceiveBuffer))
}

var fleets atomic.Int64

// fleet opens brokers that are connected to one of the servers each, in turn.
func fleet(servers []*natsserver.Server, buffer int) func(*testing.T) brokertest.Fleet {
	return func(*testing.T) brokertest.Fleet {
		prefix, opened := fmt.Sprint("fleet-", fleets.Add(1)), 0
		return func(t testing.TB) brokertest.Peer {
			proxy := natsserver.NewProxy(t, servers[opened%len(servers)].Address())
			opened++
			broker := open(t, natsbroker.Options{
				URLs:          []string{proxy.URL()},
				Prefix:        prefix,
				ReceiveBuffer: int64(buffer),
			})
			return brokertest.Peer{
				Broker: broker, Close: broker.Close, Buffer: buffer,
				Cut: proxy.Cut, Heal: proxy.Heal,
			}
		}
	}
}

// open makes a broker that ends with the test. It is impatient, so that tests need not
// be patient.
func open(t testing.TB, o natsbroker.Options) *natsbroker.Broker {
	t.Helper()
	if o.ReconnectWait == 0 {
		o.ReconnectWait = 20 * time.Millisecond
	}
	if o.Logger == nil {
		o.Logger = gatewaytest.Logger(t)
	}
	broker, err := natsbroker.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(broker.Close)
	return broker
}
