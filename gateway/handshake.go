package gateway

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"slices"
	"sync/atomic"
	"time"

	"github.com/gorilla/websocket"
)

// Identity is what the server in front knows of a visitor.
type Identity struct {
	// RealIP is the visitor's IP address without a port; empty if unknown. It must
	// come from a place that the visitor cannot write to.
	RealIP string

	// User is the application's id of the visitor; empty means none.
	User string

	// Groups are joined, and Session is set, before OnConnect is called.
	Groups  []string
	Session map[string]any

	// Opened, if it is not nil, is called when the handshake is answered and the
	// client lives. Over HTTP/1.1 Upgrade and Forward then return, over HTTP/2 and
	// HTTP/3 they do when the client is gone.
	Opened func(c *Client)
}

// ServeHTTP upgrades a handshake, and refuses any other request with 426. The
// client's real IP is the peer's; behind a proxy use Upgrade with an address
// that is known to be right.
func (e *Endpoint) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	err := e.serve(w, r)
	if err == nil {
		return
	}
	refused, ok := errors.AsType[*HandshakeError](err)
	if !ok {
		refused = refuse(http.StatusInternalServerError, err)
	}
	maps.Copy(w.Header(), refused.Header)
	http.Error(w, http.StatusText(refused.status()), refused.status())
}

func (e *Endpoint) serve(w http.ResponseWriter, r *http.Request) error {
	if !IsHandshake(r) {
		return RefuseOther(r)
	}
	ip := r.RemoteAddr
	if host, _, err := net.SplitHostPort(r.RemoteAddr); err == nil {
		ip = host
	}
	if !limitKey(ip).IsValid() {
		ip = ""
	}
	_, err := e.Upgrade(w, r, Identity{RealIP: ip})
	return err
}

// Upgrade answers a handshake. Over HTTP/1.1 it returns at once: the client then
// lives in goroutines of its own, and w and r are not used any more. Over HTTP/2
// and HTTP/3 the client lives in its request, and Upgrade returns when it is gone,
// or panics with http.ErrAbortHandler to have a stream reset that was cut; the
// caller uses w no more, and returns. The error is a
// *HandshakeError if the handshake is refused; then nothing has been written,
// and the caller answers. A handshake at an endpoint whose generation is being
// prepared waits until it is committed or closed.
//
// The client is returned for logs: it may be gone by then.
func (e *Endpoint) Upgrade(w http.ResponseWriter, r *http.Request, id Identity) (*Client, error) {
	c, err := e.accept(w, r, id)
	return c, e.counted(err)
}

func (e *Endpoint) accept(w http.ResponseWriter, r *http.Request, id Identity) (*Client, error) {
	live, answer, err := e.receive(w, r, id, false)
	if err != nil {
		return nil, err
	}
	answer.extensions = live.extensions(r)
	c := live.newClient(id)
	c.proto = proto(r)
	c.subprotocol = live.subprotocol(r)
	c.deflate = answer.extensions != ""
	if err := live.admit(c, id); err != nil {
		return nil, err
	}
	if err := c.connect(r); err != nil {
		return nil, refusedBy(err)
	}
	answer.header = c.takeHeader()
	if err := c.upgrade(answer, r); err != nil {
		c.close(CloseReason{Code: CloseAbnormal, Reason: "upgrade failed: " + err.Error(), ByPeer: true}, true)
		c.endContext()
		c.onClose(c.closeReason())
		c.abandon()
		if c.wire.conn == nil && answer.written {
			panic(http.ErrAbortHandler) // the 101 must not reach the client
		}
		if c.wire.conn == nil {
			return nil, refuse(http.StatusInternalServerError, err)
		}
		c.slot.tally.handshake(statusLost)
		live.log().Info("client lost during the handshake", "client", c.id, "client_ip", c.ip, "endpoint", live.name, "error", err)
		_ = c.wire.Close() // it may still be read from, by nobody
		answer.stay()
		return c, nil
	}
	c.opened(id)
	go c.run()
	answer.stay()
	return c, nil
}

// opened notes that the handshake is answered.
func (c *Client) opened(id Identity) {
	c.slot.current.Load().log().Info("client connected", c.about("subprotocol", c.Subprotocol(), "proto", c.proto)...)
	c.slot.tally.handshake(http.StatusSwitchingProtocols)
	c.lastMessage.Store(c.now())
	c.open.Store(true)
	c.watched(EventConnect, nil)
	if id.Opened != nil {
		id.Opened(c)
	}
}

// receive decides about a handshake before anything is known of the client but
// its request. It returns the endpoint in force and the way to answer.
func (e *Endpoint) receive(w http.ResponseWriter, r *http.Request, id Identity, forward bool) (*Endpoint, *answer, error) {
	if err := checkRequest(r); err != nil {
		return nil, nil, err
	}
	live, err := e.inForce(r.Context())
	if err != nil {
		return nil, nil, err
	}
	if live.o.Forwarding != forward {
		// An old server that still has a connection asks in the old way.
		return nil, nil, unavailable(errors.New(reasonChanged))
	}
	if why, ok := live.origins.allow(r); !ok {
		live.logOrigin(r, id, why)
		return nil, nil, refuse(http.StatusForbidden, errors.New(why))
	}
	answer, err := newAnswer(w, r)
	if err != nil {
		return nil, nil, refuse(http.StatusInternalServerError, err)
	}
	return live, answer, nil
}

// inForce returns the endpoint that serves under e's name now.
func (e *Endpoint) inForce(ctx context.Context) (*Endpoint, error) {
	if !e.added.Load() {
		return nil, unavailable(errors.New("the endpoint is not served"))
	}
	select {
	case <-e.gen.ready:
	case <-ctx.Done():
		return nil, unavailable(errors.New("the endpoint is being prepared"))
	case <-e.gen.g.stopping:
		return nil, unavailable(errors.New(reasonShutdown))
	}
	live := e.slot.current.Load()
	switch {
	case !e.gen.committed.Load():
		return nil, unavailable(errors.New("the endpoint's configuration was dropped"))
	case e.gen.g.evacuating.Load() != nil:
		return nil, unavailable(errors.New(reasonDrained))
	case e.slot.gone.Load() != nil || live == nil:
		return nil, unavailable(errors.New("the endpoint was removed"))
	case live.failed != nil:
		return nil, unavailable(errors.New("the endpoint's logic failed to start"))
	}
	return live, nil
}

// newClient makes the client that a handshake is about.
func (e *Endpoint) newClient(id Identity) *Client {
	s := e.gen.g.shared
	c := &Client{
		shared: s, id: newClientID(s.node), ip: id.RealIP, limit: limitKey(id.RealIP), slot: e.slot,
		connectedAt: time.Now(), header: make(http.Header),
	}
	c.wire.client, c.queue.owner, c.queue.least = c, c, leastWeight
	return c
}

// admit counts the client and registers it under its identity.
func (e *Endpoint) admit(c *Client, id Identity) error {
	bad := func(err error) error { return refuse(http.StatusBadRequest, err) }
	if err := c.session.Replace(id.Session); err != nil {
		return bad(err)
	}
	if id.User != "" {
		if err := checkName("user", id.User); err != nil {
			return bad(err)
		}
	}
	if err := checkNames("group", id.Groups); err != nil {
		return bad(err)
	}
	switch e.slot.counts.admit(c.limit, e.o.MaxClients, e.o.MaxClientsPerIP) {
	case admitted:
	case endpointFull:
		return unavailable(fmt.Errorf("the endpoint has its %d clients", e.o.MaxClients))
	case ipFull:
		return refuse(http.StatusTooManyRequests, fmt.Errorf("%s has its %d clients", c.limit, e.o.MaxClientsPerIP), "Retry-After", retryAfter)
	}
	s := c.shared
	s.mu.Lock()
	draining := s.draining()
	if !draining {
		s.conns.Add(1)
	}
	s.mu.Unlock()
	if draining {
		e.slot.counts.release(c.limit)
		return unavailable(ErrShutdown)
	}
	s.registry.add(c)
	err := c.bind(id.User)
	if err == nil {
		err = c.Join(id.Groups...)
	}
	if err != nil {
		c.abandon()
		return bad(err)
	}
	return nil
}

// connect calls OnConnect, and forgets the client unless it was accepted, also if
// the logic left its goroutine by runtime.Goexit. OnConnect runs beside the
// request's goroutine, which a server waits for when it shuts down: one that never
// returns must not keep the process alive.
func (c *Client) connect(r *http.Request) error {
	done := make(chan error, 1)
	var decided atomic.Bool // by OnConnect's return, or by the end of the shutdown
	c.helper("OnConnect", func() {
		err := errors.New("logic left its goroutine")
		defer func() {
			late := !decided.CompareAndSwap(false, true)
			if late && err == nil {
				c.onClose(c.closeReason()) // kill has noted it
			}
			if late || err != nil {
				c.abandon()
			}
			done <- err
		}()
		err = c.onConnect(r)
	})
	select {
	case err := <-done:
		return err
	case <-c.overdue.Done():
		if !decided.CompareAndSwap(false, true) {
			return <-done
		}
		return unavailable(ErrShutdown)
	}
}

// abandon forgets a client whose handshake came to nothing.
func (c *Client) abandon() {
	c.close(CloseReason{Code: CloseAbnormal, Reason: "handshake refused"}, true)
	c.endContext()
	c.registry.remove(c)
	c.slot.counts.release(c.limit)
	c.conns.Done()
}

// subprotocol returns the first of the endpoint's subprotocols that the request
// offers, or "".
func (e *Endpoint) subprotocol(r *http.Request) string {
	offered := slices.Collect(listItems(r.Header, "Sec-Websocket-Protocol"))
	for _, p := range e.o.Subprotocols {
		if slices.Contains(offered, p) {
			return p
		}
	}
	return ""
}

// extensions returns the answer to the extensions that the request offers, or "".
func (e *Endpoint) extensions(r *http.Request) string {
	if e.o.Compression.Level == 0 {
		return ""
	}
	return acceptDeflate(r.Header)
}

// upgrade lets gorilla answer the handshake and take over the connection.
func (c *Client) upgrade(a *answer, r *http.Request) (err error) {
	c.wire.answer = a
	// What gorilla sees is what has been found to be right: it reads lists less well,
	// and would take any offer.
	shallow := *r
	shallow.Header = http.Header{
		"Connection":            {"Upgrade"},
		"Upgrade":               {"websocket"},
		"Sec-Websocket-Version": {"13"},
		"Sec-Websocket-Key":     r.Header.Values("Sec-Websocket-Key"),
	}
	if isStream(r) { // gorilla knows HTTP/1.1 only
		shallow.Method = http.MethodGet
		shallow.Header.Set("Sec-Websocket-Key", anyKey)
	}
	if c.deflate {
		shallow.Header.Set("Sec-Websocket-Extensions", "permessage-deflate")
	}
	upgrader := websocket.Upgrader{
		EnableCompression: c.deflate,
		ReadBufferSize:    readBuffer,
		WriteBufferPool:   noWriteBuffers{},
		WriteBufferSize:   1,
		CheckOrigin:       func(*http.Request) bool { return true }, // done, by rules of ours
		Error:             func(http.ResponseWriter, *http.Request, int, error) {},
	}
	if p := c.Subprotocol(); p != "" {
		shallow.Header.Set("Sec-Websocket-Protocol", p)
		upgrader.Subprotocols = []string{p}
	}
	c.ws, err = upgrader.Upgrade(upgradeWriter{a.w, &c.wire}, &shallow, nil)
	c.wire.answer = nil
	return err
}

// readBuffer is what a connection keeps for reading: small, because most of the
// time most connections are idle. A longer message is read past it.
const readBuffer = 1024

// noWriteBuffers keeps gorilla from making write buffers: it never writes
// messages here.
type noWriteBuffers struct{}

// Get returns nothing to reuse.
func (noWriteBuffers) Get() any { return nil }

// Put forgets v.
func (noWriteBuffers) Put(any) {}

// logOrigin says what was refused and what to write if it should not have been.
func (e *Endpoint) logOrigin(r *http.Request, id Identity, why string) {
	origin := r.Header.Get("Origin")
	allow := "origins " + origin
	if origin == "" {
		allow = "origins without the word require"
	}
	e.log().Warn("handshake refused by its origin", "why", why,
		"endpoint", e.name, "client_ip", id.RealIP, "origin", origin, "host", r.Host, "to_allow", allow)
}
