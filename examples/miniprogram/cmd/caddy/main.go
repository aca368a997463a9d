// Command caddy is Caddy with its standard modules, the directive websocket and
// the logic miniprogram.
package main

import (
	_ "time/tzdata" // log time zones, also where the system has no database of them

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	_ "github.com/caddyserver/caddy/v2/modules/standard"

	_ "github.com/caddy-websocket/caddy-websocket/caddymodule"
	_ "github.com/caddy-websocket/caddy-websocket/examples/miniprogram"
)

func main() { caddycmd.Main() }
