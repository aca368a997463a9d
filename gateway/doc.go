// Package gateway is a registry of WebSocket clients and delivery to them: ids,
// users, groups, sessions, limits and liveness, under message logic that is a Go
// interface of three methods. It needs the standard library and
// gorilla/websocket; the Caddy module of this repository is built on it, and so
// can be any net/http server.
//
// # Life of a client
//
// A handshake arrives at an Endpoint, in the goroutine of its HTTP request:
//
//  1. The request is checked against RFC 6455, the endpoint's origins and its
//     limits. What fails is refused with an HTTP status.
//  2. The client gets its id and is registered under its identity. From here on
//     commands reach it.
//  3. Logic.OnConnect is called, and may refuse.
//  4. The handshake is answered with 101, and the HTTP handler returns.
//
// The rest happens in the client's own goroutine, the only one that an idle
// client has:
//
//  5. Messages are read, and Logic.OnMessage is called for each. What anybody
//     sends to the client is queued and written by a goroutine that exists only
//     while something waits.
//  6. Closing begins: by Client.Close, an error or panic of the logic, a limit, a
//     time-out, the peer's close frame, a lost connection. The client leaves its
//     user and groups, and no command reaches it any more.
//  7. What is queued and a close frame are written, and the peer's answer is
//     waited for; both within the endpoint's WriteTimeout.
//  8. The socket is closed, Client.Context is cancelled, and Logic.OnClose is
//     called.
//
// One goroutine of the gateway, the sweeper, looks at all clients once a second
// and sees to pings and time-outs.
//
// # Generations
//
// The endpoints that are in force form a Generation. A server that is
// reconfigured commits the next one, and its clients stay: their next message
// finds the endpoint of the same name, with its new limits and logic.
package gateway
