package gateway

import "net/http"

// Logic is the message logic of an endpoint.
//
// The callbacks of one client run one at a time and in order; those of
// different clients run concurrently. OnConnect runs in a goroutine beside that of
// the handshake's HTTP request, which waits for it; OnMessage and OnClose in the
// client's own. A callback may block: it holds up its own client, nobody else. A
// panic ends the client that it happened to with 1011, never the process.
type Logic interface {
	// OnConnect is called before the handshake is answered. The client already
	// has its id, identity and session, and commands reach it: what is sent now
	// is delivered right after the 101. r is valid only during the call; header
	// fields for the answer go to c.Header.
	//
	// An error refuses the handshake: a HandshakeError with its own status, any
	// other with 403. OnClose is not called for a refused client.
	OnConnect(c *Client, r *http.Request) error

	// OnMessage is called for every message. m belongs to the callee. An error
	// closes the client: a CloseError as it says, any other with 1011 and a log
	// line.
	OnMessage(c *Client, m Message) error

	// OnClose is called exactly once for every OnConnect that returned nil,
	// after a running callback has returned. The client can no longer be sent
	// to and is in no list, but still knows its user, groups and session.
	OnClose(c *Client, reason CloseReason)
}

// NopLogic accepts every client and ignores every message. Embed it to write
// only the callbacks that are needed.
type NopLogic struct{}

// OnConnect accepts the client.
func (NopLogic) OnConnect(*Client, *http.Request) error { return nil }

// OnMessage drops the message.
func (NopLogic) OnMessage(*Client, Message) error { return nil }

// OnClose does nothing.
func (NopLogic) OnClose(*Client, CloseReason) {}

// Starter is an optional interface of Logic: OnStart is called once when the
// endpoint comes into force, before its first callback. It is the place for
// g.Go and g.Every; what they start ends with the endpoint's generation.
//
// An error is logged and takes the endpoint out of service: handshakes are
// answered with 503, clients of an earlier generation are closed with 1011.
// What should refuse a configuration instead belongs before Commit, in a Caddy
// module's Provision.
type Starter interface {
	OnStart(g *Gateway) error
}

// Inheritor is an optional interface of Logic: Inherit is called once when the
// endpoint comes into force in place of an older one of the same name, before
// OnStart. The old logic may still be running callbacks, so what is taken from
// it must be safe for concurrent use. Without it, new logic starts afresh; what
// belongs to a client (Value, Session) stays with the client either way.
type Inheritor interface {
	Inherit(old Logic)
}
