package gateway

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// ledger is a broker that notes what one node does, and is nobody else's.
type ledger struct {
	mu         sync.Mutex
	to         Receiver
	subscribed map[string]int // guarded by mu; how often
	calls      int            // guarded by mu; of Subscribe and Unsubscribe
	published  [][]byte       // guarded by mu
	size       int
	forgets    bool // what is published
}

func (l *ledger) Attach(_, _ string, to Receiver) (Link, error) {
	l.to = to
	l.subscribed = make(map[string]int)
	return l, nil
}

func (l *ledger) Publish(_ string, data []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(data) > l.size {
		return fmt.Errorf("%d bytes", len(data))
	}
	if !l.forgets {
		l.published = append(l.published, slices.Clone(data))
	}
	return nil
}

func (l *ledger) Subscribe(subject string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.subscribed[subject]++
	l.calls++
}

func (l *ledger) Unsubscribe(subject string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.subscribed, subject)
	l.calls++
}

func (l *ledger) Flush(done func(error)) { done(nil) }
func (l *ledger) MaxSize() int           { return l.size }
func (l *ledger) Close()                 {}

func (l *ledger) hears() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Sorted(maps.Keys(l.subscribed))
}

// withLedger calls test with a gateway on a ledger, in a bubble.
func withLedger(t *testing.T, test func(t *testing.T, g *Gateway, l *ledger)) {
	synctest.Test(t, func(t *testing.T) {
		l := &ledger{size: 4 << 10}
		g, err := New(Options{Broker: l})
		if err != nil {
			t.Fatal(err)
		}
		if err := g.Serve(); err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := g.Shutdown(context.Background()); err != nil {
				t.Error(err)
			}
		}()
		test(t, g, l)
	})
}

// Ten thousand members that come and go must not be a storm of subscriptions for every
// node: a slot is subscribed to once, and left a while after its last name is gone.
func TestSlotsOutliveTheirNamesForAWhile(t *testing.T) {
	withLedger(t, func(t *testing.T, g *Gateway, l *ledger) {
		base := len(l.hears())
		for range 1000 {
			g.cluster.groups.came("room")
			g.cluster.groups.went("room")
			g.cluster.users.came("ann")
			g.cluster.users.went("ann")
		}
		if l.calls != base+2 {
			t.Errorf("%d subscriptions and ends, want %d", l.calls, base+2)
		}
		time.Sleep(slotLinger - 2*time.Second)
		if got := l.hears(); len(got) != base+2 {
			t.Errorf("hears %v", got)
		}
		g.cluster.users.came("ann") // she is back
		time.Sleep(4 * time.Second)
		if got, want := l.hears(), slotSubject(kindOfUsers, slotOf("ann")); len(got) != base+1 || !slices.Contains(got, want) {
			t.Errorf("hears %v, want only %s of the slots", got, want)
		}
	})
}

// However many names there are, what is subscribed to stays bounded.
func TestSubscriptionsAreBounded(t *testing.T) {
	withLedger(t, func(t *testing.T, g *Gateway, l *ledger) {
		base := len(l.hears())
		for i := range 20 * slotCount {
			g.cluster.groups.came(fmt.Sprint("group ", i))
		}
		if got := len(l.hears()); got != base+slotCount || l.calls != got {
			t.Errorf("hears %d subjects after %d calls, want %d", got, l.calls, base+slotCount)
		}
	})
}

// A slot must be heard whoever wins when its last name goes and another comes.
func TestASlotWithNamesIsAlwaysHeard(t *testing.T) {
	l := &ledger{size: 4 << 10}
	g, err := New(Options{Broker: l})
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Serve(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = g.Shutdown(context.Background()) }()
	c := g.cluster
	subject := slotSubject(kindOfGroups, slotOf("room"))
	for range 2000 {
		var both sync.WaitGroup
		both.Go(func() { c.groups.came("room") })
		both.Go(func() {
			c.mu.Lock()
			defer c.mu.Unlock()
			slot := &c.groups.slots[slotOf("room")]
			slot.since = 1
			c.groups.tidy(l, int64(slotLinger)+2)
		})
		both.Wait()
		if !slices.Contains(l.hears(), subject) {
			t.Fatal("the slot has a name and is not heard")
		}
		c.groups.went("room")
		c.mu.Lock()
		c.groups.slots[slotOf("room")].since = 0
		c.mu.Unlock()
	}
}

// A message that comes twice, or late, over a broker that is changed or not as good as it
// says, is not for the client to sort out.
func TestWhatComesTwiceIsHeardOnce(t *testing.T) {
	withLedger(t, func(t *testing.T, g *Gateway, l *ledger) {
		say := func(number uint64) {
			body, err := appendCommand(nil, 0, &Command{Send: &SendCommand{To: All()}}, Text("x"))
			if err != nil {
				t.Fatal(err)
			}
			l.to.Receive(append(appendHeader(nil, kindCommand, "aaaaaaaa", number), body...))
		}
		for _, number := range []uint64{1, 2, 2, 1, 5, 4, 6} {
			say(number)
		}
		if got := g.Stats().Cluster.Received; got != 4 {
			t.Errorf("%d messages were taken, want 4: 1, 2, 5 and 6", got)
		}
	})
}

// A sender that has moved twice is waited for twice: what is between is not held up by
// what comes after it, and not lost.
func TestWhatASenderHasSentBeforeItMovedIsWaitedFor(t *testing.T) {
	withLedger(t, func(t *testing.T, g *Gateway, l *ledger) {
		taken := func() int64 { return g.Stats().Cluster.Received }
		for _, come := range []struct {
			number, moved uint64
			taken         int64 // so far
		}{
			{1, 0, 1},
			{5, 4, 1}, // 4 was the last elsewhere
			{6, 0, 1},
			{9, 8, 1},
			{10, 0, 1},
			{6, 0, 1}, // again
			{2, 0, 2},
			{3, 0, 3},
			{4, 0, 6}, // and 5, and 6
			{7, 0, 7},
			{8, 0, 10},
			{11, 0, 11},
		} {
			kind := kindCommand
			body, err := appendCommand(nil, 0, &Command{Send: &SendCommand{To: All()}}, Text("x"))
			if err != nil {
				t.Fatal(err)
			}
			if come.moved != 0 {
				kind, body = kindMoved, binary.AppendUvarint(nil, come.moved)
			}
			l.to.Receive(append(appendHeader(nil, kind, "aaaaaaaa", come.number), body...))
			if got := taken(); got != come.taken {
				t.Fatalf("after number %d, %d messages were taken, want %d", come.number, got, come.taken)
			}
		}
	})
}

// A node of another version, or somebody who has no business there, must not do harm.
func TestNonsenseFromTheBrokerIsCountedAndDropped(t *testing.T) {
	withLedger(t, func(t *testing.T, g *Gateway, l *ledger) {
		header := func(kind envelopeKind, number uint64) []byte { return appendHeader(nil, kind, "aaaaaaaa", number) }
		nonsense := [][]byte{
			nil,
			{1},
			[]byte("hello"), bytes.Repeat([]byte{0xff}, 100),
			append([]byte{99}, header(kindHello, 1)[1:]...), // another version
			append(header('?', 1), "x"...),
			append(header(kindHello, 2), "{"...),
			append(header(kindCommand, 3), 0, 1, 0, 200),
			append(header(kindCommand, 3), 0, 1, 0, 8, 0, 0, 0, 0, 0, 0, 0, 1, 1, 'x'),
			append(header(kindCommand, 4), 0, 0, 2, '{', '}'),
			append(header(kindQuestion, 5), 1, '{', '}'),
			append(header(kindAnswer, 6), 1, '{', '}'),
			append(header(kindPart, 7), 5, 6, 'x'),
			append(header(kindPart, 8), 0, 0, 'x'),
			append(header(kindPart, 9), 0),
		}
		for _, data := range nonsense {
			l.to.Receive(data)
		}
		synctest.Wait()
		if got := g.Stats().Cluster.Missed; got < 8 {
			t.Errorf("%d were counted", got)
		}
		if _, err := g.Send(All(), Text("x")); err != nil {
			t.Error(err)
		}
	})
}

// Whoever is told of a node wants to know which machine that is: it is told when the node
// has said so, whatever else came first, and what never did was never there.
func TestNodeHasJoinedWhenItHasSaidWhoItIs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		l := &ledger{size: 4 << 10}
		g, err := New(Options{Broker: l, Logger: slog.New(slog.NewTextHandler(&log, nil))})
		if err != nil {
			t.Fatal(err)
		}
		if err := g.Serve(); err != nil {
			t.Fatal(err)
		}
		defer func() { _ = g.Shutdown(context.Background()) }()
		command, err := appendCommand(nil, 0, &Command{Send: &SendCommand{To: All()}}, Text("x"))
		if err != nil {
			t.Fatal(err)
		}
		say := func(node string, kind envelopeKind, number uint64, body []byte) {
			l.to.Receive(append(appendHeader(nil, kind, node, number), body...))
			synctest.Wait()
		}
		said := func() (lines []string) {
			for line := range strings.Lines(log.String()) {
				if strings.Contains(line, "node=") {
					lines = append(lines, line)
				}
			}
			return lines
		}
		say("aaaaaaaa", kindCommand, 1, command)
		say("bbbbbbbb", kindCommand, 1, command)
		if got := said(); len(got) != 0 {
			t.Errorf("before a greeting the log says %q", got)
		}
		if got := g.Stats().Cluster.Nodes; got != 2 {
			t.Errorf("%d nodes are known, want 2", got)
		}
		say("bbbbbbbb", kindBye, 2, nil)
		for number := range uint64(2) {
			say("aaaaaaaa", kindHello, number+2, []byte(`{"host":"edge"}`))
		}
		say("aaaaaaaa", kindBye, 4, nil)
		got := said()
		if len(got) != 2 || !strings.Contains(got[0], `msg="node joined"`) || !strings.Contains(got[1], `msg="node left"`) {
			t.Errorf("the log says %q, want that a node joined, and left", got)
		}
		for _, line := range got {
			if !strings.Contains(line, "node=aaaaaaaa host=edge") {
				t.Errorf("%q does not say who", line)
			}
		}
	})
}

// What a broker does not take in one piece is put together again, and a lost piece takes
// only its own message with it.
func TestPartsArePutTogether(t *testing.T) {
	withLedger(t, func(t *testing.T, g *Gateway, l *ledger) {
		l.published = nil
		body := []byte(strings.Repeat("0123456789", 1500))
		if err := g.cluster.publish(kindCommand, body, subjectAll); err != nil {
			t.Fatal(err)
		}
		if len(l.published) != 4 {
			t.Fatalf("%d parts", len(l.published))
		}
		var a assembly
		for i, data := range l.published {
			e, err := parseEnvelope(data)
			if err != nil || e.kind != kindPart || e.node != g.Node() {
				t.Fatalf("part %d is %+v (%v)", i, e, err)
			}
			kind, whole, err := a.add(e.body)
			if last := i == len(l.published)-1; err != nil || (whole != nil) != last || last && (kind != kindCommand || !bytes.Equal(whole, body)) {
				t.Fatalf("after part %d: %d bytes (%v)", i, len(whole), err)
			}
		}
		for i, data := range l.published {
			e, _ := parseEnvelope(data)
			if _, whole, err := a.add(e.body); whole != nil || i == 2 && err == nil {
				t.Errorf("with a part lost: %d bytes (%v)", len(whole), err)
			}
			if i == 0 { // the next one is lost
				e, _ := parseEnvelope(l.published[2])
				if _, _, err := a.add(e.body); err == nil {
					t.Error("a lost part is no error")
				}
			}
		}
		if err := g.cluster.publish(kindCommand, make([]byte, maxAssembled), subjectAll); err == nil {
			t.Error("more than is put together is published")
		}
	})
}

// What arrives from a broker is from elsewhere: no bytes may panic.
func FuzzEnvelope(f *testing.F) {
	body, _ := appendCommand(nil, 7, &Command{Send: &SendCommand{To: Groups("x")}}, Binary([]byte{1, 2}))
	f.Add(append(appendHeader(nil, kindCommand, "aaaaaaaa", 1), body...))
	f.Add(append(appendHeader(nil, kindPart, "aaaaaaaa", 1), 0, 2, byte(kindCommand), 1))
	f.Fuzz(func(t *testing.T, data []byte) {
		e, err := parseEnvelope(data)
		if err != nil {
			return
		}
		if ask, c, m, err := parseCommand(e.body); err == nil && m.Type != 0 {
			again, err := appendCommand(nil, ask, c, m)
			if err != nil {
				t.Fatal(err)
			}
			if _, other, twice, err := parseCommand(again); err != nil || !bytes.Equal(twice.Data, m.Data) || !reflect.DeepEqual(c, other) {
				t.Fatalf("%+v %q was %+v %q (%v)", other, twice.Data, c, m.Data, err)
			}
		}
		var a assembly
		_, _, _ = a.add(e.body)
	})
}

// Nodes of different builds must put a name into the same slot: it is FNV-1a.
func TestSlotsAreTheSameEverywhere(t *testing.T) {
	for name, want := range map[string]int{"": 0x811c9dc5 % slotCount, "a": 0xe40c292c % slotCount, "foobar": 0xbf9cf968 % slotCount} {
		if got := slotOf(name); got != want {
			t.Errorf("%q is in slot %d, want %d", name, got, want)
		}
	}
}
