package natsbroker

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nkeys"

	"github.com/caddy-websocket/caddy-websocket/e2e/internal/e2etest"
	"github.com/caddy-websocket/caddy-websocket/e2e/internal/natsserver"
	"github.com/caddy-websocket/caddy-websocket/gateway/gatewaytest"
	"github.com/caddy-websocket/caddy-websocket/gateway/natsbroker"
)

const secret = "s3cr3t-that-nobody-may-read"

// Every way in which a NATS server can be told who we are works; who is refused learns
// at once that it is so, and no secret is told to those who read errors and logs.
func TestServersLetInWhoIsAllowed(t *testing.T) {
	dir := t.TempDir()
	user, stranger := newUser(t), newUser(t)
	userSeed, strangerSeed := seedFile(t, dir, user), seedFile(t, dir, stranger)
	tenant, configure := newOperator(t)
	good, bad := tenant.credentials(t, dir), newUnknownAccount(t).credentials(t, dir)

	for _, tt := range []struct {
		name      string
		configure func(*server.Options)
		right     natsbroker.Options
		wrong     natsbroker.Options
	}{
		{
			"user and password",
			func(o *server.Options) { o.Username, o.Password = "caddy", secret },
			natsbroker.Options{User: "caddy", Password: secret},
			natsbroker.Options{User: "caddy", Password: secret + "!"},
		},
		{
			"token",
			func(o *server.Options) { o.Authorization = secret },
			natsbroker.Options{Token: secret},
			natsbroker.Options{Token: secret + "!"},
		},
		{
			"nkey",
			func(o *server.Options) { o.Nkeys = []*server.NkeyUser{{Nkey: publicKey(t, user)}} },
			natsbroker.Options{NKeySeedFile: userSeed},
			natsbroker.Options{NKeySeedFile: strangerSeed},
		},
		{
			"credentials",
			configure,
			natsbroker.Options{CredentialsFile: good},
			natsbroker.Options{CredentialsFile: bad},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := natsserver.Start(t, tt.configure)
			tt.right.URLs = []string{s.URL()}
			serves(t, tt.right)
			tt.wrong.URLs = tt.right.URLs
			for _, o := range []natsbroker.Options{tt.wrong, {URLs: tt.right.URLs}} {
				var log gatewaytest.Log
				o.Logger = log.Logger()
				err := connect(t, open(t, o))
				if err == nil || !strings.Contains(strings.ToLower(err.Error()), "authorization violation") {
					t.Errorf("Connect: %v, want an authorization violation", err)
				}
				line := log.Wait(t, "connecting to NATS failed")
				for _, text := range []string{fmt.Sprint(err), fmt.Sprint(line.Attrs)} {
					if strings.Contains(text, secret) {
						t.Errorf("a secret is in %q", text)
					}
					if !strings.Contains(text, s.Address()) {
						t.Errorf("%q does not name the server", text)
					}
				}
			}
		})
	}
}

// A password that was wrong on the server, and is put right there, is not the end of the
// broker: nats.go by itself gives up when it is refused twice.
func TestRefusedBrokerGoesOnTrying(t *testing.T) {
	password := secret
	s := natsserver.Start(t, func(o *server.Options) { o.Username, o.Password = "caddy", password })
	broker := open(t, natsbroker.Options{URLs: []string{s.URL()}, User: "caddy", Password: "new"})
	e := attach(t, broker)
	e.awaitDown()
	if err := connect(t, broker); err == nil {
		t.Fatal("Connect returns no error, the password is wrong")
	}
	s.Stop()
	s.Configure(func(o *server.Options) { o.Password = "new" })
	s.Start()
	e.awaitUp()
	// What was refused before is no reason any more.
	if err := connect(t, broker); err != nil {
		t.Error(err)
	}
}

// Companies have their own certificate authority, and servers that ask who is there.
func TestServersWithTLS(t *testing.T) {
	authority, other := e2etest.NewAuthority(t), e2etest.NewAuthority(t)
	dirs := map[string]string{}
	for name, a := range map[string]*e2etest.Authority{"ours": authority, "theirs": other} {
		dir := t.TempDir()
		a.WriteRoot(dir)
		a.WriteFiles(dir, "127.0.0.1", "nats.example")
		dirs[name] = dir
	}
	file := func(whose, name string) string { return filepath.Join(dirs[whose], name) }
	certificate := func(verify bool) func(*server.Options) {
		return func(o *server.Options) {
			config, err := server.GenTLSConfig(&server.TLSConfigOpts{
				CertFile: file("ours", "server.pem"), KeyFile: file("ours", "server.key"),
				CaFile: file("ours", "root.pem"), Verify: verify,
			})
			if err != nil {
				t.Fatal(err)
			}
			o.TLS, o.TLSVerify, o.TLSConfig, o.TLSTimeout = true, verify, config, 10
		}
	}
	plain, one, both := natsserver.Start(t), natsserver.Start(t, certificate(false)), natsserver.Start(t, certificate(true))
	ca, theirs := file("ours", "root.pem"), file("theirs", "root.pem")
	cert, key := file("ours", "server.pem"), file("ours", "server.key")

	for _, tt := range []struct {
		name   string
		server *natsserver.Server
		tls    natsbroker.TLS
		want   string // in the error
	}{
		{"own authority", one, natsbroker.TLS{CAFile: ca}, ""},
		{"name of its certificate", one, natsbroker.TLS{CAFile: ca, ServerName: "nats.example"}, ""},
		{"another name", one, natsbroker.TLS{CAFile: ca, ServerName: "other.example"}, "other.example"},
		{"the system's authorities", one, natsbroker.TLS{}, "certificate"},
		{"another authority", one, natsbroker.TLS{CAFile: theirs}, "certificate"},
		{"client certificate", both, natsbroker.TLS{CAFile: ca, CertFile: cert, KeyFile: key}, ""},
		{"no client certificate", both, natsbroker.TLS{CAFile: ca}, "certificate"},
		{"client certificate of another authority", both, natsbroker.TLS{
			CAFile: ca, CertFile: file("theirs", "server.pem"), KeyFile: file("theirs", "server.key"),
		}, "certificate"},
		{"server without TLS", plain, natsbroker.TLS{CAFile: ca}, "secure connection not available"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, scheme := range []string{"nats", "tls"} {
				o := natsbroker.Options{URLs: []string{scheme + "://" + tt.server.Address()}, TLS: tt.tls}
				if tt.want == "" {
					serves(t, o)
					continue
				}
				if err := connect(t, open(t, o)); err == nil || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("%s: Connect: %v, want an error with %q", scheme, err, tt.want)
				}
			}
		})
	}
}

// Certificates are renewed on disk: the next connection is to use the new ones.
func TestFilesAreReadForEveryConnection(t *testing.T) {
	dir := t.TempDir()
	first, second := newUser(t), newUser(t)
	s := natsserver.Start(t, func(o *server.Options) { o.Nkeys = []*server.NkeyUser{{Nkey: publicKey(t, first)}} })
	file := seedFile(t, dir, first)
	e := attach(t, open(t, natsbroker.Options{URLs: []string{s.URL()}, NKeySeedFile: file}))
	e.awaitUp()
	s.Stop()
	e.awaitDown()
	writeSeed(t, file, second)
	s.Configure(func(o *server.Options) { o.Nkeys = []*server.NkeyUser{{Nkey: publicKey(t, second)}} })
	s.Start()
	e.awaitUp()
}

func newUser(t testing.TB) nkeys.KeyPair {
	t.Helper()
	pair, err := nkeys.CreateUser()
	if err != nil {
		t.Fatal(err)
	}
	return pair
}

func publicKey(t testing.TB, pair nkeys.KeyPair) string {
	t.Helper()
	public, err := pair.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	return public
}

func seedFile(t testing.TB, dir string, pair nkeys.KeyPair) string {
	t.Helper()
	file := filepath.Join(dir, publicKey(t, pair)+".nk")
	writeSeed(t, file, pair)
	return file
}

func writeSeed(t testing.TB, file string, pair nkeys.KeyPair) {
	t.Helper()
	seed, err := pair.Seed()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, append(seed, '\n'), 0o600); err != nil {
		t.Fatal(err)
	}
}

// account is a tenant of an operator's servers.
type account struct{ pair nkeys.KeyPair }

// newOperator makes an operator with one account, and what its servers are told.
func newOperator(t testing.TB) (account, func(*server.Options)) {
	t.Helper()
	operator, err := nkeys.CreateOperator()
	if err != nil {
		t.Fatal(err)
	}
	tenant := newUnknownAccount(t)
	claims := jwt.NewAccountClaims(publicKey(t, tenant.pair))
	token, err := claims.Encode(operator)
	if err != nil {
		t.Fatal(err)
	}
	resolver := new(server.MemAccResolver)
	if err := resolver.Store(publicKey(t, tenant.pair), token); err != nil {
		t.Fatal(err)
	}
	return tenant, func(o *server.Options) {
		o.TrustedKeys = []string{publicKey(t, operator)}
		o.AccountResolver = resolver
	}
}

// newUnknownAccount makes an account that no server knows.
func newUnknownAccount(t testing.TB) account {
	t.Helper()
	pair, err := nkeys.CreateAccount()
	if err != nil {
		t.Fatal(err)
	}
	return account{pair}
}

// credentials writes a .creds file of a user of the account.
func (a account) credentials(t testing.TB, dir string) string {
	t.Helper()
	user := newUser(t)
	token, err := jwt.NewUserClaims(publicKey(t, user)).Encode(a.pair)
	if err != nil {
		t.Fatal(err)
	}
	seed, err := user.Seed()
	if err != nil {
		t.Fatal(err)
	}
	content, err := jwt.FormatUserConfig(token, seed)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, publicKey(t, user)+".creds")
	if err := os.WriteFile(file, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}
