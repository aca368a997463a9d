package e2e

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/caddy-websocket/caddy-websocket/e2e/internal/e2etest"
)

// A browser opens wss on the HTTP/2 connection of its page if the server offers that,
// and says so nowhere in the page: the server's log and the browser's know. Without the
// opt-in nothing changes.
func TestChromiumOpensTheSocketOnThePagesHTTP2Connection(t *testing.T) {
	for name, tt := range map[string]struct {
		flags []string // of go build
		proto string
		said  []string // by the browser, in its net log
		never []string
	}{
		"with the import": {
			[]string{"-tags", "extendedconnect"},
			"HTTP/2.0",
			[]string{":protocol: websocket"},
			[]string{"Sec-WebSocket-Key"},
		},
		"without": {nil, "HTTP/1.1", []string{"Sec-WebSocket-Key"}, []string{":protocol: websocket"}},
	} {
		t.Run(name, func(t *testing.T) {
			site := fmt.Sprintf("localhost:%d", e2etest.ReservePort(t))
			caddy := e2etest.StartProgram(t, e2etest.Program(t, "./cmd/caddy", tt.flags...), t.TempDir(), fmt.Sprintf(`{
	auto_https disable_redirects
	skip_install_trust
}
https://%s {
	bind 127.0.0.1
	tls internal
	websocket /ws {
		logic reply "{ws.proto} {ws.message}"
	}
	header Content-Type text/html
	respond "<!DOCTYPE html><title>page</title>"
}
`, site))
			caddy.AwaitTLS(site)
			netLog := filepath.Join(t.TempDir(), "net.json")
			browser := e2etest.Chromium(t, [2]string{"log-net-log", netLog})
			do(t, browser, chromedp.Navigate("https://"+site+"/"))
			until(t, browser, `performance.getEntriesByType('navigation')[0].nextHopProtocol === 'h2'`)
			do(t, browser, chromedp.Evaluate[chromedp.Void](`
				window.got = [];
				ws = new WebSocket('wss://' + location.host + '/ws');
				ws.onopen = () => ws.send('tom');
				ws.onmessage = e => { got.push(e.data); ws.close(1000, 'bye') };
				ws.onclose = e => got.push(e.code + ' ' + e.wasClean);
				undefined`))
			until(t, browser, `got.length === 2`)
			got, err := chromedp.Run(browser, chromedp.Evaluate[string](`got.join()`))
			if want := tt.proto + " tom,1000 true"; err != nil || got != want {
				t.Errorf("the page got %q, %v, want %q", got, err, want)
			}
			caddy.WaitLog(func(entry map[string]any) bool {
				return entry["msg"] == "client connected" && entry["proto"] == tt.proto
			})
			if err := chromedp.Cancel(browser); err != nil { // which completes the log
				t.Fatal(err)
			}
			wantSaid(t, netLog, tt.said, tt.never)
		})
	}
}

// In Chromium a socket that comes back is over HTTP/1.1, since the page's connection
// went with the server that was replaced, and it makes none for a socket. With the line
// that docs/http2-http3.md has for it, it is over HTTP/2 again; so it is without in Firefox.
func TestSocketsComeBackOverHTTP2IfThePageAsksFirst(t *testing.T) {
	page, err := os.ReadFile(filepath.Join(e2etest.RepoRoot(t), "docs/http2-http3.md"))
	if err != nil {
		t.Fatal(err)
	}
	ask := regexp.MustCompile(`(?m)^\tawait fetch\(.*;$`).FindString(string(page))
	if ask == "" {
		t.Fatal("docs/http2-http3.md has no line with a request")
	}
	for name, browser := range map[string]struct {
		alone string // how the socket comes back without the line
		start func(t *testing.T, url string) (evaluate func(script string) string)
	}{
		"Chromium": {"HTTP/1.1", func(t *testing.T, url string) func(string) string {
			tab := e2etest.Chromium(t)
			do(t, tab, chromedp.Navigate(url))
			return func(script string) string {
				t.Helper()
				got, err := chromedp.Run(tab, chromedp.Evaluate[string](script, chromedp.EvalAwaitPromise))
				if err != nil {
					t.Fatal(err)
				}
				return got
			}
		}},
		"Firefox": {"HTTP/2.0", func(t *testing.T, url string) func(string) string {
			firefox := e2etest.StartFirefox(t)
			firefox.Navigate(url)
			return firefox.Evaluate
		}},
	} {
		t.Run(name, func(t *testing.T) {
			config := fmt.Sprintf(`{
	auto_https disable_redirects
	skip_install_trust
	grace_period 2s
}
https://localhost:%d {
	bind 127.0.0.1
	tls internal
	websocket /ws {
		logic reply "{ws.proto}"
	}
	header Content-Type text/html
	respond "<!DOCTYPE html><title>page</title>"
}
`, e2etest.ReservePort(t))
			site := regexp.MustCompile(`localhost:\d+`).FindString(config)
			caddy := e2etest.StartProgram(t, e2etest.Program(t, "./cmd/caddy", "-tags", "extendedconnect"), t.TempDir(), config)
			caddy.AwaitTLS(site)
			evaluate := browser.start(t, "https://"+site+"/")
			// open returns which protocol a new socket came over.
			open := func(before string) string {
				t.Helper()
				return evaluate(`(async () => {` + before + `
					const ws = new WebSocket('wss://' + location.host + '/ws');
					window.gone = new Promise(ok => ws.addEventListener('close', e => ok('' + e.code)));
					window.ws = ws;
					return new Promise(ok => {
						ws.onopen = () => ws.send('tom');
						ws.onmessage = e => ok(e.data);
						ws.onclose = e => ok('closed with ' + e.code);
					});
				})()`)
			}
			if got := open(""); got != "HTTP/2.0" {
				t.Fatalf("the first socket: %s, want HTTP/2.0", got)
			}
			if err := caddy.Reload(config + "\n# changed\nhttp://localhost:" + fmt.Sprint(e2etest.ReservePort(t)) + " {\n\tbind 127.0.0.1\n}\n"); err != nil {
				t.Fatal(err)
			}
			if got := evaluate(`gone`); got != "1012" {
				t.Fatalf("the reload closed it with %s, want 1012", got)
			}
			if got := open(""); got != browser.alone {
				t.Errorf("the socket that came back: %s, want %s", got, browser.alone)
			}
			evaluate(`ws.close(), gone`)
			if got := open(ask); got != "HTTP/2.0" {
				t.Errorf("the socket after the page's request: %s, want HTTP/2.0", got)
			}
		})
	}
}

// wantSaid looks into a log that the browser has yet to complete.
func wantSaid(t *testing.T, file string, said, never []string) {
	t.Helper()
	var log []byte
	var err error
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		log, err = os.ReadFile(file)
		if err == nil && bytes.HasSuffix(bytes.TrimSpace(log), []byte("}")) || time.Now().After(deadline) {
			break
		}
	}
	for _, text := range said {
		if !bytes.Contains(log, []byte(text)) {
			t.Errorf("the browser's log of %d bytes (%v) has no %q", len(log), err, text)
		}
	}
	for _, text := range never {
		if bytes.Contains(log, []byte(text)) {
			t.Errorf("the browser's log has %q", text)
		}
	}
}
