// Package caddymodule is the one list of everything stock: the directive
// `websocket`, and the message logic and the broker that come with it. Import it,
// or build with it, to have all:
//
//	xcaddy build --with github.com/caddy-websocket/caddy-websocket/caddymodule
//
// Who wants less names caddymodule/websocket and the guests that are needed.
package caddymodule

import (
	_ "github.com/caddy-websocket/caddy-websocket/caddymodule/broker/nats"     // websocket.brokers.nats
	_ "github.com/caddy-websocket/caddy-websocket/caddymodule/logic/echo"      // websocket.logic.echo
	_ "github.com/caddy-websocket/caddy-websocket/caddymodule/logic/reply"     // websocket.logic.reply
	_ "github.com/caddy-websocket/caddy-websocket/caddymodule/logic/rooms"     // websocket.logic.rooms
	_ "github.com/caddy-websocket/caddy-websocket/caddymodule/logic/webhook"   // websocket.logic.webhook
	_ "github.com/caddy-websocket/caddy-websocket/caddymodule/websocket"       // websocket, http.handlers.websocket
	_ "github.com/caddy-websocket/caddy-websocket/caddymodule/websocket/admin" // admin.api.websocket, the command websocket
	_ "github.com/caddy-websocket/caddy-websocket/caddymodule/websocket/api"   // http.handlers.websocket_api
)
