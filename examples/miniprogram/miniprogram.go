// Package miniprogram is the server side of a WeChat mini program: it checks the
// code of wx.login before it accepts a connection, and keeps what belongs to a
// user while his phone is away.
package miniprogram

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-websocket/caddy-websocket/gateway"
)

func init() { caddy.RegisterModule(new(MiniProgram)) }

// Defaults of MiniProgram.
const (
	DefaultTimeout = 5 * time.Second
	DefaultKeep    = 10 * time.Minute
)

// CloseReplaced closes a connection whose user has opened another one. The one
// who is closed with it must not come back by itself: the two would take turns.
const CloseReplaced = 4001

// MiniProgram accepts users of WeChat mini programs, who connect with the code
// that wx.login gave them: wss://example.com/mini?code=... The user id is the
// openid that WeChat names for it.
//
// A user has one connection. When he opens another, the older one is closed with
// 4001: it is nearly always the dead one that his phone left behind, and what is
// sent to him must not go there. His notes stay as they were: they belong to the
// user, and are kept for some time after the last connection has ended.
//
// Messages are JSON objects. From a client:
//
//	{"type":"note","text":"buy milk"}
//	{"type":"ping"}
//
// To a client:
//
//	{"type":"welcome","resumed":false,"notes":[]}
//	{"type":"noted","notes":["buy milk"]}
//	{"type":"pong"}
//	{"type":"error","error":"..."}
//
// A handshake is refused with 401 if WeChat does not accept the code, with 403
// if the Referer names a mini program that is not listed, and with 503 if WeChat
// cannot be asked.
type MiniProgram struct {
	// Apps are the mini programs that may connect. At least one.
	Apps []App `json:"apps"`

	// Endpoint is the URL of code2Session. It must be https, since the secret is
	// part of the request; http is for a stand-in on this machine. Placeholders are
	// resolved when the configuration is loaded. Default: WeChat's.
	Endpoint string `json:"endpoint,omitempty"`

	// Timeout is how long WeChat may take to answer. Default: 5s.
	Timeout caddy.Duration `json:"timeout,omitempty"`

	// Keep is how long a user's notes are kept without a connection. Default: 10m.
	Keep caddy.Duration `json:"keep,omitempty"`

	wechat *wechat
	users  *users
}

// App is a mini program.
type App struct {
	// ID is its appid. Placeholders are resolved when the configuration is loaded.
	ID string `json:"id"`

	// Secret is its AppSecret. Write a placeholder like {env.WX_SECRET}, which is
	// resolved when the configuration is loaded, to keep it out of files and of what
	// the admin API shows.
	Secret string `json:"secret"`
}

// CaddyModule returns the Caddy module information.
func (*MiniProgram) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "websocket.logic.miniprogram", New: func() caddy.Module { return new(MiniProgram) }}
}

// Provision resolves placeholders and checks everything that can be checked
// without asking WeChat.
func (p *MiniProgram) Provision(caddy.Context) error {
	repl := caddy.NewReplacer()
	apps := make(map[string]string, len(p.Apps))
	for _, app := range p.Apps {
		id, err := repl.ReplaceOrErr(app.ID, true, true)
		if err != nil || id == "" {
			return fmt.Errorf("appid %q: %w", app.ID, orEmpty(err))
		}
		if _, twice := apps[id]; twice {
			return fmt.Errorf("appid %q is given twice", id)
		}
		// Without the text: it could be the secret itself.
		if apps[id], err = repl.ReplaceOrErr(app.Secret, true, true); err != nil || apps[id] == "" {
			return fmt.Errorf("the secret of appid %q: %w", id, orEmpty(err))
		}
	}
	if len(apps) == 0 {
		return errors.New("no mini program is listed: add app <appid> <secret>")
	}
	endpoint, err := repl.ReplaceOrErr(cmp.Or(p.Endpoint, code2Session), true, true)
	if err != nil {
		return fmt.Errorf("endpoint %q: %w", p.Endpoint, err)
	}
	if p.Timeout < 0 || p.Keep < 0 {
		return errors.New("timeout and keep must be positive, or 0 for the default")
	}
	timeout := cmp.Or(time.Duration(p.Timeout), DefaultTimeout)
	if p.wechat, err = newWeChat(endpoint, timeout, apps); err != nil {
		return err
	}
	p.users = newUsers(cmp.Or(time.Duration(p.Keep), DefaultKeep))
	return nil
}

func orEmpty(err error) error { return cmp.Or(err, errors.New("it is empty")) }

// Inherit takes over the users of the configuration before, so that a reload
// forgets nobody's notes.
func (p *MiniProgram) Inherit(old gateway.Logic) {
	if old, ok := old.(*MiniProgram); ok {
		old.users.setKeep(p.users.keepFor())
		p.users = old.users
	}
}

// OnStart forgets users who have been away for too long, from time to time.
func (p *MiniProgram) OnStart(g *gateway.Gateway) error {
	g.Every(time.Minute, p.users.sweep)
	return nil
}

// OnConnect finds out who the user is, and lets him in.
func (p *MiniProgram) OnConnect(c *gateway.Client, r *http.Request) error {
	openID, err := p.wechat.login(r.Context(), appID(r), r.URL.Query().Get("code"))
	if err != nil {
		return err
	}
	return p.users.enter(openID, func(u *user, resumed bool) error {
		if err := c.Bind(openID); err != nil {
			return err
		}
		older := gateway.Users(openID).ExceptClients(c.ID()).In(c.Endpoint())
		if _, err := c.Gateway().Close(older, CloseReplaced, "replaced by a newer connection"); err != nil {
			return err
		}
		c.SetValue(u)
		return c.SendJSON(event{Type: "welcome", Resumed: &resumed, Notes: u.list()})
	})
}

// OnClose starts the time for which the user's notes are kept.
func (p *MiniProgram) OnClose(c *gateway.Client, _ gateway.CloseReason) {
	if u, ok := c.Value().(*user); ok {
		p.users.leave(u)
	}
}

// request is what a client sends.
type request struct {
	Type string `json:"type"`
	Text string `json:"text"`
}

// event is what a client is sent.
type event struct {
	Type    string   `json:"type"`
	Resumed *bool    `json:"resumed,omitempty"`
	Notes   []string `json:"notes,omitzero"`
	Error   string   `json:"error,omitempty"`
}

// OnMessage does what the client asks for.
func (p *MiniProgram) OnMessage(c *gateway.Client, m gateway.Message) error {
	u, ok := c.Value().(*user)
	if !ok {
		return fmt.Errorf("client %s has the value %T of other logic", c.ID(), c.Value()) // before a reload that changed the logic
	}
	var q request
	if m.Type != gateway.TextMessage || json.Unmarshal(m.Data, &q) != nil {
		return c.SendJSON(event{Type: "error", Error: `not understood: send text like {"type":"note","text":"..."}`})
	}
	switch q.Type {
	case "ping":
		return c.SendJSON(event{Type: "pong"})
	case "note":
		if strings.TrimSpace(q.Text) == "" || utf8.RuneCountInString(q.Text) > maxNote {
			return c.SendJSON(event{Type: "error", Error: fmt.Sprintf("a note has 1 to %d characters", maxNote)})
		}
		return c.SendJSON(event{Type: "noted", Notes: u.note(q.Text)})
	}
	return c.SendJSON(event{Type: "error", Error: "unknown type: allowed are note, ping"})
}

// appID returns the appid that the Referer names, or "". WeChat sets the Referer to
// https://servicewechat.com/{appid}/{version}/page-frame.html and mini programs
// cannot change it; but any other program can. So it says which app's secret to
// try, and the code is the proof: WeChat made it for one app.
func appID(r *http.Request) string {
	rest, ok := strings.CutPrefix(r.Referer(), "https://servicewechat.com/")
	if !ok {
		return ""
	}
	id, _, _ := strings.Cut(rest, "/")
	return id
}

// UnmarshalCaddyfile sets up the logic from the lines:
//
//	logic miniprogram {
//		app      <appid> <secret>
//		endpoint <url>
//		timeout  <duration>
//		keep     <duration>
//	}
//
// app may be repeated.
func (p *MiniProgram) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the module's name
	if d.NextArg() {
		return d.Errf("logic miniprogram takes no arguments, found %q: its options belong in a block", d.Val())
	}
	seen := make(map[string]bool)
	for d.NextBlock(0) {
		option, args := d.Val(), d.RemainingArgs()
		if seen[option] && option != "app" {
			return d.Errf("option %s is given twice", option)
		}
		seen[option] = true
		if option == "app" {
			if len(args) != 2 {
				return d.Err("the syntax is app <appid> <secret>")
			}
			p.Apps = append(p.Apps, App{args[0], args[1]})
			continue
		}
		if len(args) != 1 {
			return d.Errf("option %s takes one value", option)
		}
		var err error
		switch option {
		case "endpoint":
			p.Endpoint = args[0]
		case "timeout":
			p.Timeout, err = duration(args[0])
		case "keep":
			p.Keep, err = duration(args[0])
		default:
			return d.Errf("unknown option %q of logic miniprogram: allowed are app, endpoint, keep, timeout", option)
		}
		if err != nil {
			return d.Errf("%s: %v", option, err)
		}
	}
	return nil
}

func duration(s string) (caddy.Duration, error) {
	d, err := caddy.ParseDuration(s)
	if err == nil && d <= 0 {
		err = fmt.Errorf("%s is not positive", s)
	}
	return caddy.Duration(d), err
}

// Interface guards
var (
	_ caddy.Provisioner     = (*MiniProgram)(nil)
	_ gateway.Logic         = (*MiniProgram)(nil)
	_ gateway.Starter       = (*MiniProgram)(nil)
	_ gateway.Inheritor     = (*MiniProgram)(nil)
	_ caddyfile.Unmarshaler = (*MiniProgram)(nil)
)
