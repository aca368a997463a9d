package admin_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/gorilla/websocket"
	"github.com/spf13/cobra"

	"github.com/caddy-websocket/caddy-websocket/caddymodule/websocket/admin"
)

// wait bounds how long a test waits for something that is expected.
const wait = 20 * time.Second

// server is Caddy, running in this process: so there is one at a time. Its site and
// its admin endpoint are Unix sockets; a client's address is what it says in
// X-Forwarded-For.
type server struct {
	t   testing.TB
	dir string

	loaded, reloaded bool
}

// start runs Caddy with directives in the one site.
func start(t testing.TB, directives string) *server {
	t.Helper()
	dir, err := os.MkdirTemp(home, "") //nolint:usetesting // with a test name in it, the path of the socket may be too long
	if err != nil {
		t.Fatal(err)
	}
	s := &server{t: t, dir: dir}
	t.Cleanup(func() {
		if err := caddy.Stop(); err != nil {
			t.Errorf("stopping Caddy: %v", err)
		}
	})
	if err := s.load("", directives); err != nil {
		t.Fatal(err)
	}
	return s
}

// twoGateways is a site with the endpoint /echo in the gateway default, and /other
// in other.
const twoGateways = `
	websocket /echo {
		user {query.user}
		join {query.group}
		max_message_size 1KiB
		logic echo
	}
	websocket /other {
		gateway other
		logic echo
	}`

// load is `caddy reload`. options are those of the global option websocket.
func (s *server) load(options, directives string) error {
	s.t.Helper()
	config, err := s.adapt(options, directives)
	if err != nil {
		return err
	}
	s.loaded, s.reloaded = true, s.loaded
	return caddy.Load(config, true)
}

// loadFailing is a reload that fails when its admin server has already replaced the
// one before.
func (s *server) loadFailing(directives string) error {
	s.t.Helper()
	config, err := s.adapt("close_rate 12345", directives)
	if err != nil {
		s.t.Fatal(err)
	}
	s.reloaded = true
	return caddy.Load(bytes.ReplaceAll(config, []byte("12345"), []byte("-1")), true)
}

func (s *server) adapt(options, directives string) ([]byte, error) {
	global := ""
	if options != "" {
		global = "websocket {\n" + options + "\n}\n"
	}
	config, _, err := caddyconfig.GetAdapter("caddyfile").Adapt(fmt.Appendf(nil, `{
	admin unix/%s
	persist_config off
	storage file_system %s
	log {
		output discard
	}
	servers {
		trusted_proxies_unix
	}
	%s
}
http:// {
	bind unix/%s
	%s
}`, s.path("admin"), home, global, s.path("http"), directives), nil)
	return config, err
}

func (s *server) path(name string) string { return filepath.Join(s.dir, name) }

// client is the other side of a WebSocket.
type client struct {
	*websocket.Conn
	t testing.TB
}

// tryDial connects to a path with a user and a group in the query, from 192.0.2.1.
func (s *server) tryDial(path string) (*websocket.Conn, *http.Response, error) {
	dialer := websocket.Dialer{HandshakeTimeout: wait, NetDialContext: s.dialer("http")}
	for deadline := time.Now().Add(wait); ; {
		conn, resp, err := dialer.Dial("ws://localhost"+path, http.Header{"X-Forwarded-For": {"192.0.2.1"}})
		// For a moment after a reload the old server may still accept, and then closes
		// what it has not read from.
		if s.reloaded && (errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET)) && time.Now().Before(deadline) {
			continue
		}
		return conn, resp, err
	}
}

func (s *server) dialer(name string) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", s.path(name))
	}
}

// dial is tryDial for a handshake that must succeed. It returns when the logic has
// answered, so that the client is listed.
func (s *server) dial(path string) *client {
	s.t.Helper()
	conn, _, err := s.tryDial(path)
	if err != nil {
		s.t.Fatalf("connecting to %s: %v", path, err)
	}
	s.t.Cleanup(func() { _ = conn.Close() })
	c := &client{conn, s.t}
	if err := c.WriteMessage(websocket.TextMessage, []byte("hello")); err != nil {
		s.t.Fatal(err)
	}
	c.want("hello")
	return c
}

// want fails the test unless the next message is this.
func (c *client) want(text string) {
	c.t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(wait))
	_, data, err := c.ReadMessage()
	if err != nil || string(data) != text {
		c.t.Fatalf("received %q, %v; want %q", data, err, text)
	}
}

// wantClose fails the test unless a close frame with this code and reason comes next.
func (c *client) wantClose(code int, reason string) {
	c.t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(wait))
	_, data, err := c.ReadMessage()
	if closed, ok := err.(*websocket.CloseError); !ok || closed.Code != code || closed.Text != reason { //nolint:errorlint // gorilla returns it so
		c.t.Fatalf("received %q, %v; want close %d %q", data, err, code, reason)
	}
}

// ask makes a call of the admin endpoint. Header lines are "Name: value".
func (s *server) ask(method, path, body string, header ...string) (*http.Response, string) {
	s.t.Helper()
	res := s.open(s.t.Context(), method, path, body, header...)
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		s.t.Fatalf("%s %s: %v", method, path, err)
	}
	return res, string(text)
}

// open is ask for an answer that has no end.
func (s *server) open(ctx context.Context, method, path, body string, header ...string) *http.Response {
	s.t.Helper()
	req, err := http.NewRequestWithContext(ctx, method, "http://127.0.0.1"+path, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for _, line := range header {
		name, value, _ := strings.Cut(line, ": ")
		req.Header.Set(name, value)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: s.dialer("admin")}}
	res, err := client.Do(req)
	if err != nil {
		s.t.Fatalf("%s %s: %v", method, path, err)
	}
	return res
}

// outcome is what a command printed, and its exit code.
type outcome struct {
	out, errs string
	code      int
}

func (o outcome) String() string { return fmt.Sprintf("exit code %d\n%s\n%s", o.code, o.out, o.errs) }

// command runs `caddy websocket` with these arguments.
func command(ctx context.Context, stdin io.Reader, out, errs io.Writer, args ...string) (code int) {
	root, websocket := &cobra.Command{Use: "caddy", SilenceUsage: true}, &cobra.Command{Use: "websocket <command>"}
	admin.SetUp(websocket)
	root.AddCommand(websocket)
	root.SetArgs(append([]string{"websocket"}, args...))
	root.SetIn(stdin)
	root.SetOut(out)
	root.SetErr(errs)
	err := root.ExecuteContext(ctx)
	switch {
	case err == nil:
		return 0
	case strings.HasPrefix(err.Error(), "exiting with status "): // what Caddy makes an exit code of
		_, _ = fmt.Sscanf(err.Error(), "exiting with status %d", &code)
		return code
	}
	return 1
}

func runCommand(t testing.TB, stdin string, args ...string) outcome {
	t.Helper()
	var out, errs bytes.Buffer
	ctx, cancel := context.WithTimeout(t.Context(), 2*wait)
	defer cancel()
	code := command(ctx, strings.NewReader(stdin), &out, &errs, args...)
	return outcome{out.String(), errs.String(), code}
}

// run runs a command that talks to the server.
func (s *server) run(args ...string) outcome {
	s.t.Helper()
	return runCommand(s.t, "", append(args, "--address", "unix/"+s.path("admin"))...)
}

// want runs a command that must succeed, and returns what it printed.
func (s *server) want(args ...string) string {
	s.t.Helper()
	got := s.run(args...)
	if got.code != 0 {
		s.t.Fatalf("caddy websocket %s: %s", strings.Join(args, " "), got)
	}
	return got.out
}

// objects parses JSON, one object a line.
func objects(t testing.TB, text string) (all []map[string]any) {
	t.Helper()
	for line := range strings.Lines(text) {
		var o map[string]any
		if err := json.Unmarshal([]byte(line), &o); err != nil {
			t.Fatalf("the line %q: %v", line, err)
		}
		all = append(all, o)
	}
	return all
}

// output is what a command prints while it runs.
type output struct {
	t  testing.TB
	mu sync.Mutex
	b  bytes.Buffer // guarded by mu
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// wait waits until all of these have been printed n times.
func (o *output) wait(n int, texts ...string) {
	o.t.Helper()
	waitFor(o.t, fmt.Sprintf("%d times %q in the output", n, texts), func() bool {
		for _, text := range texts {
			if strings.Count(o.String(), text) < n {
				return false
			}
		}
		return true
	})
}

// waitFor waits for something that no event tells.
func waitFor(t testing.TB, what string, there func() bool) {
	t.Helper()
	for deadline := time.Now().Add(wait); !there(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited %s for %s", wait, what)
		}
	}
}
