// Package cluster keeps three Caddys busy that serve clients together over a NATS cluster
// of three, and takes away one part after the other: a node, NATS servers, the network in
// between, the configuration. Every message says who sent it, as which, and whom it is for,
// so that every client can tell what comes twice, late, or not for him; what is missing is
// counted by phase.
//
// The flags set how much of it: what `go test` runs without any takes half a minute,
// `make cluster` is the long form. See docs/reliability.md.
package cluster
