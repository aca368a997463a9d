package websocket

import (
	"math"
	"strconv"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/dustin/go-humanize"
)

// arguments returns the rest of the line, which must have between least and most
// of them and no block.
func arguments(d *caddyfile.Dispenser, least, most int, syntax string) ([]string, error) {
	option := d.Val()
	args := d.RemainingArgs()
	if len(args) < least || len(args) > most {
		return nil, d.Errf("wrong number of arguments: the syntax is %s %s", option, syntax)
	}
	if d.NextBlock(1) {
		return nil, d.Errf("option %s has no block: the syntax is %s %s", option, option, syntax)
	}
	return args, nil
}

func text(d *caddyfile.Dispenser, into *string) error {
	args, err := arguments(d, 1, 1, "<value>")
	if err != nil {
		return err
	}
	if args[0] == "" {
		return d.Err("the value is empty")
	}
	*into = args[0]
	return nil
}

func texts(d *caddyfile.Dispenser, into *[]string) error {
	args, err := arguments(d, 1, math.MaxInt, "<value> ...")
	if err != nil {
		return err
	}
	*into = append(*into, args...)
	return nil
}

func number(d *caddyfile.Dispenser, into *int) error {
	args, err := arguments(d, 1, 1, "<number>")
	if err != nil {
		return err
	}
	*into, err = positive(d, args[0])
	return err
}

func positive(d *caddyfile.Dispenser, arg string) (int, error) {
	n, err := strconv.Atoi(arg)
	if err != nil || n <= 0 {
		return 0, d.Errf("%q: allowed are positive whole numbers", arg)
	}
	return n, nil
}

func duration(d *caddyfile.Dispenser, into *caddy.Duration) error {
	args, err := arguments(d, 1, 1, "<duration>")
	if err != nil {
		return err
	}
	*into, err = positiveDuration(d, args[0])
	return err
}

func positiveDuration(d *caddyfile.Dispenser, arg string) (caddy.Duration, error) {
	dur, err := caddy.ParseDuration(arg)
	if err != nil || dur <= 0 {
		return 0, d.Errf("%q: allowed are positive durations like 500ms, 25s or %s", arg, 90*time.Minute)
	}
	return caddy.Duration(dur), nil
}

func size(d *caddyfile.Dispenser, arg string) (int64, error) {
	n, err := humanize.ParseBytes(arg)
	if err != nil || n == 0 || n > math.MaxInt64 {
		return 0, d.Errf("%q: allowed are positive sizes like 512, 64KiB or 1MiB", arg)
	}
	return int64(n), nil
}
