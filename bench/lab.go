package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// lab is where a run takes place: the programs that were built, one certificate for all of
// them, and a folder for what they write.
type lab struct {
	ctx       context.Context
	root      string // of the repository
	dir       string
	cert, key string
	tls       *tls.Config // that trusts the certificate; TLS 1.3 only, without sessions

	// fanout is set for workloads that need logic of the benchmark's own.
	fanout bool

	held []int // sockets, which keep ports free
}

func newLab(ctx context.Context, root, dir string) (*lab, error) {
	l := &lab{ctx: ctx, root: root, dir: dir, cert: filepath.Join(dir, "server.pem"), key: filepath.Join(dir, "server.key")}
	if err := l.certify(); err != nil {
		return nil, fmt.Errorf("making a certificate: %w", err)
	}
	return l, nil
}

// build builds the product as xcaddy and `make build` do, and the others in the same way.
func (l *lab) build() error {
	for _, b := range []struct{ module, path, name string }{
		{".", "./cmd/caddy", "caddy"},
		{"bench", "./caddy", "fanout-caddy"},
		{"bench", "./server", "server"},
		{"bench", "./nats", "nats"},
	} {
		cmd := exec.CommandContext(l.ctx, "go", "build", "-trimpath", "-tags", "nobadger,nomysql,nopgx", "-ldflags", "-w -s", "-o", l.binary(b.name), b.path) //nolint:gosec // one of those above
		cmd.Dir = l.source(b.module)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("building %s: %w\n%s", b.path, err, out)
		}
	}
	return nil
}

func (l *lab) binary(name string) string { return filepath.Join(l.dir, name) }

func (l *lab) source(path string) string { return filepath.Join(l.root, path) }

// certify makes one P-256 certificate that signs itself.
func (l *lab) certify() error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		NotBefore:    time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return err
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	trusted, err := x509.ParseCertificate(der)
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	roots.AddCert(trusted)
	l.tls = &tls.Config{RootCAs: roots, ServerName: "localhost", MinVersion: tls.VersionTLS13}
	if err := os.WriteFile(l.cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		return err
	}
	return os.WriteFile(l.key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}), 0o600)
}
