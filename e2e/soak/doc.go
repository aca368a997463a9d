// Package soak keeps a whole Caddy busy for minutes, with clients over HTTP/1.1, HTTP/2
// and HTTP/3 that talk, come and go, read nothing or make the logic panic, while its
// configuration is reloaded over and over; and counts what was lost. The same load goes to Caddy's own reverse_proxy and
// to nginx, for comparison.
//
// The flags set how much of it: what `go test` runs without any takes seconds, what
// `make soak` runs minutes. See docs/reliability.md.
package soak
