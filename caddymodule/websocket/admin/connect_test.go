package admin_test

import (
	"context"
	"encoding/pem"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
)

// serve is a WebSocket server that lets the test talk, and then cuts the connection.
func serve(t testing.TB, talk func(*websocket.Conn, *http.Request)) (url string) {
	t.Helper()
	server := httptest.NewServer(talker(talk))
	t.Cleanup(server.Close)
	return "ws" + strings.TrimPrefix(server.URL, "http")
}

func talker(talk func(*websocket.Conn, *http.Request)) http.Handler {
	upgrader := websocket.Upgrader{Subprotocols: []string{"chat.v2", "chat.v1"}, CheckOrigin: func(*http.Request) bool { return true }}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, err := upgrader.Upgrade(w, r, nil)
		if err != nil {
			return
		}
		defer conn.Close()
		_ = conn.SetReadDeadline(time.Now().Add(wait))
		talk(conn, r)
	})
}

// echo answers until the client closes.
func echo(conn *websocket.Conn, _ *http.Request) {
	for {
		kind, data, err := conn.ReadMessage()
		if err != nil || conn.WriteMessage(kind, data) != nil {
			return
		}
	}
}

// closeWith closes, and waits for the answer.
func closeWith(conn *websocket.Conn, code int, reason string) {
	_ = conn.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(code, reason), time.Now().Add(wait))
	for {
		if _, _, err := conn.ReadMessage(); err != nil {
			return
		}
	}
}

// In a script, what goes in comes out, line by line, and the end of the input is the
// end.
func TestConnectSendsLinesAndPrintsMessages(t *testing.T) {
	url := serve(t, echo)
	for _, tt := range []struct {
		args, stdin, want string
	}{
		{"", "tom\n", "tom\n"},
		{"", "two\r\n\nlines", "two\n\nlines\n"},
		{"", "", ""},
		{"", "tab\there \x1b[2J\n", `tab\there \x1b[2J` + "\n"},
		{"", strings.Repeat("x", 3<<20) + "\n", strings.Repeat("x", 3<<20) + "\n"},
		{"--raw", "tab\there \x1b[2J\n", "tab\there \x1b[2J\n"},
		{"--json", "a \"b\" \u009b\n", `{"type":"text","data":"a \"b\" \u009b"}` + "\n"},
		{"--binary", "\xffabc\n", "binary, 4 bytes\n00000000  ff 61 62 63                                       |.abc|\n"},
		{"--binary --raw", "\xffabc\ndef\n", "\xffabcdef"},
		{"--binary --json", "\xffabc\n", `{"type":"binary","data":"/2FiYw=="}` + "\n"},
	} {
		got := runCommand(t, tt.stdin, append([]string{"connect", url}, strings.Fields(tt.args)...)...)
		if got.code != 0 || got.out != tt.want || got.errs != "closed: 1000\n" {
			t.Errorf("connect %s after %.100q: exit code %d, %.200q, %q; want %.200q", tt.args, tt.stdin, got.code, got.out, got.errs, tt.want)
		}
	}
	if got := runCommand(t, "fine\n\xff\nmore\n", "connect", url); got.code != 1 || got.out != "fine\n" || !strings.Contains(got.errs, "--binary") {
		t.Errorf("text that is not UTF-8: %s", got)
	}
}

// A script asks by the exit code whether the server was content; a person reads the
// code and the reason.
func TestConnectShowsHowTheServerClosed(t *testing.T) {
	for _, tt := range []struct {
		code   int
		reason string
		want   string
		exit   int
	}{
		{1000, "", "closed: 1000\n", 0},
		{1000, "bye", "closed: 1000 \"bye\"\n", 0},
		{websocket.CloseNoStatusReceived, "", "closed: without a code\n", 0},
		{1001, "server is shutting down", "closed by the server: 1001 \"server is shutting down\"\n", 1},
		{1009, "too big", "closed by the server: 1009 \"too big\"\n", 1},
		{1011, "logic failed", "closed by the server: 1011 \"logic failed\"\n", 1},
		{4001, "\x1b[2J", "closed by the server: 4001 \"\\x1b[2J\"\n", 1},
	} {
		url := serve(t, func(conn *websocket.Conn, _ *http.Request) { closeWith(conn, tt.code, tt.reason) })
		stdin, hold := io.Pipe() // a terminal: no end of the input
		defer hold.Close()
		errs := &output{t: t}
		if exit := command(t.Context(), stdin, io.Discard, errs, "connect", url); exit != tt.exit || !strings.HasSuffix(errs.String(), tt.want) {
			t.Errorf("after %d %q: exit code %d, %q; want %d, %q", tt.code, tt.reason, exit, errs, tt.exit, tt.want)
		}
	}
	url := serve(t, func(conn *websocket.Conn, _ *http.Request) {
		_ = conn.WriteMessage(websocket.TextMessage, []byte("last words"))
	})
	stdin, hold := io.Pipe()
	defer hold.Close()
	out, errs := &output{t: t}, &output{t: t}
	if exit := command(t.Context(), stdin, out, errs, "connect", url); exit != 1 || out.String() != "last words\n" || !strings.Contains(errs.String(), "lost, without a close frame") {
		t.Errorf("a lost connection: exit code %d, %q, %q", exit, out, errs)
	}
}

// The close that ends a script's input must not hide that the server refused what was
// sent.
func TestConnectReportsACloseThatCrossedItsOwn(t *testing.T) {
	url := serve(t, func(conn *websocket.Conn, _ *http.Request) {
		if _, _, err := conn.ReadMessage(); err != nil {
			t.Error(err)
		}
		closeWith(conn, 1009, "too big")
	})
	if got := runCommand(t, "large\n", "connect", url); got.code != 1 || !strings.Contains(got.errs, `1009 "too big"`) {
		t.Error(got)
	}
}

// Answers that take their time need somebody who waits.
func TestConnectWaitsForAnswersAfterTheInput(t *testing.T) {
	url := serve(t, func(conn *websocket.Conn, _ *http.Request) {
		_, data, _ := conn.ReadMessage()
		time.Sleep(300 * time.Millisecond) // with no --wait the command would be gone by now
		_ = conn.WriteMessage(websocket.TextMessage, data)
		closeWith(conn, 1000, "")
	})
	if got := runCommand(t, "slow\n", "connect", url, "--wait", "1m"); got.code != 0 || got.out != "slow\n" {
		t.Error(got)
	}
	begun := time.Now()
	if got := runCommand(t, "a\n", "connect", serve(t, echo), "--wait", "200ms"); got.code != 0 || got.out != "a\n" || time.Since(begun) < 200*time.Millisecond {
		t.Errorf("after %s: %s", time.Since(begun), got)
	}
}

// Ctrl-C is how most people leave; the server should see them go.
func TestConnectClosesWhenInterrupted(t *testing.T) {
	seen := make(chan error, 1)
	url := serve(t, func(conn *websocket.Conn, _ *http.Request) {
		_ = conn.WriteMessage(websocket.TextMessage, []byte("welcome"))
		_, _, err := conn.ReadMessage()
		seen <- err
	})
	stdin, hold := io.Pipe()
	defer hold.Close()
	ctx, interrupt := context.WithCancel(t.Context())
	out, errs := &output{t: t}, &output{t: t}
	ended := make(chan int, 1)
	go func() { ended <- command(ctx, stdin, out, errs, "connect", url) }()
	out.wait(1, "welcome\n")
	interrupt()
	if code := <-ended; code != 0 {
		t.Errorf("exit code %d: %s", code, errs)
	}
	if err := <-seen; !websocket.IsCloseError(err, 1000) {
		t.Errorf("the server saw %v, want a close with 1000", err)
	}
}

// The handshake is what is tried out most often: every line of it can be set.
func TestConnectSendsTheHandshakeThatIsAskedFor(t *testing.T) {
	got := make(chan *http.Request, 1)
	url := serve(t, func(conn *websocket.Conn, r *http.Request) {
		got <- r
		closeWith(conn, 1000, "")
	})
	result := runCommand(t, "", "connect", "http"+strings.TrimPrefix(url, "ws")+"/chat?a=b#top", "-v", "--origin", "https://example.com",
		"--subprotocol", "chat.v1", "--subprotocol", "chat.v2", "-H", "Authorization: Bearer abc", "-H", "X-A:1", "-H", "X-A: 2", "-H", "Host: chat.example.com", "--wait", "1m")
	if result.code != 0 || !strings.Contains(result.errs, "no TLS, subprotocol chat.v") {
		t.Fatal(result)
	}
	r := <-got
	for name, want := range map[string][]string{
		"Origin": {"https://example.com"}, "Authorization": {"Bearer abc"}, "X-A": {"1", "2"}, "Sec-Websocket-Protocol": {"chat.v1, chat.v2"},
	} {
		if !slices.Equal(r.Header.Values(name), want) {
			t.Errorf("%s is %q, want %q", name, r.Header.Values(name), want)
		}
	}
	if r.RequestURI != "/chat?a=b" || r.Host != "chat.example.com" {
		t.Errorf("asked for %q of %q", r.RequestURI, r.Host)
	}
}

// A refusal without its reason costs an afternoon.
func TestConnectShowsRefusals(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/login":
			w.Header().Set("Location", "https://login.example.com/")
			w.WriteHeader(http.StatusFound)
		case "/full":
			w.Header().Set("Retry-After", "5")
			http.Error(w, "", http.StatusServiceUnavailable)
		case "/slow":
			<-r.Context().Done()
		default:
			http.Error(w, "origin \x1b[2J is not allowed", http.StatusForbidden)
		}
	}))
	defer server.Close()
	for path, want := range map[string]string{
		"/":      `refused the handshake: 403 Forbidden: origin \x1b[2J is not allowed`,
		"/full":  "refused the handshake: 503 Service Unavailable (Retry-After: 5): it sent no reason, its log may have one\n",
		"/login": "refused the handshake: 302 Found (Location: https://login.example.com/)\n",
		"/slow":  "timeout",
	} {
		if got := runCommand(t, "", "connect", server.URL+path, "--timeout", "500ms"); got.code != 1 || !strings.Contains(got.errs, want) {
			t.Errorf("connect %s: %s, want %s", path, got, want)
		}
	}
	server.Close()
	if got := runCommand(t, "", "connect", server.URL); got.code != 1 || !strings.Contains(got.errs, "connection refused") {
		t.Errorf("with no server: %s", got)
	}
}

// Certificates of one's own are what connect is tried with first.
func TestConnectChecksCertificates(t *testing.T) {
	server := httptest.NewTLSServer(talker(echo))
	defer server.Close()
	dir := t.TempDir()
	ca, empty := filepath.Join(dir, "ca.pem"), filepath.Join(dir, "empty.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(empty, []byte("no certificate"), 0o600); err != nil {
		t.Fatal(err)
	}
	for args, want := range map[string]string{
		"":                     "--ca, or accept any with --insecure",
		"--insecure":           "",
		"--ca " + ca:           "",
		"--ca " + empty:        "has no certificate in PEM",
		"--ca " + ca + ".none": "no such file",
	} {
		got := runCommand(t, "hello\n", append([]string{"connect", server.URL}, strings.Fields(args)...)...)
		if ok := got.code == 0 && got.out == "hello\n"; ok != (want == "") || !strings.Contains(got.errs, want) {
			t.Errorf("connect %s: %s", args, got)
		}
	}
	if got := runCommand(t, "", "connect", server.URL, "--insecure", "-v"); !strings.Contains(got.errs, "TLS 1.3") {
		t.Errorf("with -v: %s", got)
	}
}

// Who looks for a network that cuts quiet connections wants to see the pings.
func TestConnectShowsPingsWhenVerbose(t *testing.T) {
	for _, verbose := range []bool{false, true} {
		url := serve(t, func(conn *websocket.Conn, _ *http.Request) {
			pings, answer := 0, conn.PingHandler()
			conn.SetPingHandler(func(data string) error {
				if pings++; pings == 2 { // the first has been answered
					return conn.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(1000, ""), time.Now().Add(wait))
				}
				return answer(data)
			})
			_ = conn.WriteControl(websocket.PingMessage, nil, time.Now().Add(wait))
			_, _, _ = conn.ReadMessage()
		})
		args := []string{"connect", url, "--ping", "20ms", "--wait", "1m"}
		if verbose {
			args = append(args, "-v")
		}
		got := runCommand(t, "", args...)
		for _, want := range []string{"ping from the server, answered\n", "pong after "} {
			if strings.Contains(got.errs, want) != verbose {
				t.Errorf("-v %t: %s", verbose, got)
			}
		}
	}
}
