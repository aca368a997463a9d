package webhook

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
)

// UnmarshalCaddyfile sets up the logic from the lines:
//
//	logic webhook <url> {
//		events                   connect|message|close ...
//		secret                   <key>
//		timeout                  <duration>
//		retries                  <number>
//		max_concurrent           <number>
//		header                   <name> <value>
//		close_batch              <events> [<interval>]
//		on_error                 ignore|close
//		unix_socket              <path>
//		tls_trusted_ca_certs     <pem file> ...
//		tls_insecure_skip_verify
//	}
//
// header may be repeated. <url>, <key> and the values of headers may have
// placeholders like {env.WEBHOOK_SECRET} or {file./run/secrets/webhook}.
func (w *Webhook) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the module's name
	if !d.AllArgs(&w.URL) {
		return d.Err("the syntax is logic webhook <url> { ... }")
	}
	if err := w.check(); err != nil {
		return d.WrapErr(err)
	}
	seen := make(map[string]bool)
	for d.NextBlock(0) {
		option := d.Val()
		o, ok := options[option]
		if !ok {
			return d.Errf("unknown option %q of logic webhook: allowed are %s", option, strings.Join(slices.Sorted(maps.Keys(options)), ", "))
		}
		if seen[option] && option != "header" {
			return d.Errf("option %s is given twice", option)
		}
		seen[option] = true
		args := d.RemainingArgs()
		if len(args) < o.least || len(args) > o.most || slices.Contains(args, "") || d.NextBlock(1) {
			return d.Errf("the syntax is %s", strings.TrimSpace(option+" "+o.syntax))
		}
		if err := o.parse(w, d, args); err != nil {
			return err
		}
		if err := w.check(); err != nil { // at once, so that the error names the line
			return d.WrapErr(err)
		}
	}
	return nil
}

// option is a line of the block.
type option struct {
	syntax      string
	least, most int // arguments
	parse       func(w *Webhook, d *caddyfile.Dispenser, args []string) error
}

// text is an option with one value that is taken as it is.
func text(syntax string, into func(*Webhook) *string) option {
	return option{syntax, 1, 1, func(w *Webhook, _ *caddyfile.Dispenser, args []string) error {
		*into(w) = args[0]
		return nil
	}}
}

const many = 1000

var options = map[string]option{
	"events": {"connect|message|close ...", 1, many, func(w *Webhook, _ *caddyfile.Dispenser, args []string) error {
		w.Events = args
		return nil
	}},
	"secret":      text("<key>", func(w *Webhook) *string { return &w.Secret }),
	"on_error":    text("ignore|close", func(w *Webhook) *string { return &w.OnError }),
	"unix_socket": text("<path>", func(w *Webhook) *string { return &w.UnixSocket }),
	"timeout": {"<duration>", 1, 1, func(w *Webhook, d *caddyfile.Dispenser, args []string) (err error) {
		w.Timeout, err = duration(d, "timeout", args[0])
		return err
	}},
	"retries": {"<number>", 1, 1, func(w *Webhook, d *caddyfile.Dispenser, args []string) error {
		n, err := strconv.Atoi(args[0])
		w.Retries = &n
		if err != nil {
			return d.Errf("retries %q: allowed are 0 to %d", args[0], maxRetries)
		}
		return nil
	}},
	"max_concurrent": {"<number>", 1, 1, func(w *Webhook, d *caddyfile.Dispenser, args []string) (err error) {
		w.MaxConcurrent, err = strconv.Atoi(args[0])
		if err != nil || w.MaxConcurrent < 1 {
			return d.Errf("max_concurrent %q: allowed are 1 to %d", args[0], maxMaxConcurrent)
		}
		return nil
	}},
	"header": {"<name> <value>", 2, 2, func(w *Webhook, _ *caddyfile.Dispenser, args []string) error {
		if w.Headers == nil {
			w.Headers = make(map[string][]string)
		}
		w.Headers[args[0]] = append(w.Headers[args[0]], args[1])
		return nil
	}},
	"close_batch": {"<events> [<interval>]", 1, 2, func(w *Webhook, d *caddyfile.Dispenser, args []string) (err error) {
		w.CloseBatch = new(CloseBatch)
		w.CloseBatch.Size, err = strconv.Atoi(args[0])
		if err != nil || w.CloseBatch.Size < 1 {
			return d.Errf("close_batch %q: allowed are 1 to %d events", args[0], maxBatchSize)
		}
		if len(args) > 1 {
			w.CloseBatch.Interval, err = duration(d, "close_batch: interval", args[1])
		}
		return err
	}},
	"tls_trusted_ca_certs": {"<pem file> ...", 1, many, func(w *Webhook, _ *caddyfile.Dispenser, args []string) error {
		w.TLSTrustedCACerts = args
		return nil
	}},
	"tls_insecure_skip_verify": {"", 0, 0, func(w *Webhook, _ *caddyfile.Dispenser, _ []string) error {
		w.TLSInsecureSkipVerify = true
		return nil
	}},
}

// duration parses an argument; what names it in errors.
func duration(d *caddyfile.Dispenser, what, arg string) (caddy.Duration, error) {
	dur, err := caddy.ParseDuration(arg)
	if err != nil || dur <= 0 {
		return 0, d.Errf("%s %q: allowed are positive durations like 500ms or 10s", what, arg)
	}
	return caddy.Duration(dur), nil
}

// Interface guards
var _ caddyfile.Unmarshaler = (*Webhook)(nil)
