package e2etest

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
)

// chromiumTimeout is the longest that a test may use its browser.
const chromiumTimeout = 2 * time.Minute

// Chromium starts a headless browser with a profile of its own and returns a context
// for chromedp.Run. The browser accepts any certificate, reaches loopback only and ends
// with the test, or after 2 minutes. A test that fails shows what the page's console said.
// Flags are Chromium's, by name and value.
func Chromium(t testing.TB, flags ...[2]string) context.Context {
	t.Helper()
	path := Tool(t, "chromium", "chromium-browser", "google-chrome", "google-chrome-stable")

	profile, err := os.MkdirTemp("", "chromium") //nolint:usetesting // TempDir fails the test if a late helper process still writes there
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(profile) })

	options := append(chromedp.DefaultExecAllocatorOptions[:], // headless, no first run, no background networking
		chromedp.ExecPath(path),
		chromedp.UserDataDir(profile),
		chromedp.Env("HOME="+profile, "XDG_CONFIG_HOME="+profile, "XDG_CACHE_HOME="+profile),
		chromedp.DisableGPU,
		chromedp.IgnoreCertErrors,
		chromedp.WSURLReadTimeout(startTimeout),
		chromedp.Flag("disable-component-update", true),
		chromedp.Flag("disable-quic", true),
		chromedp.Flag("no-proxy-server", true),
		chromedp.Flag("host-resolver-rules", "MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.0.0.1"),
	)
	for _, f := range flags {
		options = append(options, chromedp.Flag(f[0], f[1]))
	}
	if os.Geteuid() == 0 {
		// Chromium does not start as root with its sandbox.
		options = append(options, chromedp.NoSandbox)
	}

	ctx, cancelTimeout := context.WithTimeout(context.Background(), chromiumTimeout)
	t.Cleanup(cancelTimeout)
	ctx, cancelAllocator := chromedp.NewExecAllocator(ctx, options...)
	t.Cleanup(cancelAllocator)
	ctx, cancelTab := chromedp.NewContext(ctx)
	t.Cleanup(cancelTab)

	if err := chromedp.Do(ctx); err != nil {
		t.Fatalf("starting %s: %v", path, err)
	}
	showConsole(t, ctx)
	return ctx
}

// showConsole keeps what the page logs and throws for the case that the test fails.
func showConsole(t testing.TB, ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	messages := chromedp.Console(ctx) // here and not in the goroutine: it subscribes
	ended := make(chan struct{})
	var lines []string // the goroutine's until ended is closed
	go func() {
		defer close(ended)
		for message, err := range messages {
			if err != nil {
				return // the test or the browser has ended
			}
			lines = append(lines, message.String())
		}
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
		if t.Failed() && len(lines) > 0 {
			t.Logf("the page's console:\n%s", strings.Join(lines, "\n"))
		}
	})
}
