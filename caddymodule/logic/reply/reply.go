// Package reply is message logic that answers every message with a text made
// from a template.
package reply

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-websocket/caddy-websocket/gateway"
)

func init() {
	caddy.RegisterModule(&Reply{})
}

// Reply answers every message with a text. It replaces the smallest program that
// people write first:
//
//	session realIP {client_ip}
//	logic reply {ws.session.realIP}
type Reply struct {
	gateway.NopLogic

	// Template is the text, with these placeholders, which are evaluated for every
	// message: `{ws.client_id}`, `{ws.client_ip}`, `{ws.user}`, `{ws.proto}`, `{ws.message}`,
	// `{ws.session.NAME}`; and each of them as a JSON string, with its quotes, as
	// in `{ws.json.message}`. A session entry that is not set is empty. Other text
	// in braces, like JSON, is sent as it stands; a placeholder that only exists
	// while a request is handled is an error.
	Template string `json:"template"`

	parts []part
}

// part is a piece of the template: text, or a function of client and message.
type part struct {
	text  string
	value func(c *gateway.Client, m gateway.Message) string
	json  bool
}

// CaddyModule returns the Caddy module information.
func (*Reply) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "websocket.logic.reply", New: func() caddy.Module { return new(Reply) }}
}

// Provision takes the template apart.
func (r *Reply) Provision(caddy.Context) error {
	var err error
	r.parts, err = parse(r.Template)
	return err
}

// OnMessage sends the text. Where a binary message would make it invalid as text,
// the client is closed with 1003.
func (r *Reply) OnMessage(c *gateway.Client, m gateway.Message) error {
	var b strings.Builder
	for _, p := range r.parts {
		text := p.text
		if p.value != nil {
			text = p.value(c, m)
		}
		if p.json {
			quoted, err := json.Marshal(text)
			if err != nil {
				return fmt.Errorf("quoting %q: %w", text, err)
			}
			text = string(quoted)
		}
		b.WriteString(text)
	}
	err := c.Send(gateway.Text(b.String()))
	if errors.Is(err, gateway.ErrNotUTF8) {
		return &gateway.CloseError{Code: gateway.CloseUnsupportedData, Reason: "the answer would not be text"}
	}
	return err
}

// UnmarshalCaddyfile sets up the logic from the line:
//
//	logic reply <template>
func (r *Reply) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the module's name
	if !d.AllArgs(&r.Template) || d.NextBlock(0) {
		return d.Err("the syntax is logic reply <template>, in quotes if it has spaces")
	}
	if _, err := parse(r.Template); err != nil {
		return d.WrapErr(err)
	}
	return nil
}

// fields are the placeholders without their prefix.
var fields = map[string]func(*gateway.Client, gateway.Message) string{
	"client_id": func(c *gateway.Client, _ gateway.Message) string { return c.ID() },
	"client_ip": func(c *gateway.Client, _ gateway.Message) string { return c.RealIP() },
	"user":      func(c *gateway.Client, _ gateway.Message) string { return c.User() },
	"proto":     func(c *gateway.Client, _ gateway.Message) string { return c.Proto() },
	"message":   func(_ *gateway.Client, m gateway.Message) string { return m.String() },
}

const allowed = "{ws.client_id}, {ws.client_ip}, {ws.user}, {ws.proto}, {ws.message}, {ws.session.NAME}, and {ws.json.…} of each"

// parse takes a template apart. Braces belong to a placeholder if what is in
// them looks like one: letters, digits, dots, dashes and underscores, with at
// least one dot. All other braces are text, so that a template can be JSON.
func parse(template string) ([]part, error) {
	var parts []part
	for template != "" {
		before, rest, found := cutPlaceholder(template)
		if before != "" {
			parts = append(parts, part{text: before})
		}
		if !found {
			break
		}
		name, after, _ := strings.Cut(rest, "}")
		p, err := placeholder(name)
		if err != nil {
			return nil, err
		}
		parts = append(parts, p)
		template = after
	}
	return parts, nil
}

// cutPlaceholder returns what stands before the first placeholder, and what
// follows that one's opening brace.
func cutPlaceholder(s string) (before, rest string, found bool) {
	for i := range len(s) {
		if s[i] != '{' {
			continue
		}
		name, _, closed := strings.Cut(s[i+1:], "}")
		if closed && strings.Contains(name, ".") && strings.Trim(name, nameBytes) == "" {
			return s[:i], s[i+1:], true
		}
	}
	return s, "", false
}

const nameBytes = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-"

func placeholder(name string) (part, error) {
	field, ours := strings.CutPrefix(name, "ws.")
	if !ours {
		return part{}, fmt.Errorf("placeholder {%s} has no value here: the template is evaluated for every message, after the request. "+
			"Store it at the handshake with \"session NAME {%s}\" and write {ws.session.NAME}; allowed are %s", name, name, allowed)
	}
	field, asJSON := strings.CutPrefix(field, "json.")
	if key, ok := strings.CutPrefix(field, "session."); ok && key != "" {
		return part{json: asJSON, value: func(c *gateway.Client, _ gateway.Message) string { return c.Session().Text(key) }}, nil
	}
	if value := fields[field]; value != nil {
		return part{json: asJSON, value: value}, nil
	}
	return part{}, fmt.Errorf("unknown placeholder {%s}: allowed are %s", name, allowed)
}

// Interface guards
var (
	_ caddy.Provisioner     = (*Reply)(nil)
	_ gateway.Logic         = (*Reply)(nil)
	_ caddyfile.Unmarshaler = (*Reply)(nil)
)
