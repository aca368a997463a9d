package brokertest

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// linkClaims are about what a broker does for its nodes.
var linkClaims = []claim{
	{"OneNodesMessagesArriveInOrderOverAllSubjects", orderOfOne},
	{"MessagesOfManyArriveEachInOrder", orderOfMany},
	{"OneLinkIsSafeForConcurrentUse", concurrentUse},
	{"NodesOfOneBrokerHearEachOther", neighbours},
	{"OnlySubscribersHear", onlySubscribers},
	{"SubscribingTwiceIsOnce", subscribingTwice},
	{"WhoHasUnsubscribedHearsNoMore", unsubscribing},
	{"ManySubjectsAreFine", manySubjects},
	{"DataIsNotKept", dataIsNotKept},
	{"EmptyDataArrives", emptyData},
	{"GatewaysDoNotHearEachOther", gatewaysApart},
	{"MaxSizeIsTaken", maxSize},
	{"FlushIsAnsweredOnce", flushOnce},
	{"HeldUpReceiverIsToldWhatItMissed", heldUp},
	{"ClosePublishesWhatWaits", closePublishes},
	{"NothingIsHeardAfterClose", silentAfterClose},
	{"ClosedLinkRefuses", closedLink},
	{"ClosedBrokerRefuses", closedBroker},
	{"CutLinkRefusesAndComesBackWithItsSubscriptions", cutAndHealed},
	{"LinkBegunWhileCutComesUp", begunWhileCut},
}

// numbered is what a node says.
func numbered(from string, i int) string { return fmt.Sprintf("%s %d", from, i) }

func numbers(from string, n int) []string {
	texts := make([]string, n)
	for i := range texts {
		texts[i] = numbered(from, i)
	}
	return texts
}

func subjects(n int) []string {
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf("g.%d", i)
	}
	return names
}

// by picks what one has said.
func by(texts []string, from string) []string {
	return slices.DeleteFunc(slices.Clone(texts), func(text string) bool { return !strings.HasPrefix(text, from+" ") })
}

// A client that joins a group, is told something and leaves it must not be told after it
// has left: join, message and leave are on different subjects.
func orderOfOne(t *testing.T, open Fleet) {
	const messages = 5000
	ps := peers(t, open, 3)
	a, b, c := attach(t, ps[0], someGateway), attach(t, ps[1], someGateway), attach(t, ps[2], someGateway)
	names := subjects(20)
	b.subscribe([]*node{a}, names...)
	c.subscribe([]*node{a}, names...)
	for i := range messages {
		a.publish(names[i*7%len(names)], numbered("a", i))
	}
	b.want(numbers("a", messages)...)
	c.want(numbers("a", messages)...)
}

// All nodes publish at once, always: nobody's order may depend on that.
func orderOfMany(t *testing.T, open Fleet) {
	const messages = 2000
	ps := peers(t, open, 3)
	all := make([]*node, 6)
	for i := range all {
		all[i] = attach(t, ps[i%len(ps)], someGateway)
	}
	names := subjects(5)
	for i, n := range all {
		n.subscribe(slices.Delete(slices.Clone(all), i, i+1), names...)
	}
	var publishing sync.WaitGroup
	for i, n := range all {
		publishing.Go(func() {
			for m := range messages {
				n.publish(names[m%len(names)], numbered(fmt.Sprint("n", i), m))
			}
		})
	}
	publishing.Wait()
	for i, n := range all {
		for j := range all {
			from := fmt.Sprint("n", j)
			if i == j {
				continue // may be heard, need not
			}
			n.await("all of "+from, func() bool { return n.counts[from] >= messages })
			if !slices.Equal(by(n.texts(), from), numbers(from, messages)) {
				t.Errorf("node %d does not hear node %d in order", i, j)
			}
		}
	}
}

// Commands come from any goroutine: each one's order holds.
func concurrentUse(t *testing.T, open Fleet) {
	const goroutines, messages = 8, 500
	ps := peers(t, open, 2)
	a, b := attach(t, ps[0], someGateway), attach(t, ps[1], someGateway)
	names := subjects(4)
	b.subscribe([]*node{a}, names...)
	var using sync.WaitGroup
	for g := range goroutines {
		using.Go(func() {
			for m := range messages {
				a.publish(names[(g+m)%len(names)], numbered(fmt.Sprint("g", g), m))
				a.link.Subscribe(fmt.Sprint("other.", m%10))
				a.link.Unsubscribe(fmt.Sprint("other.", (m+g)%10))
				a.link.MaxSize()
			}
			if err := a.flush(); err != nil {
				t.Error(err)
			}
		})
	}
	using.Wait()
	b.await("all messages", func() bool { return len(b.heard) >= goroutines*messages })
	for g := range goroutines {
		from := fmt.Sprint("g", g)
		if !slices.Equal(by(b.texts(), from), numbers(from, messages)) {
			t.Errorf("what goroutine %d published is not heard in order", g)
		}
	}
}

// During a reload two gateways of one name may share a broker in one process.
func neighbours(t *testing.T, open Fleet) {
	const messages = 200
	p := open(t)
	a, b, c := attach(t, p, someGateway), attach(t, p, someGateway), attach(t, p, "another")
	b.subscribe([]*node{a}, "all", "some")
	a.subscribe([]*node{b}, "all")
	c.link.Subscribe("all")
	for i := range messages {
		a.publish([]string{"all", "some", "none"}[i%2], numbered("a", i))
	}
	b.want(numbers("a", messages)...)
	b.publish("all", "answer")
	a.await("the answer", func() bool { return a.counts["answer"] > 0 })
	if got := c.texts(); len(got) > 0 {
		t.Errorf("another gateway heard %q", got)
	}
}

// A node without members of a group is not to be bothered with the group's messages.
func onlySubscribers(t *testing.T, open Fleet) {
	ps := peers(t, open, 3)
	a, b, c := attach(t, ps[0], someGateway), attach(t, ps[1], someGateway), attach(t, ps[2], someGateway)
	b.subscribe([]*node{a}, "a", "end")
	c.subscribe([]*node{a}, "b", "a.b", "end")
	for _, subject := range []string{"a", "b", "ab", "a.b", "A", "a.b.c", "b.a", "e", "end"} {
		a.publish(subject, subject)
	}
	b.want("a", "end")
	c.want("b", "a.b", "end")
}

// The gateway may ask again for what it has: nothing is to arrive twice, and one
// Unsubscribe is enough.
func subscribingTwice(t *testing.T, open Fleet) {
	ps := peers(t, open, 2)
	a, b := attach(t, ps[0], someGateway), attach(t, ps[1], someGateway)
	b.link.Subscribe("a")
	b.subscribe([]*node{a}, "a", "end")
	b.link.Subscribe("a")
	a.publish("a", "once")
	a.publish("end", "end")
	b.want("once", "end")
	b.link.Unsubscribe("never")
	b.link.Unsubscribe("a")
	b.link.Unsubscribe("a")
	b.deaf(a, "a", "end")
	b.subscribe([]*node{a}, "a")
	a.publish("a", "again")
	b.await("a subject that is subscribed to again", func() bool { return b.counts["again"] > 0 })
}

// deaf waits until what other publishes on subject does not arrive any more; it goes on
// arriving on end.
func (n *node) deaf(other *node, subject, end string) {
	n.t.Helper()
	for began, i := time.Now(), 0; ; i++ {
		text := fmt.Sprintf("still %d", i)
		other.publish(subject, text)
		other.publish(end, "end of "+text)
		n.await(end, func() bool { return slices.Contains(n.heard, "end of "+text) })
		if !slices.Contains(n.texts(), text) {
			return
		}
		if time.Since(began) > wait {
			n.t.Fatalf("%s is still heard %s after Unsubscribe", subject, wait)
		}
		time.Sleep(pause)
	}
}

// When the last member has left, a group's messages are of no use to a node.
func unsubscribing(t *testing.T, open Fleet) {
	ps := peers(t, open, 2)
	a, b := attach(t, ps[0], someGateway), attach(t, ps[1], someGateway)
	b.subscribe([]*node{a}, "a", "b", "end")
	b.link.Unsubscribe("a")
	b.deaf(a, "a", "end")
	b.forget()
	for range 100 {
		a.publish("a", "not for you")
	}
	a.publish("b", "still")
	a.publish("end", "end")
	b.want("still", "end")
}

// A busy node holds interest in all slots of groups and of users.
func manySubjects(t *testing.T, open Fleet) {
	ps := peers(t, open, 2)
	a, b := attach(t, ps[0], someGateway), attach(t, ps[1], someGateway)
	names := subjects(2048)
	b.subscribe([]*node{a}, names...)
	for i, name := range names {
		a.publish(name, numbered("a", i))
	}
	b.want(numbers("a", len(names))...)
}

// The gateway builds the next message in the same memory.
func dataIsNotKept(t *testing.T, open Fleet) {
	const messages = 200
	ps := peers(t, open, 2)
	a, b, c := attach(t, ps[0], someGateway), attach(t, ps[1], someGateway), attach(t, ps[0], someGateway)
	b.subscribe([]*node{a}, "a")
	c.subscribe([]*node{a}, "a")
	data := make([]byte, 0, 64)
	for i := range messages {
		data = append(data[:0], numbered("a", i)...)
		if err := a.link.Publish("a", data); err != nil {
			t.Fatal(err)
		}
		for j := range data {
			data[j] = '!'
		}
	}
	b.want(numbers("a", messages)...)
	c.want(numbers("a", messages)...)
}

// What a message means is not the broker's business.
func emptyData(t *testing.T, open Fleet) {
	ps := peers(t, open, 2)
	a, b := attach(t, ps[0], someGateway), attach(t, ps[1], someGateway)
	b.subscribe([]*node{a}, "a")
	for _, data := range [][]byte{nil, {}, []byte("\x00\r\n\xff"), []byte("end")} {
		if err := a.link.Publish("a", data); err != nil {
			t.Fatal(err)
		}
	}
	b.want("", "", "\x00\r\n\xff", "end")
}

// Gateways are named in a configuration, by anybody, in any language: none may hear
// another, least of all by a name that means something to the broker.
func gatewaysApart(t *testing.T, open Fleet) {
	names := []string{
		"default", "*", ">", "a", "a.b", "a.*", "a.>", ".", "A", "a b", " ", "\t\r\n", "%", "%2A", "%2a", "=2A", "_INBOX", "$SYS",
		"ä", "a\u0308", "网关", "\x00", strings.Repeat("é", 127) + "x", strings.Repeat("é", 127) + "y",
	}
	ps := peers(t, open, 2)
	listeners, speakers := make([]*node, len(names)), make([]*node, len(names))
	for i, name := range names {
		listeners[i], speakers[i] = attach(t, ps[0], name), attach(t, ps[1], name)
		listeners[i].subscribe(speakers[i:i+1], "all", "b", "b.all")
	}
	for i, name := range names {
		for _, subject := range []string{"all", "b", "b.all"} {
			speakers[i].publish(subject, name)
		}
	}
	for i, name := range names {
		listeners[i].want(name, name, name)
	}
}

// The gateway splits what is larger than MaxSize, so that size must pass, and an error
// must not cost what follows.
func maxSize(t *testing.T, open Fleet) {
	ps := peers(t, open, 2)
	a, b := attach(t, ps[0], someGateway), attach(t, ps[1], someGateway)
	b.subscribe([]*node{a}, "a")
	most := a.link.MaxSize()
	if most < 4<<10 {
		t.Fatalf("MaxSize is %d, which is less than 4 KiB", most)
	}
	largest := strings.Repeat("x", most-1)
	for i, last := range []string{"1", "2", "3"} {
		a.publish("a", largest+last)
		// One after the other: Buffer may be less than three of them.
		b.await("the largest message", func() bool { return len(b.heard) > i })
	}
	if err := a.link.Publish("a", make([]byte, most+1)); err == nil {
		t.Errorf("%d bytes are taken, MaxSize is %d", most+1, most)
	}
	a.publish("a", "end")
	b.await("the end", func() bool { return b.counts["end"] > 0 })
	if got := b.texts(); !slices.Equal(got, []string{largest + "1", largest + "2", largest + "3", "end"}) {
		t.Errorf("heard %d messages, want three of %d bytes and the end", len(got), most)
	}
}
