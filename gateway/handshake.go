package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"slices"
	"sync/atomic"
	"time"
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
	c := live.newClient(r, id)
	answer.subprotocol = live.subprotocol(r)
	c.subprotocol = answer.subprotocol
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
		if answer.written {
			panic(http.ErrAbortHandler) // the 101 must not reach the client
		}
		return nil, refuse(http.StatusInternalServerError, err)
	}
	c.opened(id)
	go c.run()
	answer.stay()
	return c, nil
}

// opened notes that the handshake is answered.
func (c *Client) opened(id Identity) {
	c.say(&placeConnected, slog.LevelInfo, "client connected", slog.String("subprotocol", c.Subprotocol()), slog.String("proto", c.proto))
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
func (e *Endpoint) newClient(r *http.Request, id Identity) *Client {
	s := e.gen.g.shared
	c := &Client{
		shared: s, id: newClientID(s.node), ip: id.RealIP, slot: e.slot,
		connectedAt: time.Now(), proto: proto(r),
	}
	c.wire.client, c.queue.owner, c.queue.least = c, c, leastWeight
	return c
}

// admit counts the client and registers it under its identity.
func (e *Endpoint) admit(c *Client, id Identity) error {
	bad := func(err error) error { return refuse(http.StatusBadRequest, err) }
	if len(id.Session) > 0 {
		if err := c.session.Replace(id.Session); err != nil {
			return bad(err)
		}
	}
	if id.User != "" {
		if err := checkName("user", id.User); err != nil {
			return bad(err)
		}
	}
	if err := checkNames("group", id.Groups); err != nil {
		return bad(err)
	}
	limit := limitKey(c.ip)
	switch e.slot.counts.admit(limit, e.o.MaxClients, e.o.MaxClientsPerIP) {
	case admitted:
	case endpointFull:
		return unavailable(fmt.Errorf("the endpoint has its %d clients", e.o.MaxClients))
	case ipFull:
		return refuse(http.StatusTooManyRequests, fmt.Errorf("%s has its %d clients", limit, e.o.MaxClientsPerIP), "Retry-After", retryAfter)
	}
	s := c.shared
	s.mu.Lock()
	draining := s.draining()
	if !draining {
		s.conns.Add(1)
	}
	s.mu.Unlock()
	if draining {
		e.slot.counts.release(limit)
		return unavailable(ErrShutdown)
	}
	s.registry.add(c)
	err := c.bind(id.User)
	if err == nil && len(id.Groups) > 0 {
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
	e := c.enter(callbackConnect)
	if e.o.Logic == nil {
		c.exit(e, nil)
		return nil
	}
	d := &decision{returned: make(chan error, 1)}
	c.helpers.Add(1)
	go c.decide(d, e, r)
	select {
	case err := <-d.returned:
		return err
	case <-c.overdue.Done():
		if !d.made.CompareAndSwap(false, true) {
			return <-d.returned
		}
		return unavailable(ErrShutdown)
	}
}

// decision is what becomes of a handshake: made by OnConnect's return, or by the end
// of the shutdown.
type decision struct {
	made     atomic.Bool
	returned chan error // has room for one
}

// decide is the goroutine that calls OnConnect.
func (c *Client) decide(d *decision, e *Endpoint, r *http.Request) {
	defer c.helpers.Done()
	defer c.recovered("OnConnect")
	err := errGoexit
	defer func() {
		late := !d.made.CompareAndSwap(false, true)
		if late && err == nil {
			c.onClose(c.closeReason()) // kill has noted it
		}
		if late || err != nil {
			c.abandon()
		}
		d.returned <- err
	}()
	err = c.onConnect(e, r)
}

// errGoexit is what OnConnect is taken to have returned if it has not.
var errGoexit = errors.New("logic left its goroutine")

// abandon forgets a client whose handshake came to nothing.
func (c *Client) abandon() {
	c.close(CloseReason{Code: CloseAbnormal, Reason: "handshake refused"}, true)
	c.endContext()
	c.registry.remove(c)
	c.slot.counts.release(limitKey(c.ip))
	c.conns.Done()
}

// subprotocol returns the first of the endpoint's subprotocols that the request
// offers, or "".
func (e *Endpoint) subprotocol(r *http.Request) string {
	if len(e.o.Subprotocols) == 0 {
		return ""
	}
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

// upgrade answers the handshake and takes over the connection.
func (c *Client) upgrade(a *answer, r *http.Request) (err error) {
	if c.wire.conn, c.wire.rest, err = a.send(r.Header.Get("Sec-Websocket-Key")); err != nil {
		return err
	}
	c.ws, err = takenOver(&c.wire, c.deflate)
	return err
}

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
