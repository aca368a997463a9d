package gateway

import (
	"context"
	"crypto/rand"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gorilla/websocket"
)

// Client is one WebSocket connection.
//
// All methods are safe for concurrent use, in callbacks and outside, and none
// of them blocks on anybody's socket. What ends a client is Close here or at
// the gateway, an error from a callback, a limit or time-out of its endpoint,
// the peer, or a shutdown; then OnClose is called.
type Client struct {
	*shared
	id          string
	ip          string
	slot        *slot
	proto       string // of HTTP
	connectedAt time.Time
	deflate     bool // permessage-deflate was agreed on
	forwarded   bool // it is connected to a backend, by tunnel
	answered    bool // the peer's close frame has come; used by the client's own goroutine only
	session     Session

	wire  wire
	ws    *websocket.Conn
	queue sendQueue
	open  atomic.Bool // the handshake is answered: wire, ws and queue may be used

	mu          sync.Mutex
	gone        bool                // guarded by mu; life is over or would be
	headed      bool                // guarded by mu; the handshake is over, and with it header
	user        string              // guarded by mu
	groups      map[string]struct{} // guarded by mu
	reason      *CloseReason        // guarded by mu; how it closes, set once
	life        *life               // guarded by mu; made when asked for
	value       any                 // guarded by mu
	subprotocol string              // guarded by mu
	tunnel      *tunnel             // guarded by mu until open, then never changed; nil unless forwarded
	header      http.Header         // guarded by mu; made when asked for

	closing atomic.Bool // reason is set
	killed  atomic.Bool
	listed  atomic.Bool  // the attendant looks at it
	slow    atomic.Int32 // 1 when the send buffer has been full or nothing was taken in for long, 2 when the log says so
	turn    atomic.Int64 // odd while the goroutine that reads writes replies; see takeTurn
	handled int64        // messages; used by the client's own goroutine only

	messagesIn  atomic.Int64
	lastMessage atomic.Int64 // when the last message had been handled, or the client connected
	bucket      bucket       // used by the client's own goroutine only

	inside atomic.Pointer[Endpoint] // whose logic is being called
	call   callState
	watch  watch
}

// life is a context and its end.
type life struct {
	context.Context
	end context.CancelFunc
}

// newClientID returns an id that names its node, cannot be guessed (130 random
// bits), is never used again and needs no escaping in a URL.
func newClientID(node string) string {
	const alphabet, length = "abcdefghijklmnopqrstuvwxyz234567", 26 // 5 bits each, as rand.Text
	var random [length]byte
	rand.Read(random[:]) // never fails
	var room [64]byte
	id := append(append(room[:0], node...), '-')
	for _, b := range random {
		id = append(id, alphabet[b%32])
	}
	return string(id)
}

// ID returns the client id.
func (c *Client) ID() string { return c.id }

// RealIP returns the IP address of the visitor as the server in front knows it:
// under Caddy that of its client_ip, which heeds trusted_proxies; on net/http
// the peer's. It has no port, and is empty if unknown, as on a unix socket.
func (c *Client) RealIP() string { return c.ip }

// Endpoint returns the name of the endpoint that the client connected to.
func (c *Client) Endpoint() string { return c.slot.name }

// Subprotocol returns the subprotocol that was agreed on, or "".
func (c *Client) Subprotocol() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.subprotocol
}

// Proto returns what the client's handshake came over: HTTP/1.1, HTTP/2.0 or
// HTTP/3.0.
func (c *Client) Proto() string { return c.proto }

// ConnectedAt returns when the handshake arrived.
func (c *Client) ConnectedAt() time.Time { return c.connectedAt }

// Gateway returns the gateway. What its Go and Every start ends with the
// generation that is in force now.
func (c *Client) Gateway() *Gateway { return c.slot.current.Load().gen.g }

// identity is what log lines say of the client.
func (c *Client) identity() [4]slog.Attr {
	return [...]slog.Attr{
		slog.String("client", c.id), slog.String("client_ip", c.ip),
		slog.String("endpoint", c.slot.name), slog.String("user", c.User()),
	}
}

// about returns the identity, and then more, for a slog.Logger.
func (c *Client) about(more ...any) []any {
	id := c.identity()
	return append([]any{id[0], id[1], id[2], id[3]}, more...)
}

// Session returns the client's key-value data.
func (c *Client) Session() *Session { return &c.session }

// Header returns header fields for the handshake's answer, except those that make
// up the handshake itself. They are sent if OnConnect returns nil; afterwards
// Header returns nil.
func (c *Client) Header() http.Header {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.header == nil && !c.headed {
		c.header = make(http.Header)
	}
	return c.header
}

// takeHeader returns Header for the last time.
func (c *Client) takeHeader() http.Header {
	c.mu.Lock()
	defer c.mu.Unlock()
	h := c.header
	c.header, c.headed = nil, true
	return h
}

// Context returns a context that is cancelled when the connection is gone, just
// before OnClose, and when the gateway ends.
func (c *Client) Context() context.Context {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.life == nil {
		ctx, end := context.WithCancel(c.ctx)
		c.life = &life{ctx, end}
		if c.gone {
			end()
		}
	}
	return c.life.Context
}

// endContext cancels Context.
func (c *Client) endContext() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.gone = true
	if c.life != nil {
		c.life.end()
	}
}

// Value returns what SetValue was last given, or nil.
func (c *Client) Value() any {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.value
}

// SetValue keeps Go state of the application's with the client. It survives
// reloads; the type then belongs to the same binary, but to newer logic.
func (c *Client) SetValue(v any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.value = v
}

// Forwarded tells whether the client is connected to a backend, see
// Endpoint.Forward. It can be listed and closed, and not be sent to.
func (c *Client) Forwarded() bool { return c.forwarded }

// Send queues a message for the client, in the order of the calls, and returns
// at once; the message is copied. In OnConnect it waits for the handshake's
// answer. The error is ErrClosed, ErrForwarded, ErrTooBig, ErrNotUTF8, or
// ErrQueueFull if the endpoint's policy dropped the message or closes the client
// for it.
func (c *Client) Send(m Message) error {
	if err := m.check(); err != nil {
		return err
	}
	return c.push(&outgoing{message: m})
}

// SendJSON sends v as encoding/json writes it, in a text message, as Send does.
func (c *Client) SendJSON(v any) error {
	m, err := JSON(v)
	if err != nil {
		return err
	}
	return c.Send(m)
}

// push queues a message that has been checked.
func (c *Client) push(m *outgoing) error {
	if c.forwarded {
		return ErrForwarded
	}
	o := &c.slot.current.Load().o
	err := c.queue.push(m.frameFor(c, o), o.SendBuffer+maxServerHeader, o.WhenFull)
	if err == nil {
		c.watchedMessage(EventSend, m.message)
	}
	if err == ErrQueueFull && o.WhenFull == CloseWhenFull { //nolint:errorlint // never wrapped
		c.close(CloseReason{Code: CloseTryAgainLater, Reason: "send buffer is full"}, true)
	}
	if o.WhenFull != CloseWhenFull && c.slow.Load() == 1 && c.queue.dropped.Load() > 0 && c.slow.CompareAndSwap(1, 2) {
		c.slot.current.Load().log().Warn("client takes in too little: messages to it are dropped",
			c.about("send_buffer", o.SendBuffer, "policy", o.WhenFull.String())...)
	}
	return err
}

// Close closes the connection: what is queued is still sent, then a close frame
// with this code and reason, and the connection ends when the peer has answered
// or the endpoint's WriteTimeout has passed. It returns at once. From then on
// OnMessage is not called, Send returns ErrClosed, and commands no longer reach
// the client. The error says why code or reason cannot be sent, or is ErrClosed
// if the client was closing already.
func (c *Client) Close(code int, reason string) error {
	if err := checkClose(code, reason); err != nil {
		return err
	}
	if !c.close(CloseReason{Code: code, Reason: reason}, false) {
		return ErrClosed
	}
	return nil
}

// close begins the end of the client, once: it takes it out of its groups and
// sends the close frame, behind what is queued or, with discard, in its place.
func (c *Client) close(reason CloseReason, discard bool) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.reason != nil {
		return false
	}
	c.leaveRegistry(reason)
	switch {
	case c.tunnel != nil:
		if reason.Code != CloseAbnormal {
			c.tunnel.close(reason)
		}
	case reason.Code == CloseAbnormal:
		c.queue.stop(ErrClosed)
	default: // the peer's is echoed (RFC 6455 section 5.5.1)
		c.queue.close(newCloseFrame(reason.Code, reason.Reason), discard)
	}
	return true
}

// leave notes how the client ends, once, without doing anything about it.
func (c *Client) leave(reason CloseReason) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.reason == nil {
		c.leaveRegistry(reason)
	}
}

// leaveRegistry takes the client out of its groups. The caller holds mu.
func (c *Client) leaveRegistry(reason CloseReason) {
	c.reason = &reason
	c.closing.Store(true)
	if c.user != "" {
		removeMember(&c.registry.users, c.user, c)
	}
	for group := range c.groups {
		removeMember(&c.registry.groups, group, c)
	}
}

func (c *Client) isClosing() bool { return c.closing.Load() }

// start is told by the queue that it is to be written.
func (c *Client) start(*sendQueue) { c.writers.add(c) }

// holding is told by the queue that something waits for the client's own goroutine.
func (c *Client) holding() { c.attend(c) }

func (c *Client) wrote(n int) { c.wire.bytesOut.Add(int64(n)) }

// full is told by the queue that a message did not fit.
func (c *Client) full(policy QueuePolicy) {
	c.slot.tally.overflows[policy].Add(1)
	c.slow.CompareAndSwap(0, 1)
}

// writeFailed is told by the queue that the connection takes nothing any more.
// What the peer sent before may still be there to be read, so reading goes on
// for a moment.
func (c *Client) writeFailed(error) {
	const moment = time.Second
	_ = c.wire.bottom().SetReadDeadline(time.Now().Add(moment)) // an error means that it is closed
}

// longAgo is a deadline that has passed.
var longAgo = time.Unix(1, 0)

// vanished cuts the connection of a peer that does not react.
func (c *Client) vanished(why string) {
	c.kill(CloseReason{Code: CloseAbnormal, Reason: why, ByPeer: true})
}

// kill cuts the connection without a close frame. It never blocks: what reads or
// writes wakes up with an error.
func (c *Client) kill(reason CloseReason) {
	if c.killed.Swap(true) {
		return
	}
	c.close(reason, true)
	c.queue.stop(ErrClosed)
	c.endContext()
	if c.open.Load() {
		c.cut()
	}
}

// cut wakes whatever reads from the client or writes to it, with an error. Only
// when the client is open.
func (c *Client) cut() {
	_ = c.wire.bottom().SetDeadline(longAgo) // an error means that it is closed
	if c.forwarded {
		c.helper("cut", func() { _ = c.tunnel.back.Close() }) // TLS may wait to say goodbye
	}
}
