package e2e

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/gorilla/websocket"

	"github.com/caddy-websocket/caddy-websocket/e2e/internal/e2etest"
)

var webhookSecret = "whsec_" + base64.StdEncoding.EncodeToString([]byte("the secret of this test"))

// php is PHP's own server, as the example's README starts it.
type php struct {
	t                  *testing.T
	addr, dir, program string
	cmd                *exec.Cmd
}

func startPHP(t *testing.T) *php {
	t.Helper()
	p := &php{t: t, addr: fmt.Sprintf("127.0.0.1:%d", e2etest.FreePort(t)), dir: t.TempDir(), program: e2etest.Tool(t, "php")}
	p.start()
	t.Cleanup(func() {
		p.stop()
		if t.Failed() {
			text, _ := os.ReadFile(filepath.Join(p.dir, "log"))
			t.Logf("PHP's log:\n%s", text)
		}
	})
	return p
}

func (p *php) start() {
	p.t.Helper()
	log, err := os.OpenFile(filepath.Join(p.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		p.t.Fatal(err)
	}
	defer log.Close()
	p.cmd = exec.Command(p.program, "-S", p.addr, "examples/webhook/chat.php")
	p.cmd.Dir = e2etest.RepoRoot(p.t)
	p.cmd.Env = append(os.Environ(), "WEBHOOK_SECRET="+webhookSecret, "CHAT_STATE="+filepath.Join(p.dir, "state"))
	p.cmd.Stdout, p.cmd.Stderr = log, log
	if err := p.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		conn, err := net.Dial("tcp", p.addr)
		if err == nil {
			conn.Close()
			return
		}
		if time.Now().After(deadline) {
			p.t.Fatalf("PHP does not listen: %v", err)
		}
	}
}

func (p *php) stop() {
	_ = p.cmd.Process.Kill() // an error means that it has ended
	_ = p.cmd.Wait()
}

// chatClient is a visitor without a page.
type chatClient struct {
	t *testing.T
	*websocket.Conn
}

func (c chatClient) says(message string) {
	c.t.Helper()
	if err := c.WriteMessage(websocket.TextMessage, []byte(message)); err != nil {
		c.t.Fatal(err)
	}
}

// hears fails the test unless the next message, pings of the page left out, contains all
// of these. It returns the message.
func (c chatClient) hears(parts ...string) string {
	c.t.Helper()
	got := next(c.Conn)
	for got == `{"type":"ping"}` {
		c.says(`{"type":"pong"}`)
		got = next(c.Conn)
	}
	for _, part := range parts {
		if !strings.Contains(got, part) {
			c.t.Fatalf("received %s, want %s in it", got, part)
		}
	}
	return got
}

func (c chatClient) asks(message string, parts ...string) string {
	c.t.Helper()
	c.says(message)
	return c.hears(parts...)
}

// startPHPChat runs examples/webhook.
func startPHPChat(t *testing.T) (*e2etest.Caddy, string, *php) {
	t.Helper()
	return startPHPChatWith(t, exampleFile(t, "webhook/Caddyfile"))
}

func startPHPChatWith(t *testing.T, caddyfile string) (*e2etest.Caddy, string, *php) {
	t.Helper()
	p := startPHP(t)
	caddy, site := startProgram(t, e2etest.Binary(t), caddyfile, "BACKEND="+p.addr, "WEBHOOK_SECRET="+webhookSecret)
	return caddy, site, p
}

// People keep their PHP and drop the processes that run for ever: what workerman-chat
// does, by a script that ends after each event.
func TestPHPChatTalksToAllAndToOneAndSeesWhoLeaves(t *testing.T) {
	caddy, site, _ := startPHPChat(t)
	dial := func() (ws chatClient) { return chatClient{t, caddy.Dial("wss://"+site+"/chat", nil)} }
	tom := dial()
	tom.asks(`{"type":"login","name":"tom","room":"lobby"}`, `"type":"welcome"`, `"room":"lobby"`, `"name":"tom"`)
	eve := dial()
	for _, bad := range []string{`{"type":"say","text":"before login"}`, "no JSON", "null", `{"type":["login"]}`, `{"type":"login","name":"` + strings.Repeat("x", 33) + `","room":"lobby"}`, `{"type":"login","name":"a\u0007b","room":"lobby"}`} {
		eve.asks(bad, `"type":"error"`)
	}
	welcome := eve.asks(`{"type":"login","name":"eve <b>","room":"lobby"}`, `"type":"welcome"`, `"name":"tom"`, `"name":"eve <b>"`)
	tom.hears(`"type":"login"`, `"name":"eve <b>"`)
	ann := dial()
	ann.asks(`{"type":"login","name":"ann","room":"kitchen"}`, `"type":"welcome"`)

	eve.says(`{"type":"say","text":"日本 <img> \"quoted\""}`)
	eve.hears(`"type":"said"`, `日本 <img> \"quoted\"`)
	tom.hears(`"type":"said"`, `日本 <img> \"quoted\"`)

	_, id, _ := strings.Cut(welcome, `"client":"`)
	id, _, _ = strings.Cut(id, `"`) // eve's own comes first
	tom.says(`{"type":"say","text":"psst","to":"` + id + `"}`)
	tom.hears(`"psst"`, `"to":"`+id+`"`)
	eve.hears(`"psst"`, `"to":"`+id+`"`)
	ann.asks(`{"type":"say","text":"psst","to":"`+id+`"}`, `"type":"error"`, "nobody with this client id")

	// The office loses its line, and Caddy is given another configuration meanwhile.
	eve.Close()
	tom.hears(`"type":"logout"`, `"name":"eve <b>"`)
	if err := caddy.Reload(exampleFile(t, "webhook/Caddyfile") + "\n# changed\n"); err != nil {
		t.Fatal(err)
	}
	tom.asks(`{"type":"say","text":"still here"}`, "still here")
	dial().asks(`{"type":"login","name":"eve","room":"lobby"}`, `"type":"welcome"`, `"name":"tom"`)
	tom.hears(`"type":"login"`, `"name":"eve"`)
}

// A deploy ends PHP for a moment: nobody is disconnected, and what is said meanwhile
// waits for it to come back, for as long as the retries last.
func TestPHPChatOutlivesItsBackend(t *testing.T) {
	config := func(retries int) string {
		example := exampleFile(t, "webhook/Caddyfile")
		changed := strings.Replace(example, "max_concurrent 1", fmt.Sprintf("max_concurrent 1\nretries %d", retries), 1)
		if changed == example {
			t.Fatal("the example has no line max_concurrent 1")
		}
		return changed
	}
	caddy, site, p := startPHPChatWith(t, config(10))
	tom := chatClient{t, caddy.Dial("wss://"+site+"/chat", nil)}
	tom.asks(`{"type":"login","name":"tom","room":"lobby"}`, `"welcome"`)
	p.stop()
	tom.says(`{"type":"say","text":"is anybody there?"}`)
	p.start()
	tom.hears("is anybody there?")

	if err := caddy.Reload(config(0)); err != nil {
		t.Fatal(err)
	}
	p.stop()
	tom.says(`{"type":"say","text":"and now?"}`)
	entry := caddy.WaitLog(func(entry map[string]any) bool { return entry["msg"] == "message was not handled by the backend" })
	if entry["attempts"] != 1.0 || entry["url"] != "http://"+p.addr+"/chat.php" {
		t.Errorf("logged %v", entry)
	}
	p.start()
	tom.asks(`{"type":"say","text":"back again"}`, "back again")
}

// The port of the backend is no way around Caddy.
func TestPHPChatBelievesSignedRequestsOnly(t *testing.T) {
	_, _, p := startPHPChat(t)
	for _, signature := range []string{"", "v1,AAAA", "v1a,AAAA v1,"} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+p.addr+"/chat.php", strings.NewReader(`{"events":[]}`))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Webhook-Id", "msg_1")
		req.Header.Set("Webhook-Timestamp", fmt.Sprint(time.Now().Unix()))
		req.Header.Set("Webhook-Signature", signature)
		res, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != http.StatusUnauthorized {
			t.Errorf("%q is answered with %s, want 401", signature, res.Status)
		}
	}
}

// The page of the chat in Go does not notice who answers.
func TestPHPChatServesThePageOfTheGoChat(t *testing.T) {
	_, site, _ := startPHPChat(t)
	ann := e2etest.Chromium(t)
	enterChat(t, ann, site, "ann")
	bob := tab(t, ann)
	enterChat(t, bob, site, "bob")
	for _, page := range []context.Context{ann, bob} {
		until(t, page, members(2))
	}
	do(t, bob, chromedp.SetValue("#say-input", "hello all"), chromedp.Click("#say-send"))
	until(t, ann, hears("hello all"))
	do(t, bob, chromedp.Click("#leave"))
	until(t, ann, members(1))
	until(t, ann, hears("bob left"))
}

// People copy the code of docs/webhook.md: it must take what is signed, and nothing else.
func TestSignatureCodeOfTheDocsWorks(t *testing.T) {
	page, err := os.ReadFile(filepath.Join(e2etest.RepoRoot(t), "docs", "webhook.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ language, harness string }{
		{"php", "<?php\n%s\n[$body, $id, $time, $signature, $secret] = array_slice($argv, 1);\n" +
			`echo is_signed($body, ['HTTP_WEBHOOK_ID' => $id, 'HTTP_WEBHOOK_TIMESTAMP' => $time, 'HTTP_WEBHOOK_SIGNATURE' => $signature], $secret) ? 'yes' : 'no';`},
		{"js", "%s\nconst [body, id, time, signature, secret] = process.argv.slice(2);\n" +
			`process.stdout.write(isSigned(Buffer.from(body), {'webhook-id': id, 'webhook-timestamp': time, 'webhook-signature': signature}, secret) ? 'yes' : 'no');`},
		{"python", "%s\nimport sys\nbody, id, stamp, signature, secret = sys.argv[1:]\n" +
			`print("yes" if is_signed(body.encode(), {"webhook-id": id, "webhook-timestamp": stamp, "webhook-signature": signature}, secret) else "no", end="")`},
	} {
		t.Run(tt.language, func(t *testing.T) {
			program := e2etest.Tool(t, map[string]string{"php": "php", "js": "node", "python": "python3"}[tt.language])
			_, code, _ := strings.Cut(string(page), "\n```"+tt.language+"\n")
			code, _, found := strings.Cut(code, "\n```\n")
			if !found {
				t.Fatalf("docs/webhook.md has no code in %s", tt.language)
			}
			file := filepath.Join(t.TempDir(), "verify."+map[string]string{"php": "php", "js": "cjs", "python": "py"}[tt.language])
			if err := os.WriteFile(file, fmt.Appendf(nil, tt.harness, code), 0o600); err != nil {
				t.Fatal(err)
			}
			const body, id = `{"events":["日本"]}`, "msg_1"
			sign := func(key, id, time, body string) string {
				mac := hmac.New(sha256.New, []byte(key))
				mac.Write([]byte(id + "." + time + "." + body))
				return "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))
			}
			key, now := "a key of 24 bytes or more", fmt.Sprint(time.Now().Unix())
			old := fmt.Sprint(time.Now().Unix() - 400)
			whsec := "whsec_" + base64.StdEncoding.EncodeToString([]byte(key))
			good := sign(key, id, now, body)
			for name, args := range map[string][]string{
				"yes: signed":             {body, id, now, good, whsec},
				"yes: any text is a key":  {body, id, now, good, key},
				"yes: one of several":     {body, id, now, "v1a,xxxx v1, " + good, whsec},
				"no: nothing":             {body, id, now, "", whsec},
				"no: another body":        {body + " ", id, now, good, whsec},
				"no: another id":          {body, "msg_2", now, good, whsec},
				"no: another key":         {body, id, now, good, "other"},
				"no: no key":              {body, id, now, sign("", id, now, body), ""},
				"no: no key after whsec_": {body, id, now, sign("", id, now, body), "whsec_"},
				"no: old":                 {body, id, old, sign(key, id, old, body), whsec},
				"no: no time":             {body, id, "x", sign(key, id, "x", body), whsec},
			} {
				out, err := exec.Command(program, append([]string{file}, args...)...).CombinedOutput()
				if want, _, _ := strings.Cut(name, ":"); err != nil || string(out) != want {
					t.Errorf("%s: %s (%v)", name, out, err)
				}
			}
		})
	}
}
