package api

import (
	"encoding/json"
	"maps"
	"math"
	"regexp"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/dustin/go-humanize"
)

func init() {
	httpcaddyfile.RegisterDirective("websocket_api", parseDirective)
	// Like the directive websocket: after what may stand in a token's place, and
	// before a site's catch-all handle.
	httpcaddyfile.RegisterDirectiveOrder("websocket_api", httpcaddyfile.Before, "invoke")
}

// parseDirective sets up a handler from a directive. Where the directive's matcher
// is a path that ends in a wildcard, what is before that is the prefix.
func parseDirective(h httpcaddyfile.Helper) ([]httpcaddyfile.ConfigValue, error) {
	h.Next() // the directive's name
	matcher, err := h.ExtractMatcherSet()
	if err != nil {
		return nil, err
	}
	handler := new(Handler)
	if err := handler.UnmarshalCaddyfile(h.Dispenser); err != nil {
		return nil, err
	}
	if handler.Prefix == "" {
		if err := handler.mount(h, matcher); err != nil {
			return nil, err
		}
	}
	return h.NewRoute(matcher, handler), nil
}

// mount takes the prefix from the matcher.
func (h *Handler) mount(d httpcaddyfile.Helper, matcher caddy.ModuleMap) error {
	raw, ok := matcher["path"]
	if !ok {
		return nil
	}
	var patterns []string
	if err := json.Unmarshal(raw, &patterns); err != nil {
		return d.WrapErr(err)
	}
	before, open := strings.CutSuffix(strings.Join(patterns, " "), "*")
	if len(patterns) != 1 || !open || strings.ContainsAny(before, "*{}%") {
		return d.Errf("the matcher's path %s does not say what of it comes before that of a call: write a path like /push/*, or the option prefix",
			strings.Join(patterns, " "))
	}
	h.Prefix = strings.TrimSuffix(before, "/")
	if err := h.check(); err != nil {
		return d.WrapErr(err)
	}
	return nil
}

// UnmarshalCaddyfile sets up the handler from a directive:
//
//	websocket_api [<matcher>] {
//		token             <token> ...
//		gateway           <name>
//		endpoints         <name> ...
//		max_body          <size>
//		prefix            <path>
//		insecure_no_token
//	}
//
// token and endpoints may be repeated. Tokens may have placeholders like
// {env.PUSH_TOKEN} and {file./run/secrets/push}. prefix is needed where the matcher
// is not a path like /push/*, and the path is not stripped before, as handle_path
// does.
func (h *Handler) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the directive's name
	if d.NextArg() {
		// It is not shown: it may be a token.
		return d.Err("unexpected argument: a matcher begins with / or @ or is *, and tokens and other options of websocket_api belong in a block")
	}
	seen := make(map[string]bool)
	for d.NextBlock(0) {
		name := d.Val()
		o, ok := options[name]
		if !ok {
			return d.Errf("unknown option%s: allowed are %s", shown(name), strings.Join(slices.Sorted(maps.Keys(options)), ", "))
		}
		if seen[name] && !o.repeatable {
			return d.Errf("option %s is given twice", name)
		}
		seen[name] = true
		args := d.RemainingArgs()
		switch {
		case len(args) == 0 && name == "token":
			return d.Err("token: nothing follows; if a {$VARIABLE} does, it is not set")
		case len(args) < o.least || len(args) > o.most:
			return d.Errf("wrong number of arguments: the syntax is %s", strings.TrimSpace(name+" "+o.syntax))
		case slices.Contains(args, ""):
			return d.Errf("%s: the value is empty", name)
		case d.NextBlock(1):
			return d.Errf("option %s has no block", name)
		}
		if err := o.parse(h, d, args); err != nil {
			return err
		}
	}
	if err := h.check(); err != nil {
		return d.WrapErr(err)
	}
	return nil
}

// word is what an option could be, and a token hardly.
var word = regexp.MustCompile(`^[a-z_]{1,24}$`)

// shown returns an unknown word for an error, unless it may be a token that stands
// on a line of its own.
func shown(name string) string {
	if word.MatchString(name) {
		return ` "` + name + `"`
	}
	return ""
}

// option is a line of the block.
type option struct {
	syntax      string
	least, most int // arguments
	repeatable  bool
	parse       func(h *Handler, d *caddyfile.Dispenser, args []string) error
}

var options = map[string]option{
	"token": {"<token> ...", 1, math.MaxInt, true, func(h *Handler, d *caddyfile.Dispenser, args []string) error {
		for _, token := range args {
			if strings.Contains(token, "{") {
				continue // its value is not known yet
			}
			if err := checkToken(token); err != nil {
				return d.Errf("token: %v", err)
			}
		}
		h.Tokens = append(h.Tokens, args...)
		return nil
	}},
	"gateway": {"<name>", 1, 1, false, func(h *Handler, _ *caddyfile.Dispenser, args []string) error {
		h.Gateway = args[0]
		return nil
	}},
	"endpoints": {"<name> ...", 1, math.MaxInt, true, func(h *Handler, _ *caddyfile.Dispenser, args []string) error {
		h.Endpoints = append(h.Endpoints, args...)
		return nil
	}},
	"max_body": {"<size>", 1, 1, false, func(h *Handler, d *caddyfile.Dispenser, args []string) error {
		n, err := humanize.ParseBytes(args[0])
		if err != nil || n == 0 || n > math.MaxInt64 {
			return d.Errf("max_body %q: allowed are positive sizes like 512, 64KiB or 1MiB", args[0])
		}
		h.MaxBody = int64(n)
		return nil
	}},
	"prefix": {"<path>", 1, 1, false, func(h *Handler, _ *caddyfile.Dispenser, args []string) error {
		h.Prefix = args[0]
		return nil
	}},
	"insecure_no_token": {"", 0, 0, false, func(h *Handler, _ *caddyfile.Dispenser, _ []string) error {
		h.InsecureNoToken = true
		return nil
	}},
}

// Interface guards
var _ caddyfile.Unmarshaler = (*Handler)(nil)
