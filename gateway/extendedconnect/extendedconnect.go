// Package extendedconnect lets HTTP/2 servers of this process offer extended
// CONNECT (RFC 8441), so that browsers open WebSockets on the HTTP/2 connection
// that the page came by. It is an opt-in by import, for Caddy
//
//	xcaddy build --with github.com/caddy-websocket/caddy-websocket/caddymodule \
//		--with github.com/caddy-websocket/caddy-websocket/gateway/extendedconnect
//
// and for a program of one's own
//
//	import _ "github.com/caddy-websocket/caddy-websocket/gateway/extendedconnect"
//
// It holds for the whole process: a browser then opens all its WebSockets to all
// its servers in this way, also where something else than this module answers
// them. What knows only of HTTP/1.1 upgrades refuses those. A process that has
// the import and is started with GODEBUG=http2xconnect=0 does not offer it.
//
// HTTP/3 is no matter of this package.
package extendedconnect

import "os"

// golang.org/x/net/http2 and net/http offer extended CONNECT if GODEBUG says so,
// which they look at once, in their init. So GODEBUG has to be set before them: Go
// initializes packages sorted by their paths, each as soon as all that it imports
// is (The Go Programming Language Specification, "Program initialization"). This
// one imports nothing that they do not import, and its path comes first. (A
// //go:debug line would not do: Go does not know this setting.)
func init() {
	const setting = "http2xconnect="
	old := os.Getenv("GODEBUG")
	for i := range len(old) {
		if len(old)-i >= len(setting) && old[i:i+len(setting)] == setting {
			return // who starts the process has decided
		}
	}
	if old != "" {
		old += ","
	}
	_ = os.Setenv("GODEBUG", old+setting+"1") // cannot fail: neither is empty nor has a zero byte
}
