package websocket_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-websocket/caddy-websocket/gateway"
)

func init() {
	caddy.RegisterModule(&fakeBroker{})
	caddy.RegisterModule(&noBroker{})
}

// fakeBroker is a broker of this process: `broker fake <key> [unmade|unready]`.
type fakeBroker struct {
	Key  string `json:"key"`
	Fail string `json:"fail,omitempty"`
}

func (*fakeBroker) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "websocket.brokers.fake", New: func() caddy.Module { return new(fakeBroker) }}
}

func (f *fakeBroker) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next()
	args := d.RemainingArgs()
	f.Key = args[0]
	if len(args) > 1 {
		f.Fail = args[1]
	}
	return nil
}

func (f *fakeBroker) BrokerKey() string { return f.Key }

func (f *fakeBroker) NewBroker() (gateway.Broker, error) {
	if f.Fail == "unmade" {
		return nil, errors.New("it cannot be made")
	}
	b := &brokerInMemory{MemoryBroker: gateway.NewMemoryBroker(), key: f.Key}
	brokersMade.mu.Lock()
	defer brokersMade.mu.Unlock()
	brokersMade.list = append(brokersMade.list, b)
	return b, nil
}

func (f *fakeBroker) Ready(_ context.Context, b gateway.Broker, _ []string) error {
	if b.(*brokerInMemory).key != f.Key {
		return fmt.Errorf("asked for %s with %v", f.Key, b)
	}
	if f.Fail == "unready" {
		return errors.New("it is not ready")
	}
	return nil
}

// noBroker is a module that is in the wrong namespace.
type noBroker struct{}

func (*noBroker) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "websocket.brokers.none", New: func() caddy.Module { return new(noBroker) }}
}

// brokersMade are all that were made since the last call of forgetBrokers.
var brokersMade struct {
	mu   sync.Mutex
	list []*brokerInMemory // guarded by mu
}

// forgetBrokers begins a test.
func forgetBrokers() {
	brokersMade.mu.Lock()
	defer brokersMade.mu.Unlock()
	brokersMade.list = nil
}

// brokerInMemory is a broker on which nobody else is. It notes what is done to it in the
// wrong order.
type brokerInMemory struct {
	*gateway.MemoryBroker
	key string

	mu       sync.Mutex
	attached []string // guarded by mu; gateways, one entry for each Attach
	open     int      // guarded by mu; links
	closed   int      // guarded by mu; times
	onClose  func()   // guarded by mu
	wrong    []string // guarded by mu
}

func (b *brokerInMemory) Attach(gatewayName, node string, to gateway.Receiver) (gateway.Link, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed > 0 {
		b.wrong = append(b.wrong, "a gateway attached to it after its end")
	}
	link, err := b.MemoryBroker.Attach(gatewayName, node, to)
	if err != nil {
		return nil, err
	}
	b.attached = append(b.attached, gatewayName)
	b.open++
	return &countedLink{Link: link, broker: b}, nil
}

// Close is of io.Closer.
func (b *brokerInMemory) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed++; b.closed > 1 {
		b.wrong = append(b.wrong, "it was closed again")
	}
	if b.open > 0 {
		b.wrong = append(b.wrong, fmt.Sprintf("it was closed under %d gateways", b.open))
	}
	if b.onClose != nil {
		b.onClose()
	}
	b.MemoryBroker.Close()
	return nil
}

// ended tells whether the broker was closed.
func (b *brokerInMemory) ended() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.closed > 0
}

// users returns the gateways that have attached so far, and how many are attached.
func (b *brokerInMemory) users() (ever []string, now int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.attached), b.open
}

// countedLink counts itself among its broker's.
type countedLink struct {
	gateway.Link
	broker *brokerInMemory
	once   sync.Once
}

// Close is of gateway.Link.
func (l *countedLink) Close() {
	l.Link.Close()
	l.once.Do(func() {
		l.broker.mu.Lock()
		defer l.broker.mu.Unlock()
		l.broker.open--
	})
}

// wantBrokers fails the test unless exactly these were made, by their keys, of which
// those with a + are in use and those with a - have been closed, soon: gateways leave a
// broker when they hear others on the next.
func wantBrokers(t *testing.T, want ...string) {
	t.Helper()
	brokersMade.mu.Lock()
	all := slices.Clone(brokersMade.list)
	brokersMade.mu.Unlock()
	waitFor(t, fmt.Sprintf("the brokers to be %q", want), func() bool {
		var got []string
		for _, b := range all {
			sign := "+"
			if b.ended() {
				sign = "-"
			}
			got = append(got, b.key+sign)
		}
		return slices.Equal(got, want)
	})
	for _, b := range all {
		b.mu.Lock()
		for _, wrong := range b.wrong {
			t.Errorf("broker %s: %s", b.key, wrong)
		}
		b.mu.Unlock()
	}
}

// made returns the broker of this key that was made last.
func made(t *testing.T, key string) *brokerInMemory {
	t.Helper()
	brokersMade.mu.Lock()
	defer brokersMade.mu.Unlock()
	for _, b := range slices.Backward(brokersMade.list) {
		if b.key == key {
			return b
		}
	}
	t.Fatalf("no broker %s was made", key)
	return nil
}

// clustered returns the global option with this broker.
func clustered(broker string) string { return "websocket {\n broker fake " + broker + "\n}\n" }

const siteOfTwoGateways = "HTTP {\n websocket /ws {\n logic probe one\n}\n websocket /other {\n gateway other\n logic probe two\n}\n}\n"

// A connection to a broker is what makes a node one of many: a reload that is about
// something else must not break it, and two gateways need no second one.
func TestBrokerLivesAsLongAsItsSettings(t *testing.T) {
	forgetBrokers()
	s := startWith(t, clustered("a"), siteOfTwoGateways)
	c := s.dial("ws:/ws")
	for _, limit := range []string{"1KiB", "2KiB"} {
		s.mustLoad(clustered("a"), strings.Replace(siteOfTwoGateways, "logic", "max_message_size "+limit+"\n logic", 1))
		c.ask("text", "one")
	}
	wantBrokers(t, "a+")
	s.mustLoad(clustered("b"), siteOfTwoGateways)
	c.ask("text", "one")
	wantBrokers(t, "a-", "b+")
	s.mustLoad("", siteOfTwoGateways)
	c.ask("text", "one")
	wantBrokers(t, "a-", "b-")
	s.mustLoad(clustered("a"), siteOfTwoGateways)
	c.ask("text", "one")
	wantBrokers(t, "a-", "b-", "a+")
}

// The gateways are who the broker is for: each is on the one that the configuration in
// force names, and leaves the one before.
func TestGatewaysUseTheBrokerOfTheConfigurationInForce(t *testing.T) {
	forgetBrokers()
	s := startWith(t, clustered("a"), siteOfTwoGateways)
	wantUsers := func(key string, open int) {
		t.Helper()
		b := made(t, key)
		s.waitFor(fmt.Sprintf("%d gateways on broker %s", open, key), func() bool {
			_, now := b.users()
			return now == open
		})
		if users, _ := b.users(); len(users) != 2 || users[0] == users[1] {
			t.Errorf("on broker %s were %q, want both gateways once", key, users)
		}
	}
	wantUsers("a", 2)
	s.mustLoad(clustered("a"), siteOfTwoGateways)
	wantUsers("a", 2)
	if err := s.load(clustered("b unready"), siteOfTwoGateways); err == nil {
		t.Fatal("loaded with a broker that is not ready")
	}
	wantUsers("a", 2)
	s.mustLoad(clustered("b"), siteOfTwoGateways)
	wantUsers("a", 0)
	wantUsers("b", 2)
	wantBrokers(t, "a-", "b-", "b+")
}

// A configuration that cannot have its broker is refused, by whatever it fails: the
// nodes go on as they are, with their clients.
func TestBrokerThatFailsRefusesTheConfiguration(t *testing.T) {
	for _, tt := range []struct {
		name, globals, err string
		brokers            []string // without the old one
	}{
		{"that cannot be made", clustered("b unmade"), "broker fake: it cannot be made", nil},
		{"that is not ready", clustered("b unready"), "broker fake: it is not ready", []string{"b-"}},
		{"that is the same and not ready", clustered("a unready"), "broker fake: it is not ready", nil},
		{"that is none", "websocket {\n broker none\n}\n", "module websocket.brokers.none is no broker: it lacks NewBroker", nil},
		{"beside an app that cannot start", clustered("b") + "neighbour\n", "neighbour cannot start", []string{"b-"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			forgetBrokers()
			s := startWith(t, clustered("a"), siteOfTwoGateways)
			c := s.dial("ws:/ws")
			f := func() error { return errors.New("neighbour cannot start") }
			neighbourStart.Store(&f)
			defer neighbourStart.Store(nil)
			if err := s.load(tt.globals, siteOfTwoGateways); err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("loading: %v, want an error with %q", err, tt.err)
			}
			c.ask("text", "one")
			s.dial("ws:/other").ask("text", "two")
			wantBrokers(t, append([]string{"a+"}, tt.brokers...)...)
		})
	}
}

// `caddy run` with a broker that has to be there, and is not, says so and ends.
func TestBrokerThatIsNotReadyRefusesTheStart(t *testing.T) {
	forgetBrokers()
	s := newServer(t)
	if err := s.load(clustered("a unready"), siteOfTwoGateways); err == nil || !strings.Contains(err.Error(), "it is not ready") {
		t.Errorf("loading: %v, want an error that says it is not ready", err)
	}
	wantBrokers(t, "a-")
}

// `caddy validate` runs on laptops and in CI, where no broker can be reached.
func TestValidationAsksNoBroker(t *testing.T) {
	forgetBrokers()
	config, err := adapt(t, (&server{t: t}).caddyfile(clustered("a unready"), "http://127.0.0.1:1 {\n websocket /ws\n}\n"))
	if err != nil {
		t.Fatal(err)
	}
	mustProvision(t, string(config))
	b := made(t, "a")
	waitFor(t, "the broker to be closed", b.ended)
	if users, _ := b.users(); len(users) > 0 {
		t.Errorf("gateways %q attached to it", users)
	}
}

// The ends of clients are told to other nodes, too, and a gateway that nobody has any
// more takes its time for them: it must have its broker until then.
func TestBrokerIsClosedWhenTheGatewayHasEnded(t *testing.T) {
	for _, tt := range []struct {
		name string
		end  func(*server) error
	}{
		{"in a reload", func(s *server) error { return s.load("", "HTTP {\n respond ok\n}\n") }},
		{"in a reload that keeps the broker", func(s *server) error { return s.load(clustered("a"), "HTTP {\n respond ok\n}\n") }},
		{"when Caddy stops", func(*server) error { return caddy.Stop() }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			forgetBrokers()
			s := startWith(t, clustered("a"), siteOfTwoGateways)
			c := s.dial("ws:/ws")
			b := made(t, "a")
			gateways := []*gateway.Gateway{gatewayNow(t, ""), gatewayNow(t, "other")}
			b.mu.Lock()
			b.onClose = func() {
				for _, g := range gateways {
					select {
					case <-g.Done():
					default:
						t.Errorf("the broker is closed before gateway %s has ended", g.Name())
					}
				}
			}
			b.mu.Unlock()
			gone := make(chan struct{})
			go func() {
				defer close(gone)
				c.wantClose(gateway.CloseGoingAway)
			}()
			if err := tt.end(s); err != nil {
				t.Fatal(err)
			}
			<-gone
			if strings.Contains(tt.name, "keeps") {
				wantBrokers(t, "a+")
				return
			}
			wantBrokers(t, "a-")
		})
	}
}
