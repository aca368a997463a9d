//go:build extendedconnect

package main

import _ "github.com/caddy-websocket/caddy-websocket/gateway/extendedconnect" // WebSockets over HTTP/2
