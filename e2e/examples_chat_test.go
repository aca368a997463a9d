package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/gorilla/websocket"

	"github.com/caddy-websocket/caddy-websocket/e2e/internal/e2etest"
)

func startChat(t *testing.T) (*e2etest.Caddy, string) {
	t.Helper()
	return startProgram(t, e2etest.Program(t, "./examples/chat/cmd/caddy"), exampleFile(t, "chat/Caddyfile"))
}

// wantNext fails the test unless the next message contains all of these.
func wantNext(t *testing.T, ws *websocket.Conn, parts ...string) {
	t.Helper()
	got := next(ws)
	for _, part := range parts {
		if !strings.Contains(got, part) {
			t.Fatalf("received %s, want %s in it", got, part)
		}
	}
}

// One anonymous message ends a worker process of workerman-chat, with everybody on it.
func TestChatGoesOnWhateverAnybodySends(t *testing.T) {
	caddy, site := startChat(t)
	tom := caddy.Dial("wss://"+site+"/chat", nil)
	if got := exchange(t, tom, `{"type":"login","name":"tom","room":"lobby"}`); !strings.Contains(got, `"welcome"`) {
		t.Fatalf("tom is welcomed with %s", got)
	}
	eve := caddy.Dial("wss://"+site+"/chat", nil)
	for _, bad := range []string{`{"type":"say","text":"before login"}`, "no JSON", "null", `{"type":"login","name":"` + strings.Repeat("x", 10000) + `"}`} {
		if got := exchange(t, eve, bad); !strings.Contains(got, `"error"`) {
			t.Errorf("%.40s is answered with %s, want an error message", bad, got)
		}
	}
	if got := exchange(t, eve, `{"type":"login","name":"eve","room":"lobby"}`); !strings.Contains(got, `"welcome"`) {
		t.Fatalf("eve is welcomed with %s", got)
	}
	wantNext(t, tom, `"login"`, `"eve"`)
	if got := exchange(t, eve, strings.Repeat("x", 64<<10)); !strings.Contains(got, "1009") {
		t.Errorf("64 KiB are answered with %s, want 1009", got)
	}
	wantNext(t, tom, `"logout"`, `"eve"`)
	if got := exchange(t, tom, `{"type":"say","text":"still here"}`); !strings.Contains(got, "still here") {
		t.Errorf("tom hears %s of himself", got)
	}
}

// enterChat logs in on the page.
func enterChat(t *testing.T, tab context.Context, site, name string) {
	t.Helper()
	do(t, tab, chromedp.EmulateViewport(1000, 760), chromedp.Navigate("https://"+site+"/"))
	do(t, tab, chromedp.SetValue("#name", name), chromedp.Click("#enter"))
	until(t, tab, `document.getElementById('state').dataset.state === 'open'`)
}

func members(n int) string {
	return fmt.Sprintf(`document.getElementById('members').children.length === %d`, n)
}

func hears(text string) string {
	return fmt.Sprintf(`document.getElementById('messages').textContent.includes(%q)`, text)
}

func TestChatPageTalksToAllAndToOneAndSeesWhoLeaves(t *testing.T) {
	caddy, site := startChat(t)
	ann := e2etest.Chromium(t)
	enterChat(t, ann, site, "ann")
	bob := tab(t, ann)
	enterChat(t, bob, site, "bob <b>")
	cid := caddy.Dial("wss://"+site+"/chat", nil)
	if got := exchange(t, cid, `{"type":"login","name":"cid","room":"lobby"}`); !strings.Contains(got, `"welcome"`) {
		t.Fatalf("cid is welcomed with %s", got)
	}
	until(t, ann, members(3))
	until(t, bob, members(3))

	const said = `<img src=x onerror="alert(1)"> hello all`
	do(t, bob, chromedp.SetValue("#say-input", said), chromedp.Click("#say-send"))
	until(t, ann, hears(said))
	wantNext(t, cid, `hello all`)

	choose := `(s => { s.value = [...s.options].find(o => o.textContent === 'bob <b>').value })(document.getElementById('to'))`
	do(t, ann, chromedp.Evaluate[chromedp.Void](choose), chromedp.SetValue("#say-input", "psst, bob"), chromedp.Click("#say-send"))
	until(t, bob, hears("psst, bob"))
	until(t, bob, hears("to you alone"))
	until(t, ann, hears("to bob <b>"))
	screenshot(t, ann, "chat-ann")
	screenshot(t, bob, "chat-bob")
	if err := cid.WriteMessage(websocket.TextMessage, []byte(`{"type":"say","text":"from cid"}`)); err != nil {
		t.Fatal(err)
	}
	wantNext(t, cid, "from cid") // and nothing of what was for bob alone

	do(t, bob, chromedp.Click("#leave"))
	until(t, ann, members(2))
	until(t, ann, hears("bob <b> left"))

	// What was meant for bob alone must not go to everybody because he went.
	do(t, ann, chromedp.SetValue("#say-input", "for bob only"), chromedp.Click("#say-send"))
	until(t, ann, `document.getElementById('hint').textContent.includes('has left') && document.getElementById('say-input').value === 'for bob only'`)
	until(t, ann, `document.getElementById('to').selectedOptions[0].textContent === 'bob <b> (left)'`)
	do(t, ann, chromedp.SetValue("#to", ""), chromedp.SetValue("#say-input", "for all"), chromedp.Click("#say-send"))
	wantNext(t, cid, `"logout"`, "bob")
	wantNext(t, cid, "for all")
	until(t, bob, `!document.getElementById('login-form').hidden && document.getElementById('chat').hidden`)
	screenshot(t, bob, "chat-login")
}

func TestChatPageSaysWhatIsWrongWithAName(t *testing.T) {
	_, site := startChat(t)
	ann := e2etest.Chromium(t)
	do(t, ann, chromedp.Navigate("https://"+site+"/"))
	do(t, ann, chromedp.Evaluate[chromedp.Void](`document.getElementById('name').value = 'a\u0007b'`), chromedp.Click("#enter"))
	until(t, ann, `document.getElementById('hint').textContent.includes('control characters') && !document.getElementById('login-form').hidden`)
}

func TestChatPageComesBackIntoItsRoom(t *testing.T) {
	site := fmt.Sprintf("localhost:%d", e2etest.ReservePort(t))
	bin := e2etest.Program(t, "./examples/chat/cmd/caddy")
	start := func() *e2etest.Caddy {
		caddy := e2etest.StartProgram(t, bin, e2etest.RepoRoot(t), exampleFile(t, "chat/Caddyfile"), "WS_ADDR="+site)
		caddy.AwaitTLS(site)
		return caddy
	}
	first := start()
	ann := e2etest.Chromium(t)
	enterChat(t, ann, site, "ann")
	first.Stop()
	until(t, ann, hears("connection lost"))
	start()
	until(t, ann, `document.getElementById('state').dataset.state === 'open'`)
	until(t, ann, members(1))
	do(t, ann, chromedp.SetValue("#say-input", "back again"), chromedp.Click("#say-send"))
	until(t, ann, hears("back again"))
}
