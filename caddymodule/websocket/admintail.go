package websocket

import (
	"context"
	"fmt"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
)

// AdminTail is what operators may see of messages, see `caddy websocket tail`: the
// types and lengths, and nothing of what is in them unless it says so.
type AdminTail struct {
	// Payload is how many bytes of each message a tail may show, to who asks for them;
	// at most 64 KiB. Default: none.
	Payload int `json:"payload,omitempty"`
}

// DefaultTailPayload is what `admin_tail payload` means without a number.
const DefaultTailPayload = 256

const maxTailPayload = 64 << 10

func (t *AdminTail) validate() error {
	if t != nil && (t.Payload < 0 || t.Payload > maxTailPayload) {
		return fmt.Errorf("admin_tail payload %d: allowed are 0 to %d bytes", t.Payload, maxTailPayload)
	}
	return nil
}

// parseAdminTail parses the option:
//
//	admin_tail payload [<bytes>]
func parseAdminTail(d *caddyfile.Dispenser, into **AdminTail) error {
	const syntax = "payload [<bytes>]"
	args, err := arguments(d, 1, 2, syntax)
	if err != nil {
		return err
	}
	if args[0] != "payload" {
		return d.Errf("admin_tail %q: the syntax is admin_tail %s", args[0], syntax)
	}
	bytes := int64(DefaultTailPayload)
	if len(args) == 2 {
		if bytes, err = sizeOf(d, "admin_tail payload", args[1]); err != nil {
			return err
		}
		if bytes > maxTailPayload {
			return d.Errf("admin_tail payload %q: allowed are at most 64KiB", args[1])
		}
	}
	*into = &AdminTail{Payload: int(bytes)}
	return nil
}

// TailPayload returns how many bytes of each message the configuration in force lets
// a tail show, and a context that ends when that configuration does. With none to
// show the context is nil.
func TailPayload() (bytes int, while context.Context) {
	app := active()
	if app == nil || app.AdminTail == nil || app.AdminTail.Payload == 0 {
		return 0, nil
	}
	return app.AdminTail.Payload, app.ctx
}
