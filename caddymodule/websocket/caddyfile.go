package websocket

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"

	"github.com/caddy-websocket/caddy-websocket/gateway"
)

func init() {
	httpcaddyfile.RegisterDirective("websocket", parseDirective)
	// After everything that decides who may come in, and before handle, since a
	// site's catch-all handle would win otherwise.
	httpcaddyfile.RegisterDirectiveOrder("websocket", httpcaddyfile.Before, "invoke")
	httpcaddyfile.RegisterGlobalOption("websocket", parseGlobalOption)
}

// parseDirective sets up a handler from a directive, and refuses two different
// ones under the same name.
func parseDirective(h httpcaddyfile.Helper) ([]httpcaddyfile.ConfigValue, error) {
	h.Next() // the directive's name
	// An error says where it is, also in which import.
	_, where, _ := strings.Cut(h.Err("websocket").Error(), ", at ")
	name := DefaultEndpointName
	if h.NextArg() && (strings.HasPrefix(h.Val(), "/") || strings.HasPrefix(h.Val(), "@")) {
		name = h.Val()
	}
	h.Reset()
	h.Next()
	matcher, err := h.ExtractMatcherSet()
	if err != nil {
		return nil, err
	}
	handler := new(Handler)
	if err := handler.UnmarshalCaddyfile(h.Dispenser); err != nil {
		return nil, err
	}
	if handler.Name == "" {
		handler.Name = name
	}
	if handler.Gateway == gateway.DefaultName {
		handler.Gateway = "" // says the same, and is compared
	}
	if handler.parsedProxy != nil {
		if err := handler.parsedProxy.FinalizeUnmarshalCaddyfile(h); err != nil {
			return nil, err
		}
		handler.encodeProxy()
	}
	if err := noteEndpoint(h, handler, where); err != nil {
		return nil, err
	}
	return h.NewRoute(matcher, handler), nil
}

// noted is an endpoint that this Caddyfile has configured.
type noted struct{ config, where string }

// noteEndpoint refuses a second, different configuration of an endpoint.
func noteEndpoint(h httpcaddyfile.Helper, handler *Handler, where string) error {
	config, err := json.Marshal(handler)
	if err != nil {
		return h.WrapErr(err)
	}
	const stateKey = "websocket.endpoints"
	seen, _ := h.State[stateKey].(map[endpointKey]noted)
	if seen == nil {
		seen = make(map[endpointKey]noted)
		h.State[stateKey] = seen
	}
	key := handler.key()
	if first, ok := seen[key]; ok && first.config != string(config) {
		return fmt.Errorf("endpoint %q is configured twice, differently, at %s and at %s: give one of them a name of its own with the option name",
			handler.Name, first.where, where)
	}
	seen[key] = noted{string(config), where}
	return nil
}

// UnmarshalCaddyfile sets up the handler from a directive:
//
//	websocket [<matcher>] {
//		name               <name>
//		gateway            <name>
//		origins            <origin|*|null|require> ...
//		subprotocols       <protocol> ...
//		user               <id>
//		join               <group> ...
//		session            <key> <value>
//		max_message_size   <size>
//		max_clients        <number>
//		max_clients_per_ip <number>
//		message_rate       <per second> [<burst>]
//		send_buffer        <size> [close|drop_newest|drop_oldest]
//		write_timeout      <duration>
//		ping               off | <interval> [<timeout>]
//		heartbeat          <interval> <text> <max unanswered>
//		idle_timeout       <duration>
//		compression        off | <level> [<minimum size>]
//		logic              <module> ...
//		reverse_proxy      <upstreams> ... { ... }
//	}
//
// reverse_proxy takes everything that Caddy's directive does, and stands instead
// of logic. origins, join and session may be repeated. user, join and session values may
// have placeholders, which are evaluated at the handshake; where one is empty,
// the line does nothing. The default of message_rate's burst is the rate.
func (h *Handler) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the directive's name
	if d.NextArg() {
		return d.Errf("unexpected argument %q: a matcher begins with / or @ or is *, and options of websocket belong in a block", d.Val())
	}
	seen := make(map[string]bool)
	for d.NextBlock(0) {
		option := d.Val()
		parse, ok := handlerOptions[option]
		if !ok {
			return d.Errf("unknown option %q: allowed are %s", option, strings.Join(slices.Sorted(maps.Keys(handlerOptions)), ", "))
		}
		if seen[option] && !repeatable[option] {
			return d.Errf("option %s is given twice", option)
		}
		seen[option] = true
		if err := parse(h, d); err != nil {
			return err
		}
		// At once, so that the error names the line.
		if err := h.checkOptions(); err != nil {
			return d.WrapErr(err)
		}
	}
	return h.checkProxyOptions(seen, d)
}

var repeatable = map[string]bool{"origins": true, "join": true, "session": true}

// handlerOptions parse an option each. The dispenser stands on its name.
var handlerOptions = map[string]func(*Handler, *caddyfile.Dispenser) error{
	"name":    func(h *Handler, d *caddyfile.Dispenser) error { return text(d, &h.Name, "<name>") },
	"gateway": func(h *Handler, d *caddyfile.Dispenser) error { return text(d, &h.Gateway, "<name>") },
	"origins": func(h *Handler, d *caddyfile.Dispenser) error {
		return texts(d, &h.Origins, "<origin|*|null|require> ...")
	},
	"subprotocols": func(h *Handler, d *caddyfile.Dispenser) error {
		return texts(d, &h.Subprotocols, "<protocol> ...")
	},
	"user": func(h *Handler, d *caddyfile.Dispenser) error { return text(d, &h.User, "<id>") },
	"join": func(h *Handler, d *caddyfile.Dispenser) error { return texts(d, &h.Join, "<group> ...") },
	"session": func(h *Handler, d *caddyfile.Dispenser) error {
		args, err := arguments(d, 2, 2, "<key> <value>")
		if err != nil {
			return err
		}
		if _, twice := h.Session[args[0]]; twice {
			return d.Errf("session entry %q is given twice", args[0])
		}
		if h.Session == nil {
			h.Session = make(map[string]string)
		}
		h.Session[args[0]] = args[1]
		return nil
	},
	"max_message_size": func(h *Handler, d *caddyfile.Dispenser) error {
		args, err := arguments(d, 1, 1, "<size>")
		if err != nil {
			return err
		}
		h.MaxMessageSize, err = sizeOf(d, "max_message_size", args[0])
		return err
	},
	"max_clients":        func(h *Handler, d *caddyfile.Dispenser) error { return number(d, &h.MaxClients, 0) },
	"max_clients_per_ip": func(h *Handler, d *caddyfile.Dispenser) error { return number(d, &h.MaxClientsPerIP, 0) },
	"message_rate":       (*Handler).parseMessageRate,
	"send_buffer":        (*Handler).parseSendBuffer,
	"write_timeout":      func(h *Handler, d *caddyfile.Dispenser) error { return duration(d, &h.WriteTimeout, 1) },
	"ping":               (*Handler).parsePing,
	"heartbeat":          (*Handler).parseHeartbeat,
	"idle_timeout":       func(h *Handler, d *caddyfile.Dispenser) error { return duration(d, &h.IdleTimeout, 0) },
	"compression":        (*Handler).parseCompression,
	"logic":              (*Handler).parseLogic,
	"reverse_proxy":      (*Handler).parseReverseProxy,
}

func (h *Handler) parseMessageRate(d *caddyfile.Dispenser) error {
	args, err := arguments(d, 1, 2, "<per second> [<burst>]")
	if err != nil {
		return err
	}
	const most = 1e9
	perSecond, err := strconv.ParseFloat(args[0], 64)
	if err != nil || !(perSecond > 0 && perSecond <= most) { // not a number is neither
		return d.Errf("message_rate %q: allowed are numbers of messages a second above 0, up to %.0f", args[0], most)
	}
	burst := int(math.Ceil(perSecond))
	if len(args) > 1 {
		if burst, err = wholeNumber(d, "message_rate: burst", args[1], 1); err != nil {
			return err
		}
	}
	h.MessageRate = &MessageRate{perSecond, burst}
	return nil
}

func (h *Handler) parseSendBuffer(d *caddyfile.Dispenser) error {
	args, err := arguments(d, 1, 2, "<size> [close|drop_newest|drop_oldest]")
	if err != nil {
		return err
	}
	h.SendBuffer = new(SendBuffer)
	if h.SendBuffer.Size, err = sizeOf(d, "send_buffer", args[0]); err != nil {
		return err
	}
	if len(args) > 1 {
		if _, err := parsePolicy(args[1]); err != nil {
			return d.WrapErr(err)
		}
		h.SendBuffer.WhenFull = args[1]
	}
	return nil
}

func (h *Handler) parsePing(d *caddyfile.Dispenser) error {
	args, err := arguments(d, 1, 2, "off | <interval> [<timeout>]")
	if err != nil {
		return err
	}
	h.Ping = new(Ping)
	if args[0] == "off" {
		h.Ping.Interval = -1
		return standsAlone(d, args)
	}
	if h.Ping.Interval, err = durationOf(d, "ping", args[0], 1); err != nil {
		return err
	}
	if len(args) > 1 {
		h.Ping.Timeout, err = durationOf(d, "ping: timeout", args[1], 1)
	}
	return err
}

func (h *Handler) parseHeartbeat(d *caddyfile.Dispenser) error {
	args, err := arguments(d, 3, 3, "<interval> <text> <max unanswered>")
	if err != nil {
		return err
	}
	h.Heartbeat = &Heartbeat{Text: args[1]}
	if h.Heartbeat.Interval, err = durationOf(d, "heartbeat: interval", args[0], 1); err != nil {
		return err
	}
	h.Heartbeat.MaxUnanswered, err = wholeNumber(d, "heartbeat: max unanswered", args[2], 1)
	return err
}

func (h *Handler) parseCompression(d *caddyfile.Dispenser) error {
	args, err := arguments(d, 1, 2, "off | <level> [<minimum size>]")
	if err != nil {
		return err
	}
	if args[0] == "off" {
		return standsAlone(d, args)
	}
	h.Compression = new(Compression)
	if h.Compression.Level, err = strconv.Atoi(args[0]); err != nil || h.Compression.Level < 1 || h.Compression.Level > 9 {
		return d.Errf("compression level %q: allowed are 1 (fast) to 9 (small), or off", args[0])
	}
	if len(args) > 1 {
		h.Compression.MinSize, err = sizeOf(d, "compression: minimum size", args[1])
	}
	return err
}

// standsAlone checks that nothing follows the word off.
func standsAlone(d *caddyfile.Dispenser, args []string) error {
	if len(args) > 1 {
		return d.Errf("off stands alone, found %q after it", args[1])
	}
	return nil
}

// logicNamespace is where guests register.
const logicNamespace = "websocket.logic"

func (h *Handler) parseLogic(d *caddyfile.Dispenser) (err error) {
	h.LogicRaw, err = parseGuest(d, logicNamespace)
	return err
}

// parseGuest parses an option that names a module of the namespace, which parses the
// rest of the line and its block.
func parseGuest(d *caddyfile.Dispenser, namespace string) (json.RawMessage, error) {
	option := d.Val()
	if !d.NextArg() {
		return nil, d.Errf("%s needs the name of a module: this binary has %s", option, guests(namespace))
	}
	name := d.Val()
	info, err := caddy.GetModule(namespace + "." + name)
	if err != nil {
		return nil, d.Errf("unknown %s %q: this binary has %s", option, name, guests(namespace))
	}
	if _, ok := info.New().(caddyfile.Unmarshaler); !ok { // a guest without options need not parse any
		if d.NextArg() || d.NextBlock(1) {
			return nil, d.Errf("%s %s takes no options, found %q", option, name, d.Val())
		}
		return caddyconfig.JSONModuleObject(struct{}{}, "module", name, nil), nil
	}
	guest, err := caddyfile.UnmarshalModule(d, namespace+"."+name)
	if err != nil {
		return nil, err
	}
	return caddyconfig.JSONModuleObject(guest, "module", name, nil), nil
}

// guests lists the modules of the namespace that are compiled in.
func guests(namespace string) string {
	modules := caddy.GetModules(namespace)
	if len(modules) == 0 {
		return "none: it was built without any"
	}
	names := make([]string, len(modules))
	for i, m := range modules {
		names[i] = m.ID.Name()
	}
	return strings.Join(names, ", ")
}

// parseGlobalOption sets up the app from the global options.
func parseGlobalOption(d *caddyfile.Dispenser, existing any) (any, error) {
	if existing != nil {
		d.Next()
		return nil, d.Err("the global option websocket is given twice")
	}
	app := new(App)
	if err := app.UnmarshalCaddyfile(d); err != nil {
		return nil, err
	}
	return httpcaddyfile.App{Name: "websocket", Value: caddyconfig.JSON(app, nil)}, nil
}

// UnmarshalCaddyfile sets up the app from the global options:
//
//	websocket {
//		drain_timeout <duration>
//		close_rate    <clients per second>
//		admin_tail    payload [<bytes>]
//		broker        <module> ...
//	}
func (a *App) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the option's name
	if d.NextArg() {
		return d.Errf("unexpected argument %q: options of websocket belong in a block", d.Val())
	}
	seen := make(map[string]bool)
	for d.NextBlock(0) {
		option := d.Val()
		if seen[option] {
			return d.Errf("option %s is given twice", option)
		}
		seen[option] = true
		var err error
		switch option {
		case "drain_timeout":
			err = duration(d, &a.DrainTimeout, 1)
		case "close_rate":
			err = number(d, &a.CloseRate, 1)
		case "admin_tail":
			err = parseAdminTail(d, &a.AdminTail)
		case "broker":
			a.BrokerRaw, err = parseGuest(d, brokerNamespace)
		default:
			err = d.Errf("unknown option %q: allowed are admin_tail, broker, close_rate, drain_timeout", option)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Interface guards
var (
	_ caddyfile.Unmarshaler = (*Handler)(nil)
	_ caddyfile.Unmarshaler = (*App)(nil)
)
