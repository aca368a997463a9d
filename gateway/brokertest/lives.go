package brokertest

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-websocket/caddy-websocket/gateway"
)

// answers counts how often each of a number of Flushes is answered.
type answers struct {
	mu    sync.Mutex
	times map[int]int   // guarded by mu
	errs  map[int]error // guarded by mu
	done  atomic.Int64
}

func (a *answers) of(i int) func(error) {
	return func(err error) {
		a.mu.Lock()
		defer a.mu.Unlock()
		if a.times == nil {
			a.times, a.errs = make(map[int]int), make(map[int]error)
		}
		a.times[i]++
		a.errs[i] = err
		a.done.Add(1)
	}
}

// want waits for n answers, and fails if one of n has come more than once.
func (a *answers) want(t testing.TB, n int) {
	t.Helper()
	for end := time.Now().Add(wait); a.done.Load() < int64(n); time.Sleep(pause) {
		if time.Now().After(end) {
			t.Fatalf("waited %s: %d of %d Flushes are answered", wait, a.done.Load(), n)
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for i := range n {
		if a.times[i] != 1 {
			t.Errorf("Flush %d is answered %d times", i, a.times[i])
		}
	}
}

// Who waits for a Flush, waits for ever if it is not answered, and goes on twice if it is
// answered twice.
func flushOnce(t *testing.T, open Fleet) {
	const flushes = 200
	a := attach(t, open(t), someGateway)
	var whileUp, atTheEnd answers
	for i := range flushes {
		a.link.Subscribe(fmt.Sprint("a.", i))
		// What done locks may be locked by who calls Flush.
		whileUp.mu.Lock()
		a.link.Flush(whileUp.of(i))
		whileUp.mu.Unlock()
	}
	whileUp.want(t, flushes)
	for i, err := range whileUp.errs {
		if err != nil {
			t.Errorf("Flush %d: %v", i, err)
		}
	}
	for i := range flushes {
		a.link.Flush(atTheEnd.of(i))
	}
	a.close()
	atTheEnd.mu.Lock()
	a.link.Flush(atTheEnd.of(flushes))
	atTheEnd.mu.Unlock()
	atTheEnd.want(t, flushes+1)
	if atTheEnd.errs[flushes] == nil {
		t.Error("Flush after Close is answered without an error")
	}
}

// A gateway that is held up must neither fill the memory nor believe that it has heard
// everything; and those beside it must not notice.
func heldUp(t *testing.T, open Fleet) {
	ps := peers(t, open, 2)
	a, b, c := attach(t, ps[0], someGateway), attach(t, ps[1], someGateway), attach(t, ps[1], someGateway)
	b.subscribe([]*node{a}, "a", "end")
	c.subscribe([]*node{a}, "end")
	c.subscribe([]*node{a}, "c")
	release := b.hold()
	defer release()
	size := min(a.link.MaxSize(), ps[1].Buffer/16)
	messages := 2*ps[1].Buffer/size + 16
	for i := range messages {
		a.publish("a", numbered("a", i)+strings.Repeat(" ", size-16))
	}
	a.publish("c", "c")
	c.want("c")
	release()
	// The end may be missed as well, until there is room again.
	ends := 0
	b.await("what was missed", func() bool {
		if b.counts["end"] > 0 {
			return true
		}
		if err := a.link.Publish("end", []byte("end ")); err == nil {
			ends++
		}
		return false
	})
	b.await("the count of what was missed", func() bool { return b.counts["a"]+b.missed >= messages })
	b.mu.Lock()
	defer b.mu.Unlock()
	heard := by(b.heard, "a")
	if b.missed == 0 || len(heard) == 0 {
		t.Errorf("heard %d and missed %d of %d", len(heard), b.missed, messages)
	}
	if total := len(heard) + b.missed; total > messages+ends {
		t.Errorf("heard %d and missed %d: that is more than the %d that were published", len(heard), b.missed, messages)
	}
	last := -1
	for _, text := range heard {
		var n int
		if _, err := fmt.Sscanf(text, "a %d", &n); err != nil || n <= last {
			t.Fatalf("after message %d comes %.20q", last, text)
		}
		last = n
	}
}

// A node that shuts down says goodbye, and then ends.
func closePublishes(t *testing.T, open Fleet) {
	const messages = 1000
	ps := peers(t, open, 2)
	a, b := attach(t, ps[0], someGateway), attach(t, ps[1], someGateway)
	b.subscribe([]*node{a}, "a")
	for i := range messages {
		a.publish("a", numbered("a", i))
	}
	a.close()
	b.want(numbers("a", messages)...)
}

// After Close the gateway has no memory for what it is told.
func silentAfterClose(t *testing.T, open Fleet) {
	ps := peers(t, open, 2)
	a := attach(t, ps[0], someGateway)
	stop := make(chan struct{})
	var publishing sync.WaitGroup
	defer publishing.Wait()
	defer close(stop)
	publishing.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			a.publish("a", numbered("a", i))
			if i%20 == 0 {
				time.Sleep(time.Millisecond) // busy, but not so that nothing else goes through
			}
		}
	})
	for range 10 {
		b := attach(t, ps[1], someGateway)
		b.link.Subscribe("a")
		b.await("messages", func() bool { return len(b.heard) > 10 })
		b.close() // fails the test from now on if something is told
	}
}

// Shutting down may happen twice, and beside commands.
func closedLink(t *testing.T, open Fleet) {
	p := open(t)
	a, b := attach(t, p, someGateway), attach(t, p, someGateway)
	a.link.Subscribe("a")
	var closing sync.WaitGroup
	for range 4 {
		closing.Go(func() {
			a.link.Close()
			if err := a.link.Publish("a", nil); !errors.Is(err, gateway.ErrLinkDown) {
				t.Errorf("Publish after Close: %v, want ErrLinkDown", err)
			}
		})
	}
	closing.Wait()
	a.close()
	a.link.Subscribe("b")
	a.link.Unsubscribe("a")
	if err := a.flush(); err == nil {
		t.Error("Flush after Close is answered without an error")
	}
	if most := a.link.MaxSize(); most < 4<<10 {
		t.Errorf("MaxSize after Close is %d", most)
	}
	// Others of the same broker live on.
	if err := b.flush(); err != nil {
		t.Error(err)
	}
}

// A broker may be closed under a gateway, which then works for its own clients.
func closedBroker(t *testing.T, open Fleet) {
	p := open(t)
	a := attach(t, p, someGateway)
	a.link.Subscribe("a")
	var pending answers
	a.link.Flush(pending.of(0))
	p.Close()
	pending.want(t, 1)
	a.closed.Store(true) // nothing is told any more
	a.mu.Lock()
	down := a.down
	a.mu.Unlock()
	if !down {
		t.Error("the link is not told that its broker is closed")
	}
	if err := a.link.Publish("a", nil); !errors.Is(err, gateway.ErrLinkDown) {
		t.Errorf("Publish after the broker's Close: %v, want ErrLinkDown", err)
	}
	if err := a.flush(); err == nil {
		t.Error("Flush after the broker's Close is answered without an error")
	}
	a.link.Close()
	p.Close()
	if link, err := p.Attach(someGateway, "late", a); err == nil {
		link.Close()
		t.Error("Attach after Close is not refused")
	}
}

// A node that was cut off must say so, and hear again what it wants by then, not what it
// wanted before.
func cutAndHealed(t *testing.T, open Fleet) {
	ps := peers(t, open, 2)
	if ps[1].Cut == nil {
		t.Skip("this fleet cannot be cut")
	}
	a, b := attach(t, ps[0], someGateway), attach(t, ps[1], someGateway)
	b.subscribe([]*node{a}, "kept", "dropped", "end")
	for round := range 3 {
		var pending answers
		b.link.Flush(pending.of(0))
		ps[1].Cut()
		b.await("Down", func() bool { return b.down })
		pending.want(t, 1)
		if err := b.link.Publish("a", nil); !errors.Is(err, gateway.ErrLinkDown) {
			t.Errorf("Publish while the link is down: %v, want ErrLinkDown", err)
		}
		if err := b.flush(); err == nil {
			t.Error("Flush while the link is down is answered without an error")
		}
		added := fmt.Sprint("added.", round)
		b.link.Unsubscribe("dropped")
		b.link.Subscribe(added)
		b.link.Subscribe("brief")
		b.link.Unsubscribe("brief")
		ps[1].Heal()
		b.await("Up", func() bool { return !b.down })
		b.reached([]*node{a}, "kept", added, "end")
		b.forget()
		for _, subject := range []string{"kept", "dropped", "brief", added, "end"} {
			a.publish(subject, subject)
		}
		b.want("kept", added, "end")
		a.subscribe([]*node{b}, "back")
		b.subscribe([]*node{a}, "dropped")
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if got := strings.Join(b.events, " "); !strings.HasSuffix(got, "down up down up down up") {
		t.Errorf("was told %s, want down and up in turn", got)
	}
}

// A server begins to serve its own clients while the broker cannot be reached.
func begunWhileCut(t *testing.T, open Fleet) {
	ps := peers(t, open, 2)
	if ps[1].Cut == nil {
		t.Skip("this fleet cannot be cut")
	}
	a, before := attach(t, ps[0], someGateway), attach(t, ps[1], someGateway)
	ps[1].Cut()
	before.await("Down", func() bool { return before.down })
	b := attachDown(t, ps[1], someGateway)
	b.link.Subscribe("a")
	b.await("Down first", func() bool { return b.down })
	if err := b.link.Publish("a", nil); !errors.Is(err, gateway.ErrLinkDown) {
		t.Errorf("Publish while the link is down: %v, want ErrLinkDown", err)
	}
	ps[1].Heal()
	b.await("Up", func() bool { return !b.down })
	before.await("Up", func() bool { return !before.down })
	b.reached([]*node{a, before}, "a")
}
