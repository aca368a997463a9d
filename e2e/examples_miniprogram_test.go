package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/gorilla/websocket"

	"github.com/caddy-websocket/caddy-websocket/e2e/internal/e2etest"
)

const (
	wxAppID  = "wx0123456789abcdef"
	wxSecret = "a-secret-that-nobody-sees"
)

// weChat stands in for WeChat: the code "tom:1" is user tom's. While broken is true it
// answers that it is busy.
type weChat struct {
	broken atomic.Bool
}

func (w *weChat) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	name, _, ok := strings.Cut(query.Get("js_code"), ":")
	switch {
	case w.broken.Load():
		fmt.Fprint(rw, `{"errcode":-1,"errmsg":"system error"}`)
	case query.Get("appid") != wxAppID || query.Get("secret") != wxSecret:
		fmt.Fprint(rw, `{"errcode":40125,"errmsg":"invalid appsecret"}`)
	case !ok:
		fmt.Fprint(rw, `{"errcode":40029,"errmsg":"invalid code"}`)
	default:
		_ = json.NewEncoder(rw).Encode(map[string]string{"openid": "openid-" + name, "session_key": "x"}) // who asks may have left
	}
}

func startMiniProgram(t *testing.T) (caddy *e2etest.Caddy, site string, wechat *weChat, server *httptest.Server) {
	t.Helper()
	wechat = new(weChat)
	server = httptest.NewServer(wechat)
	t.Cleanup(server.Close)
	caddy, site = startProgram(t, e2etest.Program(t, "./examples/miniprogram/cmd/caddy"), exampleFile(t, "miniprogram/Caddyfile"),
		"WX_APPID="+wxAppID, "WX_SECRET="+wxSecret, "WX_ENDPOINT="+server.URL+"/sns/jscode2session")
	return caddy, site, wechat, server
}

// fromApp are the header fields of a mini program: no Origin.
func fromApp(appID string) http.Header {
	return http.Header{
		"Referer":                {"https://servicewechat.com/" + appID + "/12/page-frame.html"},
		"Sec-Websocket-Protocol": {"mini.v1"},
	}
}

func TestMiniProgramIsKnownBeforeItIsConnected(t *testing.T) {
	caddy, site, wechat, server := startMiniProgram(t)
	mini := "wss://" + site + "/mini"

	ws := caddy.Dial(mini+"?code=tom:1", fromApp(wxAppID))
	if got := ws.Subprotocol(); got != "mini.v1" {
		t.Errorf("protocol %q, want mini.v1", got)
	}
	wantNext(t, ws, `"welcome"`, `"resumed":false`)
	if got := exchange(t, ws, `{"type":"note","text":"buy milk"}`); !strings.Contains(got, "buy milk") {
		t.Errorf("answer %s, want the note", got)
	}
	_ = ws.UnderlyingConn().Close() // as WeChat does in the background
	ws = caddy.Dial(mini+"?code=tom:2", fromApp(wxAppID))
	wantNext(t, ws, `"welcome"`, `"resumed":true`, "buy milk")
	other := caddy.Dial(mini+"?code=tom:3", fromApp(wxAppID))
	wantNext(t, other, `"welcome"`)
	if got := next(ws); !strings.Contains(got, "4001") {
		t.Errorf("the older connection ends with %s, want 4001", got)
	}

	refused(t, caddy, mini, fromApp(wxAppID), http.StatusUnauthorized)
	refused(t, caddy, mini+"?code=invented", fromApp(wxAppID), http.StatusUnauthorized)
	refused(t, caddy, mini+"?code=tom:4", fromApp("wx9999999999999999"), http.StatusForbidden)
	wechat.broken.Store(true)
	refused(t, caddy, mini+"?code=tom:5", fromApp(wxAppID), http.StatusServiceUnavailable)
	server.Close()
	refused(t, caddy, mini+"?code=tom:6", fromApp(wxAppID), http.StatusServiceUnavailable)

	// Why it was refused is in the log, for who runs the server; the secret is not.
	caddy.WaitLog(func(entry map[string]any) bool {
		text, _ := entry["msg"].(string)
		return strings.Contains(text, "asking WeChat")
	})
	for _, entry := range caddy.Log() {
		if text := fmt.Sprint(entry); strings.Contains(text, wxSecret) {
			t.Errorf("the log shows the secret: %s", text)
		}
	}
}

// With an empty secret every user would be refused, and nobody would know why.
func TestMiniProgramWithoutASecretDoesNotStart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "Caddyfile")
	if err := os.WriteFile(path, []byte(exampleFile(t, "miniprogram/Caddyfile")), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), e2etest.Program(t, "./examples/miniprogram/cmd/caddy"), "validate", "--adapter", "caddyfile", "--config", path)
	cmd.Env = append(os.Environ(), "HOME="+t.TempDir(), "WX_APPID="+wxAppID, "WX_SECRET=")
	out, err := cmd.CombinedOutput()
	if want := `the secret of appid \"` + wxAppID; err == nil || !strings.Contains(string(out), want) && !strings.Contains(string(out), strings.ReplaceAll(want, `\`, "")) {
		t.Errorf("validate: %v, want an error about the secret; it says:\n%s", err, out)
	}
}

// wxShim is what client.js needs of a mini program, made of what a browser has.
const wxShim = `
	window.logins = 0; window.sockets = []; window.got = []; window.states = [];
	window.wx = {
		login: ({ success }) => success({ code: 'tom:' + ++logins }),
		connectSocket: ({ url, protocols }) => {
			const ws = new WebSocket(url, protocols);
			sockets.push(ws);
			return {
				onOpen: f => { ws.onopen = () => f({}); },
				onMessage: f => { ws.onmessage = e => f({ data: e.data }); },
				onClose: f => { ws.onclose = e => f({ code: e.code, reason: e.reason }); },
				onError: f => { ws.onerror = () => f({ errMsg: 'connectSocket:fail' }); },
				send: ({ data }) => ws.send(data),
				close: ({ code }) => ws.close(code),
			};
		},
	};`

// client.js is there to be pasted: it must work as it stands. A browser stands in for
// the mini program.
func TestMiniProgramClientComesBackFromTheBackgroundAndFromALostConnection(t *testing.T) {
	caddy, site, _, _ := startMiniProgram(t)
	page := e2etest.Chromium(t)
	do(t, page, chromedp.Navigate("https://"+site+"/"))
	do(t, page, chromedp.Evaluate[chromedp.Void](fmt.Sprintf(`(module => {
		%s
		%s
		window.client = module.exports.create({
			url: 'wss://%s/mini', protocols: ['mini.v1'],
			onMessage: m => got.push(m), onState: s => states.push(s),
		});
		client.start();
	})({})`, wxShim, exampleFile(t, "miniprogram/client.js"), site)))
	until(t, page, `got.at(-1)?.type === 'welcome' && !got.at(-1).resumed && states.join() === 'connecting,open'`)
	do(t, page, chromedp.Evaluate[chromedp.Void](`client.send({ type: 'note', text: 'buy milk' })`))
	until(t, page, `got.at(-1)?.notes?.join() === 'buy milk'`)

	// In the background the socket is cut, and nothing is tried.
	do(t, page, chromedp.Evaluate[chromedp.Void](`client.onHide(); sockets.at(-1).close()`))
	until(t, page, `states.at(-1) === 'hidden'`)
	time.Sleep(time.Second) // longer than the first pause would be
	do(t, page, chromedp.Evaluate[chromedp.Void](`got.length = 0; if (sockets.length !== 1) throw new Error('connected in the background'); client.onShow()`))
	until(t, page, `got.at(-1)?.type === 'welcome' && got.at(-1).resumed && got.at(-1).notes.join() === 'buy milk'`)

	// In the foreground it is tried again, with a fresh code.
	do(t, page, chromedp.Evaluate[chromedp.Void](`got.length = 0; sockets.at(-1).close()`))
	until(t, page, `states.at(-1) === 'open' && states.at(-3) === 'waiting' && got.at(-1)?.resumed && logins === 3`)

	// A short absence keeps the socket, which answers.
	do(t, page, chromedp.Evaluate[chromedp.Void](`client.onHide(); client.onShow()`))

	// 4001 means not to come back.
	elsewhere := caddy.Dial("wss://"+site+"/mini?code=tom:elsewhere", fromApp(wxAppID))
	wantNext(t, elsewhere, `"resumed":true`)
	until(t, page, `states.at(-1) === 'closed' && sockets.length === 3`)
	if err := elsewhere.WriteMessage(websocket.TextMessage, []byte(`{"type":"ping"}`)); err != nil {
		t.Fatal(err)
	}
	wantNext(t, elsewhere, `"pong"`)
}
