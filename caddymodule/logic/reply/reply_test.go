package reply_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/gorilla/websocket"

	"github.com/caddy-websocket/caddy-websocket/caddymodule/logic/reply"
	"github.com/caddy-websocket/caddy-websocket/gateway"
	"github.com/caddy-websocket/caddy-websocket/gateway/gatewaytest"
)

// visitor is the logic behind a handshake that knows the visitor.
type visitor struct {
	*reply.Reply
	user    string
	session map[string]any
}

func (v visitor) OnConnect(c *gateway.Client, r *http.Request) error {
	if v.user != "" {
		if err := c.Bind(v.user); err != nil {
			return err
		}
	}
	if err := c.Session().Replace(v.session); err != nil {
		return err
	}
	return v.Reply.OnConnect(c, r)
}

// newReply returns the logic for a template that the test knows to be right.
func newReply(t *testing.T, template string) *reply.Reply {
	t.Helper()
	r := &reply.Reply{Template: template}
	if err := r.Provision(caddy.Context{}); err != nil {
		t.Fatal(err)
	}
	return r
}

// Each placeholder is evaluated for the message that is answered; what looks
// like none is sent as it stands, so that a template can be JSON.
func TestTemplateIsFilledIn(t *testing.T) {
	session := map[string]any{
		"realIP": "192.0.2.7", "n": 1.5, "yes": true, "nothing": nil,
		"list": []any{"a", 1}, "object": map[string]any{"k": "v"}, "a.b": "dots", "a-b_c": "dashes", "quote": `"`,
	}
	for _, tt := range []struct{ template, message, want string }{
		{"{ws.session.realIP}", "tom", "192.0.2.7"}, // the classic example
		{"{ws.client_ip}", "", "192.0.2.1"},
		{"{ws.user} says {ws.message}!", "hello", "tom says hello!"},
		{"{ws.message}{ws.message}", "x", "xx"},
		{"", "x", ""},
		{"no placeholder", "x", "no placeholder"},
		{"{ws.session.n} {ws.session.yes} {ws.session.list} {ws.session.object}", "", `1.5 true ["a",1] {"k":"v"}`},
		{"<{ws.session.missing}{ws.session.nothing}>", "", "<null>"},
		{"{ws.session.a.b} {ws.session.a-b_c}", "", "dots dashes"},
		{`{"ip":{ws.json.client_ip},"user":{ws.json.user},"said":{ws.json.message}}`, "a \"b\"\n\\", `{"ip":"192.0.2.1","user":"tom","said":"a \"b\"\n\\"}`},
		{`{"missing":{ws.json.session.missing},"quote":{ws.json.session.quote},"n":{ws.json.session.n}}`, "", `{"missing":"","quote":"\"","n":"1.5"}`},
		{`{"a":{"b":[{}]}}`, "x", `{"a":{"b":[{}]}}`},
		{"{ {ws.user} }", "", "{ tom }"},
		{"{{ws.user}}", "", "{tom}"},
		{"{ws.user", "x", "{ws.user"},
		{"{wsuser} {} {a b.c} } {", "x", "{wsuser} {} {a b.c} } {"},
		{"{ws.message}", "{ws.session.realIP} {ws.user}", "{ws.session.realIP} {ws.user}"}, // what a client says is no template
		{"日本語 {ws.message}", "é", "日本語 é"},
	} {
		t.Run(tt.template, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := gatewaytest.ServeLogic(t, visitor{newReply(t, tt.template), "tom", session}).Dial("/test")
				c.Send(tt.message)
				c.Want(tt.want)
			})
		})
	}
}

// A page parses what it is sent: nothing that a visitor writes may break out of
// its string.
func TestJSONPlaceholderIsAlwaysOneJSONString(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := gatewaytest.ServeLogic(t, newReply(t, `{"said":{ws.json.message}}`)).Dial("/test")
		for _, said := range []string{"", `"`, `","admin":true,"x":"`, "\\", "\x00\x1f\u2028</script>", "日本語"} {
			c.Send(said)
			var got map[string]string
			if err := json.Unmarshal([]byte(c.Receive()), &got); err != nil || len(got) != 1 || got["said"] != said {
				t.Errorf("said %q, got %q (%v)", said, got, err)
			}
		}
		if err := c.Conn.WriteMessage(websocket.BinaryMessage, []byte{'a', 0xff}); err != nil {
			t.Fatal(err)
		}
		c.Want(`{"said":"a\ufffd"}`) // bytes that are no text
	})
}

// An id is what other programs address a client by.
func TestClientIDIsTheClientsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := gatewaytest.ServeLogic(t, newReply(t, "{ws.client_id}"))
		c := s.Dial("/test")
		c.Send("who am I")
		if id := c.Receive(); s.Gateway.Client(id) == nil {
			t.Errorf("%q is no client", id)
		}
	})
}

// Text messages are UTF-8, or browsers close the connection with an error that
// says nothing.
func TestBinaryMessageThatWouldMakeNoTextCloses1003(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := gatewaytest.ServeLogic(t, newReply(t, "{ws.message}")).Dial("/test")
		if err := c.Conn.WriteMessage(websocket.BinaryMessage, []byte("text all the same")); err != nil {
			t.Fatal(err)
		}
		c.Want("text all the same")
		if err := c.Conn.WriteMessage(websocket.BinaryMessage, []byte{0xff}); err != nil {
			t.Fatal(err)
		}
		c.WantClose(gateway.CloseUnsupportedData)
	})
}

// A placeholder of the request is long gone when a message comes: it would be
// empty, always, and nobody would know why.
func TestTemplateThatCannotBeFilledInIsRefused(t *testing.T) {
	for template, want := range map[string]string{
		"{http.vars.client_ip}":       `"session NAME {http.vars.client_ip}"`,
		"{http.request.header.X-Foo}": "after the request",
		"{env.HOME}":                  "session NAME",
		"{ws.ip}":                     "unknown placeholder {ws.ip}: allowed are {ws.client_id}, {ws.client_ip}",
		"{ws.}":                       "unknown placeholder {ws.}",
		"{ws.session.}":               "unknown placeholder {ws.session.}",
		"{ws.json.}":                  "unknown placeholder {ws.json.}",
		"{ws.json.json.message}":      "unknown placeholder",
		"{ws.json.session.}":          "unknown placeholder",
		"good {ws.user} bad {ws.usr}": "{ws.usr}",
	} {
		err := (&reply.Reply{Template: template}).Provision(caddy.Context{})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want an error with %q", template, err, want)
		}
	}
}

func TestLineTakesOneTemplate(t *testing.T) {
	for input, ok := range map[string]bool{
		"reply hello":               true,
		`reply "hello {ws.user}"`:   true,
		"reply":                     false,
		"reply hello {ws.user}":     false,
		"reply {client.ip}":         false,
		"reply hello {\n loudly\n}": false,
	} {
		r := new(reply.Reply)
		err := r.UnmarshalCaddyfile(caddyfile.NewTestDispenser(input))
		if (err == nil) != ok {
			t.Errorf("%q: %v, template %q", input, err, r.Template)
		}
	}
}
