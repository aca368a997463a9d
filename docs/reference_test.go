package docs_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"

	"github.com/caddy-websocket/caddy-websocket/caddymodule/broker/nats"
	"github.com/caddy-websocket/caddy-websocket/caddymodule/logic/rooms"
	"github.com/caddy-websocket/caddy-websocket/caddymodule/logic/webhook"
	"github.com/caddy-websocket/caddy-websocket/caddymodule/websocket"
	"github.com/caddy-websocket/caddy-websocket/gateway"
	"github.com/caddy-websocket/caddy-websocket/gateway/httpapi"
	"github.com/caddy-websocket/caddy-websocket/gateway/natsbroker"
)

const reference = "reference.md"

// part is a section of the reference about one module.
type part struct {
	heading string
	id      string            // of the module
	frame   string            // a Caddyfile, with %s for options
	extra   []string          // options that are no lines of the block
	want    map[string]string // defaults, by JSON key
	derived []string          // keys whose default is not a value
}

func parts() []part {
	const token = "token 0123456789abcdef"
	return []part{
		{
			heading: "## `websocket`", id: "http.handlers.websocket", frame: "http://a.example {\nwebsocket {\n%s\n}\n}",
			want: map[string]string{
				"name": websocket.DefaultEndpointName, "gateway": gateway.DefaultName,
				"max_message_size": size(gateway.DefaultMaxMessageSize),
				"send_buffer.size": size(gateway.DefaultSendBuffer), "send_buffer.when_full": gateway.CloseWhenFull.String(),
				"write_timeout": gateway.DefaultWriteTimeout.String(),
				"ping.interval": gateway.DefaultPingInterval.String(), "ping.timeout": gateway.DefaultPingTimeout.String(),
				"compression.min_size": size(gateway.DefaultCompressionMinSize),
			},
		},
		{
			heading: "## `websocket_api`", id: "http.handlers.websocket_api", frame: "http://a.example {\nwebsocket_api {\n" + token + "\n%s\n}\n}",
			want:    map[string]string{"gateway": gateway.DefaultName, "max_body": size(httpapi.DefaultMaxBody)},
			derived: []string{"prefix"},
		},
		{
			heading: "## `websocket_draining`", id: "http.matchers.websocket_draining", extra: []string{"websocket_draining"},
			want: map[string]string{"gateway": gateway.DefaultName},
		},
		{
			heading: "## Global option", id: "websocket", frame: "{\nwebsocket {\n%s\n}\n}",
			want: map[string]string{
				"drain_timeout": gateway.DefaultDrainTimeout.String(), "close_rate": strconv.Itoa(gateway.DefaultCloseRate),
				"admin_tail.payload": strconv.Itoa(websocket.DefaultTailPayload),
			},
		},
		{heading: "## Logic: `reply`", id: "websocket.logic.reply", extra: []string{"reply"}},
		{
			heading: "## Logic: `rooms`", id: "websocket.logic.rooms", frame: "http://a.example {\nwebsocket {\nlogic rooms {\n%s\n}\n}\n}",
			want: map[string]string{"prefix": rooms.DefaultPrefix},
		},
		{
			heading: "## Logic: `webhook`", id: "websocket.logic.webhook", extra: []string{"webhook"},
			frame: "http://a.example {\nwebsocket {\nlogic webhook http://127.0.0.1/ {\n%s\n}\n}\n}",
			want:  webhookDefaults(),
		},
		{
			heading: "## Broker: `nats`", id: "websocket.brokers.nats", extra: []string{"nats"},
			frame: "{\nwebsocket {\nbroker nats nats://127.0.0.1 {\n%s\n}\n}\n}",
			want: map[string]string{
				"urls": natsbroker.DefaultURL, "prefix": natsbroker.DefaultPrefix,
				"connect_timeout": natsbroker.DefaultConnectTimeout.String(), "reconnect_wait": natsbroker.DefaultReconnectWait.String(),
				"ping_interval": natsbroker.DefaultPingInterval.String(),
				"send_buffer":   size(natsbroker.DefaultSendBuffer), "receive_buffer": size(natsbroker.DefaultReceiveBuffer),
				"required": nats.DefaultRequiredTimeout.String(),
			},
		},
	}
}

// webhookDefaults has constants, and what has none as the parser allows it.
func webhookDefaults() map[string]string {
	return map[string]string{
		"events": "connect message close", "on_error": "ignore",
		"timeout": webhook.DefaultTimeout.String(), "retries": strconv.Itoa(webhook.DefaultRetries),
		"max_concurrent":   strconv.Itoa(webhook.DefaultMaxConcurrent),
		"close_batch.size": strconv.Itoa(webhook.DefaultBatchSize), "close_batch.interval": webhook.DefaultBatchInterval.String(),
	}
}

// size writes bytes as the page does.
func size(n int64) string {
	if n%(1<<20) == 0 {
		return fmt.Sprintf("%dMiB", n>>20)
	}
	return strconv.FormatInt(n, 10)
}

// What is not in the reference nobody finds, and what is in it but not in the program
// costs somebody an evening: keys, types, defaults and syntax are those of the code.
func TestReferenceHasWhatTheCodeHas(t *testing.T) {
	for _, p := range parts() {
		t.Run(p.id, func(t *testing.T) {
			keys := keysOf(t, p.id)
			var options []string
			for _, r := range table(t, reference, p.heading) {
				if len(r) != 5 {
					t.Fatalf("%q has %d cells", r, len(r))
				}
				if r[0] != "" {
					options = append(options, first(code(t, r[0])))
				}
				key, kind, _ := strings.Cut(r[1], ", ")
				key = code(t, key)
				if keys[key] != kind {
					t.Errorf("%s is said to be %q, and is %q", key, kind, keys[key])
				}
				delete(keys, key)
				p.checkDefault(t, key, r[2])
			}
			if len(keys) > 0 {
				t.Errorf("missing are the JSON keys %q", slices.Sorted(maps.Keys(keys)))
			}
			want := slices.Concat(p.extra, p.allowed(t))
			slices.Sort(want)
			if got := slices.Sorted(slices.Values(options)); !slices.Equal(got, want) {
				t.Errorf("the options are %q, the parser knows %q", got, want)
			}
		})
	}
	for _, id := range []string{"websocket.logic.echo", "websocket.events", "admin.api.websocket"} {
		if keys := keysOf(t, id); len(keys) > 0 {
			t.Errorf("%s is said to have no options, and has %v", id, keys)
		}
	}
}

// checkDefault compares a default with that of the code, if it is a value.
func (p *part) checkDefault(t *testing.T, key, cell string) {
	t.Helper()
	want, known := p.want[key]
	switch {
	case known && !strings.Contains(cell, "`"+want+"`"):
		t.Errorf("the default of %s is given as %q, and is %q", key, cell, want)
	case !known && strings.Contains(cell, "`") && !slices.Contains(p.derived, key):
		t.Errorf("the default of %s is given as %q, which nothing confirms", key, cell)
	}
}

// keysOf returns the JSON keys of a module with their types, without those of what is
// in them but with those of its own structs.
func keysOf(t *testing.T, id string) map[string]string {
	t.Helper()
	info, err := caddy.GetModule(id)
	if err != nil {
		t.Fatal(err)
	}
	keys := make(map[string]string)
	var walk func(of reflect.Type, prefix string)
	walk = func(of reflect.Type, prefix string) {
		for f := range of.Fields() {
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			if name == "" || name == "-" {
				continue
			}
			kind := f.Type
			if kind.Kind() == reflect.Pointer {
				kind = kind.Elem()
			}
			if kind.Kind() == reflect.Struct {
				walk(kind, prefix+name+".")
				continue
			}
			keys[prefix+name] = kindOf(kind)
		}
	}
	walk(reflect.TypeOf(info.New()).Elem(), "")
	return keys
}

// kindOf calls a type what somebody who writes JSON calls it.
func kindOf(t reflect.Type) string {
	switch t {
	case reflect.TypeFor[caddy.Duration]():
		return "duration"
	case reflect.TypeFor[json.RawMessage]():
		return "object"
	}
	switch t.Kind() {
	case reflect.Bool:
		return "boolean"
	case reflect.Int, reflect.Int64:
		return "integer"
	case reflect.Float64:
		return "number"
	case reflect.String:
		return "string"
	case reflect.Slice:
		return "list of " + kindOf(t.Elem()) + "s"
	case reflect.Map:
		return "object of " + strings.Replace(kindOf(t.Elem())+"s", "list of stringss", "lists of strings", 1)
	default:
		return t.String()
	}
}

// allowed returns the options that the parser says it knows.
func (p *part) allowed(t *testing.T) []string {
	t.Helper()
	if p.frame == "" {
		return nil
	}
	_, err := adapt(fmt.Sprintf(p.frame, "bogus"))
	if err == nil {
		t.Fatalf("an unknown option is taken in\n%s", p.frame)
	}
	_, list, found := strings.Cut(strings.TrimSuffix(err.Error(), place(err)), "allowed are ")
	if !found {
		_, list, found = strings.Cut(strings.TrimSuffix(err.Error(), place(err)), "allowed is ")
	}
	if !found {
		t.Fatalf("the error does not say what is allowed: %v", err)
	}
	return strings.Split(list, ", ")
}

// place returns what an error of the Caddyfile parser ends with.
func place(err error) string {
	return regexp.MustCompile(`, at Caddyfile:\d+$`).FindString(err.Error())
}

func adapt(text string) ([]byte, error) {
	config, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(text), nil)
	return config, err
}

// The syntax in the first column is what the parser itself asks for, word by word.
func TestReferenceHasTheParsersSyntax(t *testing.T) {
	unsaid := map[string][]string{ // what errors do not say
		"http.handlers.websocket":          {"logic <module> ...", "reverse_proxy <upstreams> ... { ... }"},
		"http.handlers.websocket_api":      {"token <token> ..."},
		"http.matchers.websocket_draining": {"websocket_draining [<gateway>]"},
		"websocket":                        {"broker <module> ..."},
		"websocket.logic.reply":            {"reply <template>"},
		"websocket.logic.webhook":          {"webhook <url>"},
		"websocket.brokers.nats":           {"nats <url> ..."},
	}
	for _, p := range parts() {
		for _, r := range table(t, reference, p.heading) {
			if r[0] == "" {
				continue
			}
			got := code(t, r[0])
			option := first(got)
			want, ok := got, slices.Contains(unsaid[p.id], got)
			for _, line := range []string{option, option + " one", option + " one two"} { // too few, or too many
				if ok {
					break
				}
				_, err := adapt(fmt.Sprintf(p.frame, line))
				if err == nil {
					continue
				}
				_, want, ok = strings.Cut(strings.TrimSuffix(err.Error(), place(err)), "the syntax is ")
			}
			if !ok || got != want {
				t.Errorf("%s: the syntax is given as %q, the parser has %q", p.id, got, want)
			}
		}
	}
}

// A bound that is written here is the first that is refused, and the last that is not.
func TestBoundsInTheReferenceHold(t *testing.T) {
	word := func(option string) func(int) string {
		return func(n int) string { return option + ` "` + strings.Repeat("x", max(n, 0)) + `"` }
	}
	number := func(format string) func(int) string { return func(n int) string { return fmt.Sprintf(format, n) } }
	lines := map[string]map[string]func(n int) string{
		"http.handlers.websocket": {
			"name": word("name"), "gateway": word("gateway"), "compression.level": number("compression %d"),
			"message_rate.burst": number("message_rate 1 %d"), "heartbeat.max_unanswered": number("heartbeat 1s x %d"),
			"max_clients": number("max_clients %d"), "max_clients_per_ip": number("max_clients_per_ip %d"),
		},
		"http.handlers.websocket_api": {"tokens": word("token"), "gateway": word("gateway")},
		"websocket":                   {"close_rate": number("close_rate %d"), "admin_tail.payload": number("admin_tail payload %d")},
		"websocket.logic.rooms":       {"prefix": word("prefix")},
		"websocket.logic.webhook": {
			"retries": number("retries %d"), "max_concurrent": number("max_concurrent %d"), "close_batch.size": number("close_batch %d"),
		},
		"websocket.brokers.nats": {
			"prefix": word("prefix"), "send_buffer": number("send_buffer %d"), "receive_buffer": number("receive_buffer %d"),
		},
	}
	bounds := regexp.MustCompile(`^(\d+) (?:to (\d+)|\(no limit\) and more|and more)`)
	for _, p := range parts() {
		for _, r := range table(t, reference, p.heading) {
			key, _, _ := strings.Cut(r[1], ",")
			key = code(t, key)
			line := lines[p.id][key]
			if line == nil {
				continue
			}
			delete(lines[p.id], key)
			m := bounds.FindStringSubmatch(r[3])
			if m == nil {
				t.Errorf("%s: %s: no bounds in %q", p.id, key, r[3])
				continue
			}
			least, _ := strconv.Atoi(m[1])
			taken, refused := []int{least}, []int{least - 1}
			if most, err := strconv.Atoi(m[2]); err == nil {
				taken, refused = append(taken, most), append(refused, most+1)
			}
			for _, n := range taken {
				if err := p.works(t, line(n)); err != nil {
					t.Errorf("%s: %s of %d is refused: %v", p.id, key, n, err)
				}
			}
			for _, n := range refused {
				if err := p.works(t, line(n)); err == nil {
					t.Errorf("%s: %s of %d is taken", p.id, key, n)
				}
			}
		}
		if len(lines[p.id]) > 0 {
			t.Errorf("%s: no rows for %q", p.id, slices.Sorted(maps.Keys(lines[p.id])))
		}
	}
}

// works tells whether Caddy would start with the option.
func (p *part) works(t *testing.T, line string) error {
	t.Helper()
	config, err := adapt(fmt.Sprintf(p.frame, line))
	if err != nil {
		return err
	}
	return provision(t, config)
}

// An option is easiest to learn from a line that has it.
func TestExamplesOfTheReferenceShowEveryOption(t *testing.T) {
	shown := make(map[string]string)
	for _, b := range caddyfiles(t, reference) {
		shown[headingOf(t, reference, b.line)] += b.text
	}
	for _, p := range parts() {
		for _, option := range slices.Concat(p.extra, p.allowed(t)) {
			if !regexp.MustCompile(`(?m)^\s*(logic |broker |@\w+ )?` + option + `\b`).MatchString(shown[p.heading]) {
				t.Errorf("%s: no example shows %s", p.heading, option)
			}
		}
	}
}

// Before a reload people ask what becomes of who is connected: each option has an answer.
func TestReferenceSaysForEachOptionWhatAReloadDoes(t *testing.T) {
	var got []string
	for _, r := range table(t, reference, "### What a reload does to clients that are connected") {
		got = append(got, spans(r[0])...)
	}
	slices.Sort(got)
	p := parts()[0]
	if want := p.allowed(t); !slices.Equal(got, want) {
		t.Errorf("it is said of %q, and the options are %q", got, want)
	}
}

// Two modules of one id panic at start, so people look for the ids.
func TestReferenceNamesEveryModule(t *testing.T) {
	var got []string
	for _, r := range table(t, reference, "## Modules") {
		got = append(got, code(t, r[0]))
	}
	want := slices.DeleteFunc(caddy.Modules(), func(id string) bool { return !strings.Contains(id, "websocket") })
	slices.Sort(got)
	if slices.Sort(want); !slices.Equal(got, want) {
		t.Errorf("named are %q, there are %q", got, want)
	}
}

// A placeholder with a typo is empty, or an error: those that exist are all here.
func TestReferenceNamesEveryPlaceholder(t *testing.T) {
	page := read(t, reference)
	_, err := adapt("http://a.example {\nwebsocket {\nlogic reply {ws.bogus}\n}\n}")
	if err == nil {
		t.Fatal("{ws.bogus} is taken")
	}
	_, list, _ := strings.Cut(err.Error(), "allowed are ")
	all := regexp.MustCompile(`\{ws\.[\w.]+\}`).FindAllString(list, -1)
	if len(all) < 5 {
		t.Fatalf("the error has no list: %v", err)
	}
	for _, name := range all {
		all = append(all, strings.Replace(name, "{ws.", "{ws.json.", 1))
	}
	sources, err := filepath.Glob("../caddymodule/websocket/*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range sources {
		for _, m := range regexp.MustCompile(`\.Set\("(http\.websocket\.\w+)"`).FindAllStringSubmatch(read(t, file), -1) {
			all = append(all, "{"+m[1]+"}")
		}
	}
	for _, name := range all {
		if !strings.Contains(page, name) {
			t.Errorf("%s is missing", name)
		}
	}
	for _, name := range regexp.MustCompile(`\{(?:ws|http\.websocket)\.[\w.]+\}`).FindAllString(page, -1) {
		// The entry that the example stores is one of the NAMEs.
		if !slices.Contains(all, name) && !strings.HasPrefix(name, "{ws.session.") {
			t.Errorf("%s does not exist", name)
		}
	}
}

// A default of the guests is what a guest fills in, not what a constant says.
func TestWebhookFillsInTheDefaultsOfTheReference(t *testing.T) {
	ctx, cancel := caddy.NewContext(caddy.Context{Context: t.Context()})
	defer cancel()
	w := &webhook.Webhook{URL: "http://127.0.0.1/"}
	if err := w.Provision(ctx); err != nil {
		t.Fatal(err)
	}
	got := map[string]string{
		"events": strings.Join(w.Events, " "), "on_error": w.OnError, "timeout": time.Duration(w.Timeout).String(),
		"retries": strconv.Itoa(*w.Retries), "max_concurrent": strconv.Itoa(w.MaxConcurrent),
		"close_batch.size": strconv.Itoa(w.CloseBatch.Size), "close_batch.interval": time.Duration(w.CloseBatch.Interval).String(),
	}
	if !maps.Equal(got, webhookDefaults()) {
		t.Errorf("the defaults are %v, want %v", got, webhookDefaults())
	}
}

// A status that somebody looks up is one that a test has seen.
func TestStatusesOfTheReferenceAreTested(t *testing.T) {
	for _, r := range table(t, reference, "## Answers to a handshake") {
		checkTests(t, reference, r[len(r)-1])
	}
}
