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

// text parses an option with one value.
func text(d *caddyfile.Dispenser, into *string, syntax string) error {
	option := d.Val()
	args, err := arguments(d, 1, 1, syntax)
	if err != nil {
		return err
	}
	if args[0] == "" {
		return d.Errf("%s: the value is empty", option)
	}
	*into = args[0]
	return nil
}

// texts parses an option with any number of values.
func texts(d *caddyfile.Dispenser, into *[]string, syntax string) error {
	args, err := arguments(d, 1, math.MaxInt, syntax)
	if err != nil {
		return err
	}
	*into = append(*into, args...)
	return nil
}

// number parses an option with a whole number from least on.
func number(d *caddyfile.Dispenser, into *int, least int) error {
	option := d.Val()
	args, err := arguments(d, 1, 1, "<number>")
	if err != nil {
		return err
	}
	*into, err = wholeNumber(d, option, args[0], least)
	return err
}

// wholeNumber parses an argument; what names it in errors.
func wholeNumber(d *caddyfile.Dispenser, what, arg string, least int) (int, error) {
	n, err := strconv.Atoi(arg)
	if err != nil || n < least {
		return 0, d.Errf("%s %q: allowed are whole numbers from %d on", what, arg, least)
	}
	return n, nil
}

// duration parses an option with a duration of at least least.
func duration(d *caddyfile.Dispenser, into *caddy.Duration, least time.Duration) error {
	option := d.Val()
	args, err := arguments(d, 1, 1, "<duration>")
	if err != nil {
		return err
	}
	*into, err = durationOf(d, option, args[0], least)
	return err
}

// durationOf parses an argument; what names it in errors.
func durationOf(d *caddyfile.Dispenser, what, arg string, least time.Duration) (caddy.Duration, error) {
	dur, err := caddy.ParseDuration(arg)
	switch {
	case err == nil && dur >= least:
		return caddy.Duration(dur), nil
	case least == 0:
		return 0, d.Errf("%s %q: allowed are durations like 25s or 90m, and 0", what, arg)
	}
	return 0, d.Errf("%s %q: allowed are positive durations like 500ms, 25s or 90m", what, arg)
}

// sizeOf parses an argument; what names it in errors.
func sizeOf(d *caddyfile.Dispenser, what, arg string) (int64, error) {
	n, err := humanize.ParseBytes(arg)
	if err != nil || n == 0 || n > math.MaxInt64 {
		return 0, d.Errf("%s %q: allowed are positive sizes like 512, 64KiB or 1MiB", what, arg)
	}
	return int64(n), nil
}
