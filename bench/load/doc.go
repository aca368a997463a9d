// Package load is the generator: it speaks just enough WebSocket to keep servers busy, at
// little cost of its own. Frames are built before they are needed and are never changed;
// a read takes all that has arrived, a write sends all that is due; nothing is allocated
// for a message. It is no client for anything else: it trusts the servers to send frames
// that are well made.
package load
