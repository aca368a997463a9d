package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"

	"github.com/caddy-websocket/caddy-websocket/e2e/internal/e2etest"
)

// snippet is what the documentation of Workerman tells people to type into the
// browser's console, word for word.
const snippet = `ws = new WebSocket("wss://DOMAIN:4431");
ws.onopen = function() { alert("connected"); ws.send('tom'); };
ws.onmessage = function(e) { alert("received: " + e.data); };`

// do runs browser actions, and fails the test if they do.
func do(t *testing.T, tab context.Context, actions ...chromedp.Action[chromedp.Void]) {
	t.Helper()
	if err := chromedp.Do(tab, actions...); err != nil {
		t.Fatal(err)
	}
}

// until waits until a JavaScript expression is true.
func until(t *testing.T, tab context.Context, expression string) {
	t.Helper()
	_, err := chromedp.Run(tab, chromedp.Poll[bool](expression, chromedp.WithPollingInterval(50*time.Millisecond), chromedp.WithPollingTimeout(30*time.Second)))
	if err != nil {
		state, _ := chromedp.Run(tab, chromedp.Evaluate[string](`document.body.innerText`))
		t.Fatalf("waiting for %s: %v; the page shows:\n%s", expression, err, state)
	}
}

// text returns what an element shows.
func text(t *testing.T, tab context.Context, id string) string {
	t.Helper()
	s, err := chromedp.Run(tab, chromedp.Evaluate[string](fmt.Sprintf(`document.getElementById(%q).textContent.trim()`, id)))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// tab opens a second tab of the same browser.
func tab(t *testing.T, first context.Context) context.Context {
	t.Helper()
	ctx, cancel := chromedp.NewContext(first)
	t.Cleanup(cancel)
	return ctx
}

func TestConsoleSnippetWorksInChromium(t *testing.T) {
	_, site := startExample(t)
	browser := e2etest.Chromium(t)
	do(t, browser, chromedp.Navigate("https://"+site+"/"))
	dialogs := chromedp.Events(browser, page.JavascriptDialogOpening)
	script := strings.ReplaceAll(snippet, "DOMAIN:4431", site)
	do(t, browser, chromedp.Evaluate[chromedp.Void](script))
	want := []string{"connected", "received: 127.0.0.1"}
	var got []string
	for dialog, err := range dialogs {
		if err != nil {
			t.Fatalf("after %q: %v", got, err)
		}
		got = append(got, dialog.Message)
		if _, err := chromedp.Call(browser, page.HandleJavaScriptDialog, page.HandleJavaScriptDialogParams{Accept: true}); err != nil {
			t.Fatal(err)
		}
		if len(got) == len(want) {
			break
		}
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("alerts %q, want %q", got, want)
	}
}

// open waits until the page has its connection and the server has said hello.
func open(t *testing.T, tab context.Context) {
	t.Helper()
	until(t, tab, `document.getElementById('state').dataset.state === 'open' && document.getElementById('client-ip').textContent.trim() === '127.0.0.1'`)
}

func TestPageConnectsShowsTheAddressAndTalks(t *testing.T) {
	_, site := startExample(t)
	ann := e2etest.Chromium(t)
	do(t, ann, chromedp.EmulateViewport(1280, 1000), chromedp.Navigate("https://"+site+"/"))
	open(t, ann)
	if id := text(t, ann, "client-id"); len(id) < 30 {
		t.Errorf("the page shows client id %q", id)
	}

	do(t, ann, chromedp.Click("#tom-send"))
	until(t, ann, `document.getElementById('tom-log').textContent.includes('127.0.0.1')`)

	bob := tab(t, ann)
	do(t, bob, chromedp.Navigate("https://"+site+"/"))
	open(t, bob)
	until(t, bob, `document.getElementById('members').children.length === 2`)
	until(t, ann, `document.getElementById('members').children.length === 2`)
	const said = `<img src=x onerror="alert(1)"> hello from the other tab`
	do(t, bob, chromedp.SetValue("#say-input", said), chromedp.Click("#say-send"))
	until(t, ann, fmt.Sprintf(`document.getElementById('messages').textContent.includes(%q)`, said))
	screenshot(t, ann, "page")

	do(t, bob, chromedp.Click("#disconnect"))
	until(t, bob, `document.getElementById('state').dataset.state === 'closed'`)
	until(t, ann, `document.getElementById('members').children.length === 1`)
}

func TestPageReconnectsByItself(t *testing.T) {
	site := fmt.Sprintf("localhost:%d", e2etest.ReservePort(t))
	first := e2etest.StartCaddy(t, e2etest.RepoRoot(t), example(t), "WS_ADDR="+site)
	first.AwaitTLS(site)
	browser := e2etest.Chromium(t)
	do(t, browser, chromedp.Navigate("https://"+site+"/"))
	open(t, browser)
	before := text(t, browser, "client-id")
	first.Stop()
	until(t, browser, `document.getElementById('last-close').textContent.includes('1001')`)
	e2etest.StartCaddy(t, e2etest.RepoRoot(t), example(t), "WS_ADDR="+site)
	until(t, browser, `document.getElementById('reconnects').textContent.trim() === '1'`)
	open(t, browser)
	if after := text(t, browser, "client-id"); after == before {
		t.Errorf("after a reconnect the client id is still %s", after)
	}
}

// screenshot keeps a picture of the page if E2E_SCREENSHOTS names a folder.
func screenshot(t *testing.T, tab context.Context, name string) {
	t.Helper()
	dir := os.Getenv("E2E_SCREENSHOTS")
	if dir == "" {
		return
	}
	png, err := chromedp.Run(tab, chromedp.FullScreenshot(100))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, name+".png"), png, 0o600); err != nil {
		t.Fatal(err)
	}
}
