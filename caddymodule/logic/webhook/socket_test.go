package webhook_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-websocket/caddy-websocket/caddymodule/logic/webhook"
	"github.com/caddy-websocket/caddy-websocket/gateway/gatewaytest"
)

// echo is a backend in Go, as docs/webhook.md describes one: it answers messages with
// "seen".
var echo = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	if _, rest, ok := strings.Cut(string(body), `"client":{"id":"`); ok && strings.Contains(rest, `"message":{`) {
		id, _, _ := strings.Cut(rest, `"`)
		fmt.Fprintf(w, `{"commands":[{"send":{"to":{"clients":[%q]},"text":"seen"}}]}`, id)
	}
})

// ask sends n messages and waits for the answers.
func ask(c *gatewaytest.Client, n int) {
	for range n {
		c.Send("hello")
		c.Want("seen")
	}
}

// A TLS handshake, or even a TCP one, for every message would cost more than the
// script.
func TestConnectionsToTheBackendAreReusedAndGivenUp(t *testing.T) {
	var opened atomic.Int64
	server := httptest.NewUnstartedServer(echo)
	closed := make(chan struct{}, 100)
	server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		switch state {
		case http.StateNew:
			opened.Add(1)
		case http.StateClosed:
			closed <- struct{}{}
		default:
		}
	}
	server.Start()
	t.Cleanup(server.Close)
	w := logicAt(t, server.URL, "events message", nil, nil)
	w.KeepIdle()
	ask(gatewaytest.ServeLogic(t, w).Dial("/test"), 100)
	if n := opened.Load(); n != 1 {
		t.Errorf("%d connections for 100 messages, want 1", n)
	}
	if err := w.Cleanup(); err != nil {
		t.Fatal(err)
	}
	for range opened.Load() {
		select {
		case <-closed:
		case <-time.After(gatewaytest.Wait):
			t.Fatal("a connection is still open")
		}
	}
}

// A redirect to another host would carry the signature and the visitor's cookies there.
func TestRedirectsAreNotFollowed(t *testing.T) {
	for _, status := range []int{301, 302, 303, 307, 308} {
		other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("the redirect was followed") }))
		t.Cleanup(other.Close)
		server := httptest.NewServer(http.RedirectHandler(other.URL, status))
		t.Cleanup(server.Close)
		s := gatewaytest.ServeLogic(t, logicAt(t, server.URL, "", nil, nil))
		s.Refused(http.StatusBadGateway, "/test")
	}
}

// Sockets in the file system need no port and no firewall.
func TestBackendOnAUnixSocket(t *testing.T) {
	dir, err := os.MkdirTemp("", "webhook") //nolint:usetesting // with a test name in it, the path of the socket may be too long
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "s")
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(echo)
	server.Listener.Close()
	server.Listener = listener
	server.Start()
	t.Cleanup(server.Close)
	ask(gatewaytest.ServeLogic(t, logicAt(t, "http://app.test/events", "unix_socket "+path, nil, nil)).Dial("/test"), 3)
}

// A certificate of one's own authority is trusted if one says so, and no other is.
func TestBackendWithACertificate(t *testing.T) {
	server := httptest.NewTLSServer(echo)
	t.Cleanup(server.Close)
	server.Config.ErrorLog = nil
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	gatewaytest.ServeLogic(t, logicAt(t, server.URL, "retries 0\nevents connect", nil, nil)).Refused(http.StatusServiceUnavailable, "/test")
	ask(gatewaytest.ServeLogic(t, logicAt(t, server.URL, "tls_trusted_ca_certs "+file, nil, nil)).Dial("/test"), 2)
	ask(gatewaytest.ServeLogic(t, logicAt(t, server.URL, "tls_insecure_skip_verify", nil, nil)).Dial("/test"), 2)
}

// Whoever reaches the backend could speak for any visitor: the signature says that
// the request is Caddy's and is new.
func TestRequestsAreSigned(t *testing.T) {
	t.Setenv("WEBHOOK_TEST_SECRET", "whsec_"+base64.StdEncoding.EncodeToString([]byte("a key of 24 bytes or more")))
	synctest.Test(t, func(t *testing.T) {
		b := &backend{t: t}
		b.answer = func(*post) (*http.Response, error) {
			if len(b.seen("")) == 1 {
				return say(503, ""), nil
			}
			time.Sleep(2 * time.Second)
			return say(204, ""), nil
		}
		s := serve(t, "secret {env.WEBHOOK_TEST_SECRET}\nheader X-Token \"a b\"\nheader x-token c\nheader Host vhost.test\nheader User-Agent mine", b)
		c := s.Dial("/test")
		c.Send("hello")
		time.Sleep(3 * time.Second)
		c.Cut()
		time.Sleep(3 * time.Second)
		posts := b.seen("")
		if len(posts) != 4 {
			t.Fatalf("%d requests, want connect twice, message and close", len(posts))
		}
		for i, p := range posts {
			timestamp := p.Header.Get("Webhook-Timestamp")
			mac := hmac.New(sha256.New, []byte("a key of 24 bytes or more"))
			fmt.Fprintf(mac, "%s.%s.%s", p.id(), timestamp, p.body)
			if want := "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil)); p.Header.Get("Webhook-Signature") != want {
				t.Errorf("request %d is signed %q, want %q", i, p.Header.Get("Webhook-Signature"), want)
			}
			if sent, err := strconv.ParseInt(timestamp, 10, 64); err != nil || sent > time.Now().Unix() || sent < time.Now().Unix()-10 {
				t.Errorf("request %d is of %s: %v", i, timestamp, err)
			}
			if got := quote(p.Header["X-Token"]); got != `["a b","c"]` && got != `["c","a b"]` || p.Host != "vhost.test" || p.Header.Get("User-Agent") != "mine" {
				t.Errorf("request %d has %v for %s", i, p.Header, p.Host)
			}
		}
	})
}

// Log files are read by more people than the configuration.
func TestNoSecretIsLogged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &backend{t: t, answer: func(p *post) (*http.Response, error) {
			if p.is("connect") {
				if user, password, _ := p.BasicAuth(); user != "tom" || password != "hunter2" {
					t.Errorf("the backend is not told who asks: %v", p.Header)
				}
				return say(204, ""), nil
			}
			return nil, errRefused
		}}
		var log gatewaytest.Log
		w := logicAt(t, "http://tom:hunter2@backend.test/path?token=hunter2", "secret hunter2\nheader X-Token hunter2", log.Logger(), b)
		s := gatewaytest.ServeLogic(t, w)
		c := s.Dial("/test")
		c.Send("hello")
		time.Sleep(5 * time.Second)
		c.Cut()
		time.Sleep(5 * time.Second)
		if found := log.Find(""); len(found) != 2 || strings.Contains(fmt.Sprint(found), "hunter2") || found[0].Attrs["url"] != "http://backend.test/path" {
			t.Errorf("logged %v", found)
		}
	})
	for _, line := range []string{
		"webhook http://tom:hunter2@/x", "webhook http://tom:hunter2@[/x", "webhook ftp://tom:hunter2@x", "webhook \"http://tom:hunter2@x/\x7f\"",
	} {
		if _, err := newLogic(line); err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", line, err)
		}
	}
}

// A mistake in the options must not wait for the first visitor.
func TestOptionsThatAreWrongAreRefused(t *testing.T) {
	t.Setenv("WEBHOOK_TEST_EMPTY", "")
	t.Setenv("WEBHOOK_TEST_URL", "ftp://x")
	t.Setenv("WEBHOOK_TEST_GOOD", "http://127.0.0.1:9000/x")
	block := func(options string) string { return "http://127.0.0.1/ {\n" + options + "\n}" }
	for line, ok := range map[string]bool{
		"http://127.0.0.1:9000": true, "https://tom:x@example.com/a?b=c": true, "{env.WEBHOOK_TEST_GOOD}": true,
		"": false, "a b": false, "127.0.0.1:9000": false, "unix//run/x": false, "http://": false, "http://x#y": false, "/events": false,
		"{env.WEBHOOK_TEST_EMPTY}": false, "{env.WEBHOOK_TEST_URL}": false, "{env.WEBHOOK_TEST_NOT_SET}": false, "{nonsense}": false,

		block("events close"): true, block("events close connect message"): true,
		block("events"): false, block("events open"): false, block("events close close"): false, block("events close\nevents connect"): false,
		block("secret x"): true, block("secret whsec_dG9t"): true,
		block("secret"): false, block(`secret ""`): false, block("secret {env.WEBHOOK_TEST_EMPTY}"): false, block("secret {env.WEBHOOK_TEST_NOT_SET}"): false,
		block("secret {nonsense}"): false, block("secret {http.request.host}"): false, block("secret whsec_!"): false, block("secret whsec_"): false,
		block("timeout 5s"): true, block("timeout 1d"): true,
		block("timeout 0"): false, block("timeout -1s"): false, block("timeout 5"): false, block("timeout"): false, block("timeout 1s 2s"): false,
		block("retries 0"): true, block("retries 10"): true, block("retries 11"): false, block("retries -1"): false, block("retries x"): false,
		block("max_concurrent 1"): true, block("max_concurrent 10000"): true,
		block("max_concurrent 0"): false, block("max_concurrent 10001"): false, block("max_concurrent -1"): false, block("max_concurrent x"): false,
		block("header A b\nheader A c"): true, block("header A {env.WEBHOOK_TEST_GOOD}"): true,
		block("header A"): false, block("header A {env.WEBHOOK_TEST_EMPTY}"): false, block("header a:b c"): false, block("header \"a\nb\" c"): false,
		block("header A \"b\r\nC: d\""): false, block("header Content-Type text/plain"): false, block("header webhook-signature x"): false,
		block("header idempotency-key x"): false,
		block("close_batch 1"):            true, block("close_batch 1000 1m"): true,
		block("close_batch"): false, block("close_batch 0"): false, block("close_batch 1001"): false, block("close_batch 1 0s"): false,
		block("close_batch 1 2m"): false, block("close_batch 1 1s 1s"): false, block("close_batch x"): false,
		block("on_error close"): true, block("on_error ignore"): true, block("on_error retry"): false, block("on_error"): false,
		block("unix_socket /run/x"): true, block("unix_socket"): false, block("unix_socket /a /b"): false,
		block("tls_insecure_skip_verify"): true, block("tls_insecure_skip_verify off"): false,
		block("tls_trusted_ca_certs"): false, block("tls_trusted_ca_certs /does/not/exist"): false, block("tls_trusted_ca_certs socket_test.go"): false,
		block("max_concurrency 5"): false, block("timeout 5s {\n x\n}"): false,
	} {
		w, err := newLogic("webhook " + line)
		if err == nil {
			_ = w.Cleanup()
		}
		if (err == nil) != ok {
			t.Errorf("%q: %v", line, err)
		}
	}
}

// What JSON configurations say is checked like what Caddyfiles say.
func TestJSONThatIsWrongIsRefused(t *testing.T) {
	bad := -1
	for name, w := range map[string]*webhook.Webhook{
		"no url":         {},
		"events":         {URL: "http://x", Events: []string{"open"}},
		"timeout":        {URL: "http://x", Timeout: -1},
		"retries":        {URL: "http://x", Retries: &bad},
		"max_concurrent": {URL: "http://x", MaxConcurrent: -1},
		"close_batch":    {URL: "http://x", CloseBatch: &webhook.CloseBatch{Size: -1}},
		"interval":       {URL: "http://x", CloseBatch: &webhook.CloseBatch{Interval: -1}},
		"on_error":       {URL: "http://x", OnError: "x"},
		"headers":        {URL: "http://x", Headers: map[string][]string{"": {"x"}}},
	} {
		if err := provision(w); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
