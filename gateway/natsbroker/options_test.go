package natsbroker

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nkeys"
)

const secret = "s3cr3t-that-nobody-may-read"

// Nobody has to say anything for a server on the same machine.
func TestZeroOptionsHaveDefaults(t *testing.T) {
	o, err := Options{}.check()
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(o.URLs, []string{DefaultURL}) || o.Prefix != DefaultPrefix || !strings.HasPrefix(o.Name, "caddy-websocket ") {
		t.Errorf("URLs %q, Prefix %q, Name %q", o.URLs, o.Prefix, o.Name)
	}
	if o.ConnectTimeout != DefaultConnectTimeout || o.ReconnectWait != DefaultReconnectWait || o.PingInterval != DefaultPingInterval {
		t.Errorf("ConnectTimeout %s, ReconnectWait %s, PingInterval %s", o.ConnectTimeout, o.ReconnectWait, o.PingInterval)
	}
	if o.SendBuffer != DefaultSendBuffer || o.ReceiveBuffer != DefaultReceiveBuffer || o.Logger == nil {
		t.Errorf("SendBuffer %d, ReceiveBuffer %d, Logger %v", o.SendBuffer, o.ReceiveBuffer, o.Logger)
	}
}

// People write addresses as they are used to.
func TestURLsAreCompleted(t *testing.T) {
	for given, want := range map[string]string{
		"nats.example":           "nats://nats.example:4222",
		" nats.example:4333 ":    "nats://nats.example:4333",
		"nats://nats.example":    "nats://nats.example:4222",
		"nats://nats.example:":   "nats://nats.example:4222",
		"tls://nats.example/":    "tls://nats.example:4222",
		"ws://nats.example":      "ws://nats.example:80",
		"wss://nats.example":     "wss://nats.example:443",
		"nats://[::1]":           "nats://[::1]:4222",
		"nats://192.0.2.1:14222": "nats://192.0.2.1:14222",
	} {
		if got, err := parseURL(given); err != nil || got != want {
			t.Errorf("%q is %q, %v; want %q", given, got, err, want)
		}
	}
}

// Who has made a mistake reads which option it is in and what is allowed, and nobody
// reads a password.
func TestWrongOptionsAreNamed(t *testing.T) {
	dir := t.TempDir()
	file := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	user, account := seed(t, nkeys.CreateUser), seed(t, nkeys.CreateAccount)
	userFile, accountFile := file("user.nk", user), file("account.nk", account)
	text := file("text", "nothing of use\n")
	missing := filepath.Join(dir, "missing")

	for _, tt := range []struct {
		name string
		o    Options
		want []string
	}{
		{"scheme", Options{URLs: []string{"http://nats.example"}}, []string{"URL number 1", `"http"`, "nats, tls, ws and wss"}},
		{"second URL", Options{URLs: []string{"a", "nats://:4222"}}, []string{"URL number 2", "names no host"}},
		{"port", Options{URLs: []string{"nats://a:99999"}}, []string{"URL number 1", "99999", "1 to 65535"}},
		{"no port", Options{URLs: []string{"a:0"}}, []string{"URL number 1", "1 to 65535"}},
		{"no URL", Options{URLs: []string{"nats://a b"}}, []string{"URL number 1", "nats://host:4222"}},
		{"path", Options{URLs: []string{"nats://a/b"}}, []string{"URL number 1", "nothing after host and port"}},
		{"password in a URL", Options{URLs: []string{"nats://caddy:" + secret + "@a"}}, []string{"URL number 1", "user and password"}},
		{"token in a URL that is none", Options{URLs: []string{"nats://" + secret + "@a b:c"}}, []string{"URL number 1", "token"}},
		{"both kinds of URLs", Options{URLs: []string{"a", "ws://a"}}, []string{"the URLs", "ws:// and wss:// cannot stand beside"}},
		{"dots in the prefix", Options{Prefix: "a..b"}, []string{"the prefix", `"a..b"`, "letters, digits, - and _"}},
		{"wildcard as prefix", Options{Prefix: "a.>"}, []string{"the prefix", `"a.>"`}},
		{"long prefix", Options{Prefix: strings.Repeat("a", 129)}, []string{"the prefix", "129 bytes", "128"}},
		{"two ways", Options{User: "caddy", Password: secret, Token: secret}, []string{"User and Token", "only one"}},
		{"three ways", Options{CredentialsFile: text, NKeySeedFile: text, Token: secret}, []string{"CredentialsFile and NKeySeedFile and Token"}},
		{"password alone", Options{Password: secret}, []string{"Password", "without User"}},
		{"missing credentials", Options{CredentialsFile: missing}, []string{"the credentials file", missing}},
		{"credentials that are none", Options{CredentialsFile: text}, []string{"the credentials file", text, "no user JWT"}},
		{"a seed as credentials", Options{CredentialsFile: userFile}, []string{"the credentials file", userFile, "no user JWT"}},
		{"missing seed", Options{NKeySeedFile: missing}, []string{"the nkey's seed", missing}},
		{"seed that is none", Options{NKeySeedFile: text}, []string{"the nkey's seed", text, "SU..."}},
		{"seed of an account", Options{NKeySeedFile: accountFile}, []string{"the nkey's seed", accountFile, "SU..."}},
		{"missing authority", Options{TLS: TLS{CAFile: missing}}, []string{"TLS authorities", missing}},
		{"authority that is none", Options{TLS: TLS{CAFile: text}}, []string{"TLS authorities", text, "PEM"}},
		{"certificate without its key", Options{TLS: TLS{CertFile: text}}, []string{"TLS.CertFile and TLS.KeyFile"}},
		{"certificate that is none", Options{TLS: TLS{CertFile: text, KeyFile: text}}, []string{"TLS client certificate", text}},
		{"negative time", Options{PingInterval: -time.Second}, []string{"PingInterval", "-1s", "not be negative"}},
		{"small buffer", Options{SendBuffer: 1000}, []string{"SendBuffer", "1000", "65536"}},
		{"negative buffer", Options{ReceiveBuffer: -1}, []string{"ReceiveBuffer", "-1", "65536"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			broker, err := New(tt.o)
			if err == nil {
				broker.Close()
				t.Fatal("nothing is found wrong")
			}
			for _, part := range append(tt.want, "natsbroker: ") {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("%q does not say %q", err, part)
				}
			}
			for _, private := range []string{secret, user, account} {
				if strings.Contains(err.Error(), strings.TrimSpace(private)) {
					t.Errorf("a secret is in %q", err)
				}
			}
		})
	}
}

func seed(t *testing.T, create func() (nkeys.KeyPair, error)) string {
	t.Helper()
	pair, err := create()
	if err != nil {
		t.Fatal(err)
	}
	text, err := pair.Seed()
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// A certificate tells the name of a server, not the address that another server knows it
// by.
func TestDiscoveredServerIsCheckedForItsClustersName(t *testing.T) {
	given := server{url: "tls://nats.example:4222"}
	for raw, want := range map[string]server{
		"tls://192.0.2.7:4222":      {url: "tls://192.0.2.7:4222", name: "nats.example"},
		"tls://two.example:4222":    {url: "tls://two.example:4222"},
		"nats://[2001:db8::1]:4222": {url: "nats://[2001:db8::1]:4222", name: "nats.example"},
	} {
		if got, ok := given.discovered(raw); !ok || got != want {
			t.Errorf("%s is %+v, want %+v", raw, got, want)
		}
	}
	next := server{url: "tls://192.0.2.7:4222", name: "nats.example"}
	if got, _ := next.discovered("tls://192.0.2.8:4222"); got.name != "nats.example" {
		t.Errorf("a server that a discovered one tells of is checked for %q", got.name)
	}
}

// Two gateways whose names become one token would hear each other, and a token with a
// meaning of its own would hear everybody.
func FuzzNamesAreTokensOfTheirOwn(f *testing.F) {
	for _, name := range []string{"default", "*", ">", "a.b", "%2A", "%2a", "ä", " ", "\x00", ""} {
		f.Add(name, name+"x")
		f.Add(name, encodeName(name))
	}
	f.Fuzz(func(t *testing.T, one, two string) {
		token := encodeName(one)
		if strings.ContainsFunc(token, func(r rune) bool { return r != '%' && (r > 127 || !isPlain(byte(r))) }) {
			t.Errorf("the token of %q is %q", one, token)
		}
		if (token == encodeName(two)) != (one == two) {
			t.Errorf("%q and %q are both %q", one, two, token)
		}
	})
}
