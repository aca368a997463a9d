package natsbroker

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/caddy-websocket/caddy-websocket/e2e/internal/e2etest"
	"github.com/caddy-websocket/caddy-websocket/e2e/internal/natsserver"
	"github.com/caddy-websocket/caddy-websocket/gateway/natsbroker"
)

// natsConfigs returns the server configurations in docs/cluster.md, as they are for
// certificates in dir.
func natsConfigs(t *testing.T, dir string) (configs []*server.Options) {
	t.Helper()
	page, err := os.ReadFile(filepath.Join(e2etest.RepoRoot(t), "docs", "cluster.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile("(?s)```nats\n(.*?)```").FindAllStringSubmatch(string(page), -1) {
		file := filepath.Join(dir, "nats.conf")
		text := strings.ReplaceAll(m[1], "/etc/nats/ca.pem", filepath.Join(dir, "root.pem"))
		text = strings.ReplaceAll(text, "/etc/nats/", dir+"/")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		o, err := server.ProcessConfigFile(file)
		if err != nil {
			t.Fatalf("%v in\n%s", err, text)
		}
		if o.Host != "0.0.0.0" || o.Port != 4222 || o.HTTPHost != "127.0.0.1" {
			t.Errorf("it listens on %s:%d and %s:%d", o.Host, o.Port, o.HTTPHost, o.HTTPPort)
		}
		o.Host, o.Port, o.HTTPPort, o.NoLog, o.NoSigs = "127.0.0.1", server.RANDOM_PORT, 0, true, true
		configs = append(configs, o)
	}
	return configs
}

// What people copy for their NATS servers lets nodes in and joins them, lets in nobody
// without the certificate or the password, and allows nothing but what nodes need.
func TestConfigurationsOfNATSInDocsLetNodesInAndNobodyElse(t *testing.T) {
	t.Setenv("NATS_PASSWORD", secret)
	dir := t.TempDir()
	authority := e2etest.NewAuthority(t)
	authority.WriteRoot(dir)
	authority.WriteFiles(dir, "127.0.0.1")
	configs := natsConfigs(t, dir)
	if len(configs) != 2 || len(configs[0].Routes) != 0 || len(configs[1].Routes) != 3 {
		t.Fatalf("found %d configurations", len(configs))
	}
	good := natsbroker.Options{User: "caddy", Password: secret, TLS: natsbroker.TLS{
		CAFile: filepath.Join(dir, "root.pem"), CertFile: filepath.Join(dir, "server.pem"), KeyFile: filepath.Join(dir, "server.key"),
	}}
	one := natsserver.Start(t, func(o *server.Options) { *o = *configs[0] })
	three := natsserver.StartCluster(t, 3, func(o *server.Options) {
		name, cluster, routes := o.ServerName, configs[1].Cluster, o.Routes
		cluster.Host, cluster.Port = o.Cluster.Host, o.Cluster.Port
		*o = *configs[1].Clone()
		o.ServerName, o.Cluster, o.Routes = name, cluster, routes
	})
	for _, s := range append(three, one) {
		good.URLs = append(good.URLs[:0:0], "tls://"+s.Address())
		serves(t, good)
		stranger, forger := good, good
		stranger.TLS.CertFile, stranger.TLS.KeyFile = "", ""
		forger.Password += "!"
		for _, o := range []natsbroker.Options{stranger, forger} {
			if err := connect(t, open(t, o)); err == nil {
				t.Errorf("%s lets in who has another password, or no certificate", s.Address())
			}
		}
	}
	from, to := good, good
	from.URLs, to.URLs = []string{"tls://" + three[0].Address()}, []string{"tls://" + three[2].Address()}
	attach(t, open(t, from)).hears(attach(t, open(t, to)), "through the cluster")

	refused := make(chan error, 1)
	nc, err := nats.Connect(one.URL(), nats.UserInfo("caddy", secret), nats.RootCAs(good.TLS.CAFile), nats.ClientCert(good.TLS.CertFile, good.TLS.KeyFile),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { refused <- err }))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	if err := nc.Publish("another-prefix.default.all", nil); err != nil {
		t.Fatal(err)
	}
	if err := <-refused; !strings.Contains(strings.ToLower(err.Error()), "permissions violation") {
		t.Errorf("publishing elsewhere: %v", err)
	}
}
