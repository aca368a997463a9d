package e2etest

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
)

// firefoxTimeout is the longest that Firefox may take to start or to answer.
const firefoxTimeout = time.Minute

// Firefox is a headless Firefox with one tab, spoken to by WebDriver BiDi, which it
// speaks itself. It belongs to the goroutine of its test.
type Firefox struct {
	t      testing.TB
	bidi   *websocket.Conn
	tab    string
	lastID int
	events []bidiMessage // not asked for yet
}

// bidiMessage is an answer, with an ID, or an event.
type bidiMessage struct {
	ID      int
	Type    string
	Method  string
	Params  json.RawMessage
	Result  json.RawMessage
	Error   string
	Message string
}

// StartFirefox starts a browser with a profile of its own, which accepts any certificate,
// reaches loopback only, and ends with the test.
func StartFirefox(t testing.TB) *Firefox {
	t.Helper()
	path := Tool(t, "firefox-esr", "firefox")
	profile, err := os.MkdirTemp("", "firefox") //nolint:usetesting // TempDir fails the test if a late helper process still writes there
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(profile) })
	// A proxy that is not there keeps it from everything but this machine.
	prefs := fmt.Sprintf(`user_pref("network.proxy.type", 1);
user_pref("network.proxy.http", "127.0.0.1");
user_pref("network.proxy.http_port", %[1]d);
user_pref("network.proxy.ssl", "127.0.0.1");
user_pref("network.proxy.ssl_port", %[1]d);
user_pref("network.proxy.failover_direct", false);
`, ReservePort(t))
	if err := os.WriteFile(filepath.Join(profile, "user.js"), []byte(prefs), 0o600); err != nil {
		t.Fatal(err)
	}

	log := new(lineLog)
	cmd := exec.Command(path, "--headless", "--no-remote", "--profile", profile, "--remote-debugging-port", "0", "about:blank")
	cmd.Env = append(os.Environ(), "HOME="+profile, "XDG_CONFIG_HOME="+profile, "XDG_CACHE_HOME="+profile)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.WaitDelay = stopTimeout // for helpers that keep its output open
	if err := cmd.Start(); err != nil {
		t.Fatalf("starting %s: %v", path, err)
	}
	exited := make(chan struct{})
	go func() {
		_ = cmd.Wait() // how it ended is of no interest
		close(exited)
	}()
	f := &Firefox{t: t}
	t.Cleanup(func() {
		if f.bidi != nil {
			_ = f.bidi.WriteJSON(map[string]any{"id": 0, "method": "browser.close", "params": struct{}{}})
		}
		select {
		case <-exited:
		case <-time.After(stopTimeout):
			_ = cmd.Process.Kill()
			<-exited
		}
		if f.bidi != nil {
			f.bidi.Close()
		}
	})

	ctx, cancel := context.WithTimeout(t.Context(), firefoxTimeout)
	defer cancel()
	f.bidi, _, err = websocket.DefaultDialer.DialContext(ctx, bidiAddress(ctx, t, log, exited)+"/session", nil)
	if err != nil {
		t.Fatalf("speaking to firefox: %v", err)
	}
	f.call("session.new", map[string]any{"capabilities": map[string]any{"alwaysMatch": map[string]any{
		"acceptInsecureCerts":     true,
		"unhandledPromptBehavior": map[string]string{"default": "ignore"},
	}}}, nil)
	f.call("session.subscribe", map[string]any{"events": []string{"browsingContext.userPromptOpened"}}, nil)
	var tree struct{ Contexts []struct{ Context string } }
	f.call("browsingContext.getTree", struct{}{}, &tree)
	if len(tree.Contexts) == 0 {
		t.Fatal("firefox has no tab")
	}
	f.tab = tree.Contexts[0].Context
	return f
}

// bidiAddress waits until Firefox says where it listens.
func bidiAddress(ctx context.Context, t testing.TB, log *lineLog, exited <-chan struct{}) string {
	t.Helper()
	for seen := 0; ; {
		lines, more := log.since(seen)
		seen += len(lines)
		for _, line := range lines {
			if _, address, found := strings.Cut(string(line), "WebDriver BiDi listening on "); found {
				return address
			}
		}
		select {
		case <-more:
		case <-exited:
			t.Fatalf("firefox ended: %s", lines)
		case <-ctx.Done():
			t.Fatalf("firefox did not start within %v", firefoxTimeout)
		}
	}
}

// Navigate opens a page and returns when it is loaded.
func (f *Firefox) Navigate(url string) {
	f.t.Helper()
	f.call("browsingContext.navigate", map[string]any{"context": f.tab, "url": url, "wait": "complete"}, nil)
}

// Evaluate runs JavaScript in the page, as its console does. The result is that of a
// promise if it is one, and a string.
func (f *Firefox) Evaluate(script string) string {
	f.t.Helper()
	var res struct {
		Type             string
		Result           struct{ Value any }
		ExceptionDetails struct{ Text string }
	}
	f.call("script.evaluate", map[string]any{
		"expression": script, "target": map[string]string{"context": f.tab}, "awaitPromise": true, "userActivation": true,
	}, &res)
	if res.Type != "success" {
		f.t.Fatalf("the script %s: %s", script, res.ExceptionDetails.Text)
	}
	return fmt.Sprint(res.Result.Value)
}

// Alert waits for the next alert, closes it and returns what it said.
func (f *Firefox) Alert() string {
	f.t.Helper()
	for len(f.events) == 0 {
		f.events = append(f.events, f.read())
	}
	event := f.events[0]
	f.events = f.events[1:]
	var prompt struct{ Message string }
	if err := json.Unmarshal(event.Params, &prompt); err != nil {
		f.t.Fatalf("reading firefox's event %s: %v", event.Params, err)
	}
	f.call("browsingContext.handleUserPrompt", map[string]any{"context": f.tab, "accept": true}, nil)
	return prompt.Message
}

// call sends a command and reads its result. Events that come before are kept.
func (f *Firefox) call(method string, params, result any) {
	f.t.Helper()
	f.lastID++
	if err := f.bidi.WriteJSON(map[string]any{"id": f.lastID, "method": method, "params": params}); err != nil {
		f.t.Fatalf("telling firefox %s: %v", method, err)
	}
	for {
		m := f.read()
		switch {
		case m.Type == "event":
			f.events = append(f.events, m)
		case m.ID != f.lastID:
		case m.Type == "error":
			f.t.Fatalf("firefox, told %s: %s: %s", method, m.Error, m.Message)
		case result == nil:
			return
		default:
			if err := json.Unmarshal(m.Result, result); err != nil {
				f.t.Fatalf("reading what firefox answered to %s: %v", method, err)
			}
			return
		}
	}
}

func (f *Firefox) read() bidiMessage {
	f.t.Helper()
	_ = f.bidi.SetReadDeadline(time.Now().Add(firefoxTimeout))
	var m bidiMessage
	if err := f.bidi.ReadJSON(&m); err != nil {
		f.t.Fatalf("listening to firefox: %v", err)
	}
	return m
}
