package inbox_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/caddy-websocket/caddy-websocket/gateway/gatewaytest"
	"github.com/caddy-websocket/caddy-websocket/gateway/internal/inbox"
)

// TestMain fails if a test left a goroutine of an inbox behind.
func TestMain(m *testing.M) { gatewaytest.Main(m, "internal/inbox") }

// book is a Receiver whose Receive waits at gate, if there is one.
type book struct {
	gate    chan struct{}
	entries []string // of the inbox's goroutine, until the bubble is idle
}

func (b *book) Receive(data []byte) {
	if b.gate != nil {
		<-b.gate
	}
	b.entries = append(b.entries, fmt.Sprintf("%.5s", data))
}
func (b *book) Up()            { b.entries = append(b.entries, "up") }
func (b *book) Down(why error) { b.entries = append(b.entries, "down "+why.Error()) }
func (b *book) Missed(n int)   { b.entries = append(b.entries, fmt.Sprint("missed ", n)) }
func (b *book) done(err error) { b.entries = append(b.entries, fmt.Sprint("done ", err)) }

func (b *book) want(t *testing.T, entries ...string) {
	t.Helper()
	synctest.Wait()
	if !slices.Equal(b.entries, entries) {
		t.Errorf("was told %q, want %q", b.entries, entries)
	}
}

var errGone = errors.New("gone")

// What a gateway concludes depends on what it has heard before.
func TestReceiverIsToldInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &book{}
		in := inbox.New(1000, b)
		defer in.Close()
		in.Put([]byte("one"))
		in.Down(errGone)
		in.Missed(2)
		in.Missed(3)
		in.Up()
		in.Put(nil)
		in.Done(b.done, nil)
		b.want(t, "one", "down gone", "missed 5", "up", "", "done <nil>")
	})
}

// A bound in messages would be a thousand times another in bytes; and a message that is
// larger than the bound could never come.
func TestBoundIsInBytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &book{gate: make(chan struct{})}
		in := inbox.New(1000, b)
		defer in.Close()
		in.Put([]byte("large" + string(make([]byte, 5000))))
		in.Put([]byte("lost"))
		close(b.gate)
		b.want(t, "large", "missed 1")
		b.gate, b.entries = make(chan struct{}), nil
		for range 20 {
			in.Put(make([]byte, 100-inbox.Overhead))
		}
		in.Up()
		close(b.gate)
		text := string(make([]byte, 5))
		b.want(t, append(slices.Repeat([]string{text}, 10), "missed 10", "up")...)
	})
}

// Close is the end for the Receiver, and whoever waits for an answer has it by then.
func TestCloseDropsMessagesAndAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &book{gate: make(chan struct{})}
		in := inbox.New(1000, b)
		in.Put([]byte("first"))
		synctest.Wait() // it is being received
		in.Put([]byte("second"))
		in.Missed(1)
		in.Done(b.done, errGone)
		in.Down(errGone)
		go in.Close()
		synctest.Wait()
		close(b.gate)
		in.Close()
		in.Put([]byte("late"))
		in.Up()
		b.want(t, "first", "done gone", "down gone")
		late := make(chan error)
		in.Done(func(err error) { late <- err }, errGone)
		if err := <-late; !errors.Is(err, errGone) {
			t.Errorf("after Close the answer is %v", err)
		}
	})
}
