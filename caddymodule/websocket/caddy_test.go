package websocket_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/gorilla/websocket"

	"github.com/caddy-websocket/caddy-websocket/internal/streamtest"
)

// wait bounds how long a test waits for something that is expected.
const wait = 20 * time.Second

// server is Caddy, running in this process: so there is one at a time.
type server struct {
	t     testing.TB
	http  netip.AddrPort // of sites without TLS
	https netip.AddrPort // of sites with TLS, called localhost
	admin string         // a unix socket
	log   *lines
	roots *x509.CertPool

	loaded, reloaded bool
}

// newServer prepares Caddy. It stops when the test ends.
func newServer(t testing.TB) *server {
	t.Helper()
	dir, err := os.MkdirTemp(home, "") //nolint:usetesting // with a test name in it, the path of the socket may be too long
	if err != nil {
		t.Fatal(err)
	}
	s := &server{
		t: t, http: reserve(t, loopback4), https: reserve(t, loopback4),
		admin: filepath.Join(dir, "admin"), log: new(lines),
	}
	logs.set(s.log)
	before := countOurs() // more than none only if another test has failed
	callsAfterClean.Store(0)
	t.Cleanup(func() {
		if err := caddy.Stop(); err != nil {
			t.Errorf("stopping Caddy: %v", err)
		}
		s.waitFor("goroutines of ours to end", func() bool { return countOurs() <= before })
		if t.Failed() {
			t.Logf("Caddy's log:\n%s", s.log)
		}
	})
	return s
}

// start runs Caddy with sites; the test fails if they are refused.
func start(t testing.TB, sites string) *server {
	t.Helper()
	return startWith(t, "", sites)
}

// startWith is start with global options.
func startWith(t testing.TB, globals, sites string) *server {
	t.Helper()
	s := newServer(t)
	s.mustLoad(globals, sites)
	return s
}

// caddyfile returns a whole Caddyfile: HTTP and HTTPS in sites stand for the
// addresses that are reserved. Certificates are made when they are first asked
// for: where Caddy gets them in the background while it starts, it has a data
// race of its own (caddytls.TLS.Start against its onEvent, 2.11.9). At level DEBUG it
// has it with every TLS handshake of a reload.
func (s *server) caddyfile(globals, sites string) string {
	sites = strings.NewReplacer("HTTPS {", fmt.Sprintf("https://localhost:%d {\n\ttls internal {\n\t\ton_demand\n\t}", s.https.Port()), "HTTP", "http://"+s.http.String()).Replace(sites)
	text := fmt.Sprintf(`{
	admin unix/%s
	persist_config off
	storage file_system %s
	auto_https disable_redirects
	default_bind 127.0.0.1
	skip_install_trust
	log {
		output websocket_test
		format json
	}
	%s
}
%s
`, s.admin, filepath.Join(home, "storage"), globals, sites)
	return string(caddyfile.Format([]byte(text)))
}

// load is `caddy reload`, or the start.
func (s *server) load(globals, sites string) error {
	s.t.Helper()
	config, err := adapt(s.t, s.caddyfile(globals, sites))
	if err != nil {
		return err
	}
	return s.loadJSON(config)
}

func (s *server) loadJSON(config []byte) error {
	s.t.Helper()
	s.reloaded = s.loaded
	if err := caddy.Load(config, true); err != nil {
		return err
	}
	s.loaded = true
	if strings.Contains(string(config), fmt.Sprintf(":%d\"", s.https.Port())) {
		s.waitForCertificate()
	}
	return nil
}

func (s *server) mustLoad(globals, sites string) {
	s.t.Helper()
	if err := s.load(globals, sites); err != nil {
		s.t.Fatalf("loading: %v\n%s", err, s.caddyfile(globals, sites))
	}
}

// waitForCertificate waits until TLS handshakes succeed, which is soon after a
// site with an internal certificate has started.
func (s *server) waitForCertificate() {
	s.t.Helper()
	pem, err := os.ReadFile(filepath.Join(home, "storage", "pki", "authorities", "local", "root.crt"))
	if err != nil {
		s.t.Fatal(err)
	}
	s.roots = x509.NewCertPool()
	if !s.roots.AppendCertsFromPEM(pem) {
		s.t.Fatal("root.crt has no certificate")
	}
	s.waitFor("the certificate", func() bool {
		conn, err := tls.Dial("tcp", s.https.String(), s.tls())
		if err != nil {
			return false
		}
		_ = conn.Close()
		return true
	})
}

func (s *server) tls() *tls.Config {
	return &tls.Config{RootCAs: s.roots, ServerName: "localhost", MinVersion: tls.VersionTLS12}
}

// waitFor waits for something that no event tells.
func (s *server) waitFor(what string, there func() bool) {
	s.t.Helper()
	waitFor(s.t, what, there)
}

func waitFor(t testing.TB, what string, there func() bool) {
	t.Helper()
	const pause = 5 * time.Millisecond
	for deadline := time.Now().Add(wait); !there(); time.Sleep(pause) {
		if time.Now().After(deadline) {
			t.Fatalf("waited %s for %s", wait, what)
		}
	}
}

// client is the other side of a WebSocket.
type client struct {
	*websocket.Conn
	t    testing.TB
	resp *http.Response
}

// connection says how to reach Caddy, if not by TCP at the reserved ports.
type connection struct {
	network, address string
	before           string           // is written first
	streams          *streamtest.Conn // the connection to open a stream on
}

// dial connects to "ws:/path" or "wss:/path", with header lines "Name: value".
// The test fails if the handshake is refused.
func (s *server) dial(url string, header ...string) *client {
	s.t.Helper()
	return s.dialBy(connection{}, url, header...)
}

func (s *server) dialBy(by connection, url string, header ...string) *client {
	s.t.Helper()
	conn, resp, err := s.tryDial(by, url, header)
	if err != nil {
		s.t.Fatalf("connecting to %s: %v %s", url, err, body(resp))
	}
	s.t.Cleanup(func() { _ = conn.Close() })
	return &client{conn, s.t, resp}
}

// refused connects like dial, and fails the test unless the handshake is refused
// with this status. It returns the answer and its body.
func (s *server) refused(status int, url string, header ...string) (*http.Response, string) {
	s.t.Helper()
	conn, resp, err := s.tryDial(connection{}, url, header)
	switch {
	case err == nil:
		_ = conn.Close()
		s.t.Fatalf("connecting to %s was not refused, want %d", url, status)
	case resp == nil:
		s.t.Fatalf("connecting to %s: no answer: %v, want %d", url, err, status)
	case resp.StatusCode != status:
		s.t.Fatalf("connecting to %s was refused with %s, want %d", url, resp.Status, status)
	}
	return resp, body(resp)
}

func (s *server) tryDial(by connection, url string, lines []string) (*websocket.Conn, *http.Response, error) {
	scheme, path, _ := strings.Cut(url, ":")
	host := s.http.String()
	if scheme == "wss" {
		host = fmt.Sprintf("localhost:%d", s.https.Port())
	}
	header := http.Header{}
	for _, line := range lines {
		name, value, _ := strings.Cut(line, ": ")
		header.Add(name, value)
	}
	dialer := websocket.Dialer{
		HandshakeTimeout:  wait,
		Subprotocols:      header.Values("Sec-WebSocket-Protocol"),
		NetDialTLSContext: by.open(),
		NetDialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			if by.network != "" {
				network, address = by.network, by.address
			} else if scheme == "wss" {
				address = s.https.String()
			}
			conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
			if err == nil && by.before != "" {
				_, err = conn.Write([]byte(by.before))
			}
			return conn, err
		},
	}
	header.Del("Sec-WebSocket-Protocol")
	if scheme == "wss" {
		dialer.TLSClientConfig = s.tls()
	}
	for deadline := time.Now().Add(wait); ; {
		conn, resp, err := dialer.Dial(scheme+"://"+host+path, header)
		if !s.lost(err) || time.Now().After(deadline) {
			return conn, resp, err
		}
	}
}

// open returns the way to open a stream, or nil if that is not how to connect.
func (by connection) open() func(context.Context, string, string) (net.Conn, error) {
	if by.streams == nil {
		return nil
	}
	return func(context.Context, string, string) (net.Conn, error) { return by.streams.Open(), nil }
}

// lost tells whether a connection was lost to a server that a reload has
// stopped: for a moment after caddy.Load it shares the port with its successor,
// and then closes what it has not read from.
func (s *server) lost(err error) bool {
	return s.reloaded && (errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET))
}

// body returns what there is of a refusal's body.
func body(resp *http.Response) string {
	if resp == nil {
		return ""
	}
	b, _ := io.ReadAll(resp.Body) // gorilla has read it
	return string(b)
}

// send sends a text message.
func (c *client) send(text string) {
	c.t.Helper()
	if err := c.WriteMessage(websocket.TextMessage, []byte(text)); err != nil {
		c.t.Fatalf("sending %.100q: %v", text, err)
	}
}

// want fails the test unless the next message is this.
func (c *client) want(text string) {
	c.t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(wait))
	_, data, err := c.ReadMessage()
	if err != nil {
		c.t.Fatalf("receiving: %v, want %q", err, text)
	}
	if string(data) != text {
		c.t.Fatalf("received %.200q, want %.200q", data, text)
	}
}

// ask sends a message and wants an answer.
func (c *client) ask(text, answer string) {
	c.t.Helper()
	c.send(text)
	c.want(answer)
}

// wantClose fails the test unless a close frame with this code comes next.
func (c *client) wantClose(code int) {
	c.t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(wait))
	_, data, err := c.ReadMessage()
	var closed *websocket.CloseError
	if !errors.As(err, &closed) || closed.Code != code {
		c.t.Fatalf("received %.200q, %v, want close %d", data, err, code)
	}
}

// leave closes the connection as a browser does.
func (c *client) leave(code int, reason string) {
	c.t.Helper()
	if err := c.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(code, reason), time.Now().Add(wait)); err != nil {
		c.t.Fatal(err)
	}
	c.wantClose(code)
}

// answer is what came back for a request.
type answer struct {
	resp *http.Response
	body string
}

// raw sends a request as written, with \n for line ends.
func (s *server) raw(t testing.TB, text string) answer {
	t.Helper()
	conn, err := net.Dial("tcp", s.http.String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(wait))
	if _, err := conn.Write([]byte(strings.ReplaceAll(text, "\n", "\r\n"))); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if s.lost(err) {
		return s.raw(t, text)
	}
	if err != nil {
		t.Fatalf("%v after %q", err, text)
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusSwitchingProtocols {
		return answer{resp: resp}
	}
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{resp, string(b)}
}

// request is raw for the test of s.
func (s *server) request(text string) (*http.Response, string) {
	s.t.Helper()
	a := s.raw(s.t, text)
	return a.resp, a.body
}

// metric returns the value of the first metric of Caddy's whose line begins with
// name and contains all of labels; 0 if there is none.
func (s *server) metric(name string, labels ...string) string {
	s.t.Helper()
	hc := &http.Client{Timeout: wait, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", s.admin)
		},
	}}
	resp, err := hc.Get("http://127.0.0.1/metrics")
	for deadline := time.Now().Add(wait); s.lost(err) && time.Now().Before(deadline); {
		resp, err = hc.Get("http://127.0.0.1/metrics")
	}
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		s.t.Fatalf("metrics: %s %v", resp.Status, err)
	}
next:
	for line := range strings.Lines(string(b)) {
		if !strings.HasPrefix(line, name) {
			continue
		}
		for _, label := range labels {
			if !strings.Contains(line, label) {
				continue next
			}
		}
		return strings.TrimSpace(line[strings.LastIndex(line, " "):])
	}
	return "0"
}

// logs is where Caddy writes its log: the test's that runs.
var logs logWriter

func init() { caddy.RegisterModule(&logs) }

// logWriter is a log output of Caddy's.
type logWriter struct {
	mu      sync.Mutex
	current *lines // guarded by mu
}

func (*logWriter) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "caddy.logging.writers.websocket_test", New: func() caddy.Module { return new(logOutput) }}
}

func (w *logWriter) set(l *lines) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.current = l
}

// logOutput is what a configuration makes of it.
type logOutput struct{}

func (*logOutput) CaddyModule() caddy.ModuleInfo                 { return (*logWriter)(nil).CaddyModule() }
func (*logOutput) UnmarshalCaddyfile(*caddyfile.Dispenser) error { return nil }
func (*logOutput) String() string                                { return "websocket_test" }
func (*logOutput) WriterKey() string                             { return "websocket_test" }
func (o *logOutput) OpenWriter() (io.WriteCloser, error)         { return o, nil }
func (*logOutput) Close() error                                  { return nil }

func (*logOutput) Write(p []byte) (int, error) {
	logs.mu.Lock()
	defer logs.mu.Unlock()
	switch {
	case os.Getenv(childConfig) != "":
		return os.Stderr.Write(p) // for the test that has started this process
	case logs.current == nil:
		return len(p), nil
	}
	return logs.current.Write(p)
}

// lines keeps log lines.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer  // guarded by mu
	more chan struct{} // guarded by mu; made by who waits
}

// Write is called with whole lines.
func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.more != nil {
		close(l.more)
		l.more = nil
	}
	return l.text.Write(p)
}

// String returns all lines.
func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// find returns the entries with this message and these attributes, name and
// value in turn.
func (l *lines) find(msg string, attrs ...any) []map[string]any {
	var found []map[string]any
	for line := range strings.Lines(l.String()) {
		var entry map[string]any
		if json.Unmarshal([]byte(line), &entry) == nil && entry["msg"] == msg && has(entry, attrs) {
			found = append(found, entry)
		}
	}
	return found
}

func has(entry map[string]any, attrs []any) bool {
	for i := 0; i+1 < len(attrs); i += 2 {
		if entry[attrs[i].(string)] != attrs[i+1] {
			return false
		}
	}
	return true
}

// wait waits for the first such entry.
func (l *lines) wait(t testing.TB, msg string, attrs ...any) map[string]any {
	t.Helper()
	timeout := time.NewTimer(wait)
	defer timeout.Stop()
	for {
		l.mu.Lock()
		if l.more == nil {
			l.more = make(chan struct{})
		}
		more := l.more
		l.mu.Unlock()
		if found := l.find(msg, attrs...); len(found) > 0 {
			return found[0]
		}
		select {
		case <-more:
		case <-timeout.C:
			t.Fatalf("waited %s for a log line %q with %v", wait, msg, attrs)
		}
	}
}
