// Command trialcaddy is cmd/caddy with message logic that misbehaves when a client
// asks for it: `logic trial`. Tests of the whole program run it.
package main

import (
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	_ "github.com/caddyserver/caddy/v2/modules/standard"

	_ "github.com/caddy-websocket/caddy-websocket/caddymodule"
)

func main() { caddycmd.Main() }
