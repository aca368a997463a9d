package e2etest

import (
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
)

// site is a Caddyfile with one page, on the given port of loopback.
func site(port int, body string) string {
	return fmt.Sprintf(`{
	auto_https disable_redirects
	skip_install_trust
}
https://localhost:%d {
	bind 127.0.0.1
	tls internal
	header Content-Type text/html
	respond %q
}
`, port, body)
}

// What every other test relies on: the command serves, reloads, keeps its old
// configuration when a reload fails, and logs in lines that can be waited for.
func TestCaddyServesAndReloads(t *testing.T) {
	port := ReservePort(t)
	caddy := StartCaddy(t, t.TempDir(), site(port, "one"))
	client := &http.Client{
		Timeout: 10 * time.Second,
		Transport: &http.Transport{
			DisableKeepAlives: true,
			TLSClientConfig:   &tls.Config{RootCAs: caddy.CertPool(), MinVersion: tls.VersionTLS12},
		},
	}
	defer client.CloseIdleConnections()
	expect := func(want string) {
		t.Helper()
		res, err := client.Get(fmt.Sprintf("https://localhost:%d", port))
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		if got, err := io.ReadAll(res.Body); err != nil || string(got) != want {
			t.Errorf("got %q, %v; want %q", got, err, want)
		}
	}

	expect("one")
	if err := caddy.Reload(site(port, "two")); err != nil {
		t.Fatal(err)
	}
	expect("two")
	if err := caddy.Reload("localhost {\n\tno_such_directive\n}\n"); err == nil || !strings.Contains(err.Error(), "no_such_directive") {
		t.Errorf("reload with a wrong directive: got %v, want an error that names it", err)
	}
	expect("two")

	caddy.Stop()
	caddy.WaitLog(func(entry map[string]any) bool { return entry["msg"] == "shutdown complete" })
	if entries := caddy.Log(); len(entries) < 2 {
		t.Errorf("the log has %d entries", len(entries))
	}
}

// Two at a time must not meet: neither their ports nor their admin endpoints.
func TestCaddysRunSideBySide(t *testing.T) {
	for range 2 {
		StartCaddy(t, t.TempDir(), site(ReservePort(t), "hello"))
	}
}

// The browser takes Caddy's internal certificate and shows its page.
func TestChromiumShowsCaddysPage(t *testing.T) {
	ctx := Chromium(t)
	port := ReservePort(t)
	StartCaddy(t, t.TempDir(), site(port, "<title>hello</title>"))
	if err := chromedp.Do(ctx, chromedp.Navigate(fmt.Sprintf("https://localhost:%d", port))); err != nil {
		t.Fatal(err)
	}
	title, err := chromedp.Run(ctx, chromedp.Title())
	if err != nil || title != "hello" {
		t.Errorf("title: got %q, %v; want hello", title, err)
	}
}
