package nats

import (
	"bytes"
	"encoding/json"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	_ "github.com/caddyserver/caddy/v2/modules/filestorage"
	_ "github.com/caddyserver/caddy/v2/modules/logging"

	"github.com/caddy-websocket/caddy-websocket/gateway/gatewaytest"
)

// TestMain fails if a test left a goroutine of ours behind.
func TestMain(m *testing.M) { gatewaytest.Main(m, "caddy-websocket/") }

// configured returns a provisioned module: url and block of its line in a Caddyfile.
func configured(line string) (*NATS, error) {
	n := new(NATS)
	if err := n.UnmarshalCaddyfile(caddyfile.NewTestDispenser("nats " + line)); err != nil {
		return nil, err
	}
	return n, n.Provision(caddy.Context{})
}

func mustConfigure(t *testing.T, line string) *NATS {
	t.Helper()
	n, err := configured(line)
	if err != nil {
		t.Fatalf("%s: %v", line, err)
	}
	return n
}

// secretFile returns the path of a file with this content.
func secretFile(t *testing.T, content string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// A secret that is in no file of the configuration must arrive, and one that was
// forgotten must not become a connection as nobody.
func TestSecretsAreResolved(t *testing.T) {
	t.Setenv("NATS_TEST_PASSWORD", "from the environment")
	t.Setenv("NATS_TEST_EMPTY", "")
	n := mustConfigure(t, "nats://127.0.0.1 {\n user caddy {env.NATS_TEST_PASSWORD}\n name {$X:node}-{file."+secretFile(t, "one\n")+"}\n}")
	if o := n.options; o.User != "caddy" || o.Password != "from the environment" || !strings.HasSuffix(o.Name, "-one") {
		t.Errorf("resolved %q, %q, %q", o.User, o.Password, o.Name)
	}
	for _, tt := range []struct{ line, err string }{
		{"127.0.0.1 {\n token {env.NATS_TEST_EMPTY}\n}", "token: "},
		{"127.0.0.1 {\n user caddy {env.NATS_TEST_EMPTY}\n}", "password: "},
		{"127.0.0.1 {\n user {env.NATS_TEST_UNSET} x\n}", "user: "},
		{"127.0.0.1 {\n token {file." + secretFile(t, "") + "}\n}", "token: "},
		{"{env.NATS_TEST_EMPTY}", "url: "},
		{"127.0.0.1 {\n token {no.such.placeholder}\n}", "token: "},
	} {
		if _, err := configured(tt.line); err == nil || !strings.Contains(err.Error(), tt.err) {
			t.Errorf("%s: %v, want an error with %q", tt.line, err, tt.err)
		}
	}
}

// What comes from the environment or from a JSON file is looked at as closely as what
// stands in a Caddyfile, and no error shows a password.
func TestBadOptionsAreRefused(t *testing.T) {
	t.Setenv("NATS_TEST_URL", "nats://caddy:secret@127.0.0.1")
	for _, tt := range []struct{ config, err string }{
		{`{"urls": [""]}`, "a url is empty"},
		{`{"urls": ["http://127.0.0.1"]}`, "allowed are nats, tls, ws and wss"},
		{`{"urls": ["{env.NATS_TEST_URL}"]}`, "user information is not allowed in a URL"},
		{`{"urls": ["127.0.0.1", "127.0.0.1:99999"]}`, "URL number 2: "},
		{`{"prefix": "a b"}`, "the prefix \"a b\": allowed are ASCII letters"},
		{`{"connect_timeout": "-1s"}`, "connect_timeout -1s: allowed are positive durations"},
		{`{"reconnect_wait": -1}`, "reconnect_wait -1ns: allowed are positive durations"},
		{`{"required": "61s"}`, "required 1m1s: allowed is at most 1m0s"},
		{`{"send_buffer": 65535}`, "send_buffer 65535: allowed are sizes of 65536 bytes and more"},
		{`{"receive_buffer": -1}`, "receive_buffer -1: allowed are sizes of 65536 bytes and more"},
		{`{"token": "x", "credentials_file": "y"}`, "credentials_file and token are given: allowed is one way to authenticate"},
		{`{"password": "secret"}`, "password is given without user"},
		{`{"tls_client_key": "x"}`, "tls_client: certificate and key are given together"},
		{`{"tls_ca": "/no/such/file"}`, "TLS authorities: open /no/such/file"},
		{`{"tls_client_certificate": "/no/such/cert", "tls_client_key": "/no/such/key"}`, "TLS client certificate \"/no/such/cert\" with the key \"/no/such/key\""},
		{`{"credentials_file": "/no/such/file"}`, "credentials file: open /no/such/file"},
		{`{"nkey_seed_file": "/no/such/file"}`, "nkey's seed: open /no/such/file"},
	} {
		n := new(NATS)
		if err := caddy.StrictUnmarshalJSON([]byte(tt.config), n); err != nil {
			t.Fatal(err)
		}
		err := n.Provision(caddy.Context{})
		if err == nil || !strings.Contains(err.Error(), tt.err) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v, want an error with %q", tt.config, err, tt.err)
			continue
		}
		// Who writes a Caddyfile does not know the fields of the Go package.
		for _, name := range []string{"URLs:", "Prefix", "File", "User", "Password", "Token", "TLS."} {
			if strings.Contains(err.Error(), name) {
				t.Errorf("%s: %v has %q, which is in no Caddyfile", tt.config, err, name)
			}
		}
	}
}

// Configurations with one key share a connection: it must tell apart all that a
// connection depends on, nothing else, and never be a secret itself.
func TestKeyIsThatOfTheConnection(t *testing.T) {
	t.Setenv("NATS_TEST_TOKEN", "secret")
	t.Setenv("NATS_TEST_OTHER", "another")
	const base = "nats://127.0.0.1 {\n token {env.NATS_TEST_TOKEN}\n"
	key := mustConfigure(t, base+"}").BrokerKey()
	for _, same := range []string{base + "}", base + "required\n}", "nats://127.0.0.1 {\n token secret\n}"} {
		if mustConfigure(t, same).BrokerKey() != key {
			t.Errorf("%s has another key", same)
		}
	}
	keys := map[string]string{key: base}
	for _, other := range []string{
		"nats://127.0.0.2 {\n token {env.NATS_TEST_TOKEN}\n}", "nats://127.0.0.1 {\n token {env.NATS_TEST_OTHER}\n}",
		"nats://127.0.0.1", "nats://127.0.0.1 {\n user secret x\n}", "nats://127.0.0.1 {\n user secret y\n}",
		base + "name x\n}", base + "prefix x\n}", base + "tls_server_name x\n}", base + "connect_timeout 1s\n}",
		base + "reconnect_wait 2s\n}", base + "ping_interval 1s\n}", base + "send_buffer 1MiB\n}", base + "receive_buffer 1MiB\n}",
	} {
		key := mustConfigure(t, other).BrokerKey()
		if twin, ok := keys[key]; ok {
			t.Errorf("%s and %s have the same key", twin, other)
		}
		keys[key] = other
		if strings.Contains(key, "secret") {
			t.Errorf("the key %q has the secret", key)
		}
	}
}

// `caddy validate` runs where no server is, or next to one that is not its business.
func TestNothingIsDialledBeforeABrokerIsUsed(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var dialled atomic.Int32
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			dialled.Add(1)
			_ = conn.Close()
		}
	}()
	n := mustConfigure(t, l.Addr().String())
	b, err := n.NewBroker()
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Ready(t.Context(), b, []string{"default"}); err != nil {
		t.Errorf("not required, and waited for: %v", err)
	}
	if err := b.(io.Closer).Close(); err != nil {
		t.Error(err)
	}
	if _, err := b.Attach("default", "node", nil); err == nil {
		t.Error("a closed broker takes a gateway")
	}
	_ = l.Close()
	<-ended
	if n := dialled.Load(); n > 0 {
		t.Errorf("the server was dialled %d times", n)
	}
}

// A node that must not serve alone says why it does not start, in the time that it was
// given.
func TestRequiredBrokerIsWaitedForNoLongerThanAllowed(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() // takes connections in, and says nothing
	n := mustConfigure(t, l.Addr().String()+" {\n required 200ms\n}")
	b, err := n.NewBroker()
	if err != nil {
		t.Fatal(err)
	}
	defer b.(io.Closer).Close()
	start := time.Now()
	err = n.Ready(t.Context(), b, []string{"default"})
	if err == nil || !strings.Contains(err.Error(), "required, and not connected within 200ms: ") {
		t.Errorf("it is ready: %v", err)
	}
	if took := time.Since(start); took > 10*time.Second {
		t.Errorf("it took %s", took)
	}
}

// A connection outlives the configuration that made it: what it has to say goes to the log
// of the one that is in force then.
func TestLinesGoToTheLogOfTheConfigurationInForce(t *testing.T) {
	dir := t.TempDir()
	run := func(file string) {
		t.Helper()
		var config caddy.Config
		text := `{"admin": {"disabled": true, "config": {"persist": false}}, "logging": {"logs": {"default": {
			"writer": {"output": "file", "filename": "` + filepath.Join(dir, file) + `", "mode": "0600"}, "encoder": {"format": "json"}}}}}`
		if err := caddy.StrictUnmarshalJSON([]byte(text), &config); err != nil {
			t.Fatal(err)
		}
		if err := caddy.Run(&config); err != nil {
			t.Fatal(err)
		}
	}
	lines := func(file string) string {
		t.Helper()
		text, err := os.ReadFile(filepath.Join(dir, file))
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	defer func() {
		if err := caddy.Stop(); err != nil {
			t.Error(err)
		}
	}()
	log := currentLogger().With("server", "one").WithGroup("more")
	run("first")
	log.Info("said first", "n", 1)
	run("second")
	log.Info("said second", "n", 2)
	log.Debug("not said")
	const said = `"logger":"websocket.brokers.nats","msg":"said second","server":"one","more":{"n":2}}`
	if second := lines("second"); !strings.Contains(second, said) || strings.Contains(second, "said first") || strings.Contains(second, "not said") {
		t.Errorf("the second log has\n%s\nwant %s", second, said)
	}
	if first := lines("first"); !strings.Contains(first, `"msg":"said first"`) || strings.Contains(first, "said second") {
		t.Errorf("the first log has\n%s", first)
	}
}

// Whatever stands in the block, it becomes options that survive the way through JSON, or
// an error that has file and line.
func FuzzOptions(f *testing.F) {
	for _, seed := range []string{
		"", "token x", "user a b\nname c", "tls_ca a\ntls_client b c\ntls_server_name d", "prefix a.b-c_d", "prefix a..b",
		"connect_timeout 2s\nreconnect_wait 1d\nping_interval 5s", "send_buffer 64KiB\nreceive_buffer 1TB", "required", "required 1m",
		"token {env.X}\nrequired", "token x\ntoken y", "token x {\n}", "}", "credentials_file a\nnkey_seed_file b", "nkey_seed_file \"\"",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, block string) {
		tokens, err := caddyfile.Tokenize([]byte("nats nats://127.0.0.1 {\n"+block+"\n}"), "Caddyfile")
		if err != nil || len(tokens) == 0 {
			return // Caddy's own parser refuses it
		}
		n := new(NATS)
		if err := n.UnmarshalCaddyfile(caddyfile.NewDispenser(tokens)); err != nil {
			if !strings.Contains(err.Error(), "Caddyfile:") {
				t.Errorf("the error has no line: %v", err)
			}
			return
		}
		config, err := json.Marshal(n) //nolint:gosec // made up
		if err != nil {
			t.Fatal(err)
		}
		back := new(NATS)
		if err := caddy.StrictUnmarshalJSON(config, back); err != nil {
			t.Fatalf("%v in %s", err, config)
		}
		if err := back.check(); err != nil {
			t.Errorf("%s is refused as JSON: %v", config, err)
		}
		again, err := json.Marshal(back) //nolint:gosec // made up
		if err != nil || !bytes.Equal(again, config) {
			t.Errorf("%s became %s (%v)", config, again, err)
		}
	})
}
