package e2e

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
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
