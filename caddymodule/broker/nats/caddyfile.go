package nats

import (
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/dustin/go-humanize"

	"github.com/caddy-websocket/caddy-websocket/gateway/natsbroker"
)

// UnmarshalCaddyfile sets up the broker from the lines:
//
//	broker nats <url> ... {
//		credentials_file <file>
//		nkey_seed_file   <file>
//		user             <name> <password>
//		token            <token>
//		tls_ca           <pem file>
//		tls_client       <pem file> <key file>
//		tls_server_name  <name>
//		name             <text>
//		prefix           <subject>
//		connect_timeout  <duration>
//		reconnect_wait   <duration>
//		ping_interval    <duration>
//		send_buffer      <size>
//		receive_buffer   <size>
//		required         [<timeout>]
//	}
//
// At most one of the first four may be given. All but durations and sizes may have
// placeholders like {env.NATS_TOKEN} or {file./run/secrets/nats}.
func (n *NATS) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the module's name
	if n.URLs = d.RemainingArgs(); len(n.URLs) == 0 {
		return d.Err("the syntax is broker nats <url> ... { ... }")
	}
	if err := n.check(); err != nil {
		return d.WrapErr(err)
	}
	seen := make(map[string]bool)
	for d.NextBlock(0) {
		name := d.Val()
		o, ok := options[name]
		if !ok {
			return d.Errf("unknown option %q of broker nats: allowed are %s", name, strings.Join(slices.Sorted(maps.Keys(options)), ", "))
		}
		if seen[name] {
			return d.Errf("option %s is given twice", name)
		}
		seen[name] = true
		args := d.RemainingArgs()
		if len(args) < o.least || len(args) > o.most || slices.Contains(args, "") || d.NextBlock(1) {
			return d.Errf("the syntax is %s %s", name, o.syntax)
		}
		if err := o.parse(n, d, args); err != nil {
			return err
		}
		if err := n.check(); err != nil { // at once, so that the error names the line
			return d.WrapErr(err)
		}
	}
	return nil
}

// option is a line of the block.
type option struct {
	syntax      string
	least, most int // arguments
	parse       func(n *NATS, d *caddyfile.Dispenser, args []string) error
}

// texts is an option whose values are taken as they are.
func texts(syntax string, into ...func(*NATS) *string) option {
	return option{syntax, len(into), len(into), func(n *NATS, _ *caddyfile.Dispenser, args []string) error {
		for i, arg := range args {
			*into[i](n) = arg
		}
		return nil
	}}
}

// duration is an option with one duration.
func duration(name string, into func(*NATS) *caddy.Duration) option {
	return option{"<duration>", 1, 1, func(n *NATS, d *caddyfile.Dispenser, args []string) (err error) {
		*into(n), err = durationOf(d, name, args[0])
		return err
	}}
}

func durationOf(d *caddyfile.Dispenser, name, arg string) (caddy.Duration, error) {
	value, err := caddy.ParseDuration(arg)
	if err != nil || value <= 0 {
		return 0, d.Errf("%s %q: allowed are positive durations like 500ms or 10s", name, arg)
	}
	return caddy.Duration(value), nil
}

// size is an option with one number of bytes.
func size(name string, into func(*NATS) *int64) option {
	return option{"<size>", 1, 1, func(n *NATS, d *caddyfile.Dispenser, args []string) error {
		value, err := humanize.ParseBytes(args[0])
		if err != nil || value < natsbroker.MinBuffer || value > math.MaxInt64 {
			return d.Errf("%s %q: allowed are sizes like 256KiB or 8MiB, %d bytes at least", name, args[0], natsbroker.MinBuffer)
		}
		*into(n) = int64(value)
		return nil
	}}
}

var options = map[string]option{
	"credentials_file": texts("<file>", func(n *NATS) *string { return &n.CredentialsFile }),
	"nkey_seed_file":   texts("<file>", func(n *NATS) *string { return &n.NKeySeedFile }),
	"user": texts("<name> <password>",
		func(n *NATS) *string { return &n.User }, func(n *NATS) *string { return &n.Password }),
	"token":  texts("<token>", func(n *NATS) *string { return &n.Token }),
	"tls_ca": texts("<pem file>", func(n *NATS) *string { return &n.TLSCA }),
	"tls_client": texts("<pem file> <key file>",
		func(n *NATS) *string { return &n.TLSClientCertificate }, func(n *NATS) *string { return &n.TLSClientKey }),
	"tls_server_name": texts("<name>", func(n *NATS) *string { return &n.TLSServerName }),
	"name":            texts("<text>", func(n *NATS) *string { return &n.Name }),
	"prefix":          texts("<subject>", func(n *NATS) *string { return &n.Prefix }),
	"connect_timeout": duration("connect_timeout", func(n *NATS) *caddy.Duration { return &n.ConnectTimeout }),
	"reconnect_wait":  duration("reconnect_wait", func(n *NATS) *caddy.Duration { return &n.ReconnectWait }),
	"ping_interval":   duration("ping_interval", func(n *NATS) *caddy.Duration { return &n.PingInterval }),
	"send_buffer":     size("send_buffer", func(n *NATS) *int64 { return &n.SendBuffer }),
	"receive_buffer":  size("receive_buffer", func(n *NATS) *int64 { return &n.ReceiveBuffer }),
	"required": {"[<timeout>]", 0, 1, func(n *NATS, d *caddyfile.Dispenser, args []string) (err error) {
		if len(args) == 0 {
			args = []string{DefaultRequiredTimeout.String()}
		}
		n.Required, err = durationOf(d, "required", args[0])
		return err
	}},
}

// Interface guards
var _ caddyfile.Unmarshaler = (*NATS)(nil)
