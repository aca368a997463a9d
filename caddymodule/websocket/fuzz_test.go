package websocket_test

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-websocket/caddy-websocket/caddymodule/websocket"
)

// Whatever stands in the block, the parser answers with options that survive
// the way through JSON, or with an error that has file and line.
func FuzzOptions(f *testing.F) {
	for _, seed := range []string{
		"", "name chat\ngateway g", "origins https://example.com *.x\norigins require", "subprotocols a b",
		"user {query.u}\njoin a b\nsession k {client_ip}", "max_message_size 64KiB\nsend_buffer 1MB drop_oldest",
		"max_clients 5\nmax_clients_per_ip 6\nmessage_rate 1.5 3", "write_timeout 5s\nidle_timeout 1d\nping 25s 10s",
		"ping off", "heartbeat 55s `{\"type\":\"ping\"}` 2", "logic echo", "logic reply \"hello {ws.user}\"",
		"logic rooms {\n prefix x\n}", "logic rooms {\n", "}", "{", "max_clients 5 {\n x\n}", "session k v {\n}", "logic \"\"",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, block string) {
		tokens, err := caddyfile.Tokenize([]byte("websocket {\n"+block+"\n}"), "Caddyfile")
		if err != nil || len(tokens) == 0 {
			return // Caddy's own parser refuses it
		}
		h := new(websocket.Handler)
		if err := h.UnmarshalCaddyfile(caddyfile.NewDispenser(tokens)); err != nil {
			if !strings.Contains(err.Error(), "Caddyfile:") {
				t.Errorf("the error has no line: %v", err)
			}
			return
		}
		config, err := json.Marshal(h)
		if err != nil {
			t.Fatal(err)
		}
		back := new(websocket.Handler)
		if err := caddy.StrictUnmarshalJSON(config, back); err != nil {
			t.Fatalf("%v in %s", err, config)
		}
		again, err := json.Marshal(back)
		if err != nil || !reflect.DeepEqual(again, config) {
			t.Errorf("%s became %s (%v)", config, again, err)
		}
	})
}
