package e2etest

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/letsencrypt/pebble/v2/ca"
	"github.com/letsencrypt/pebble/v2/db"
	"github.com/letsencrypt/pebble/v2/va"
	"github.com/letsencrypt/pebble/v2/wfe"
	"github.com/miekg/dns"
)

// renewalInfoPoll is how often Pebble tells ACME clients to ask again when to renew.
// Its own six hours would outlast any test.
const renewalInfoPoll = "1"

// Pebble is an ACME server: Let's Encrypt's Pebble, in this process. It ends with its
// test; a test that fails shows the end of its log.
type Pebble struct {
	// URL is that of the ACME directory.
	URL string

	// ServerRoot is a PEM file with what an ACME client must trust to talk to Pebble.
	// The certificates that Pebble issues come from another root: Roots.
	ServerRoot string

	t          testing.TB
	issuer     *ca.CAImpl
	management http.Handler
}

// StartPebble runs an ACME server that looks for the answers to its challenges on two
// ports of 127.0.0.1, by plain HTTP on the first and by TLS on the second. There it
// looks for every name: it has a DNS of its own.
func StartPebble(t testing.TB, httpPort, tlsPort int) *Pebble {
	t.Helper()
	// Pebble reads these when it is made. Every certificate is to be the fruit of a
	// challenge, and none to wait for a random time.
	t.Setenv("PEBBLE_VA_NOSLEEP", "1")
	t.Setenv("PEBBLE_VA_ALWAYS_VALID", "0")
	t.Setenv("PEBBLE_AUTHZREUSE", "0")
	t.Setenv("PEBBLE_WFE_NONCEREJECT", "0")
	lines := new(lineLog)
	t.Cleanup(func() {
		if t.Failed() {
			said, _ := lines.since(0)
			t.Logf("pebble's log:\n%s", bytes.Join(said[max(0, len(said)-shownLines):], []byte("\n")))
		}
	})
	logger := log.New(lines, "", log.LstdFlags)

	const intermediates = 1
	store := db.NewMemoryStore()
	issuer := ca.New(logger, store, "", "ecdsa", 0, intermediates, map[string]ca.Profile{"default": {Description: "90 days"}})
	validation := va.New(logger, httpPort, tlsPort, false, serveDNS(t), store)
	const retryAfter = 1 // seconds, for who asks about an order too early
	front := wfe.New(logger, store, validation, issuer, []string{"pebble.test"}, false, false, retryAfter, retryAfter)

	server := httptest.NewTLSServer(askAgainSoon(front.Handler()))
	t.Cleanup(server.Close)
	root := filepath.Join(t.TempDir(), "pebble.pem")
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	if err := os.WriteFile(root, block, 0o600); err != nil {
		t.Fatal(err)
	}
	return &Pebble{
		URL:        server.URL + wfe.DirectoryPath,
		ServerRoot: root,
		t:          t,
		issuer:     issuer,
		management: front.ManagementHandler(),
	}
}

// Roots has the one root that Pebble's certificates descend from.
func (p *Pebble) Roots() *x509.CertPool {
	p.t.Helper()
	root, err := x509.ParseCertificate(p.issuer.GetRootCert(0).DER)
	if err != nil {
		p.t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(root)
	return pool
}

// WantRenewal makes Pebble say, to who asks, that the certificate should have been
// renewed a minute ago (RFC 9773), as an authority does that is about to revoke it.
func (p *Pebble) WantRenewal(cert *x509.Certificate) {
	p.t.Helper()
	now := time.Now().UTC()
	window := fmt.Sprintf(`{"suggestedWindow":{"start":%q,"end":%q}}`,
		now.Add(-2*time.Minute).Format(time.RFC3339), now.Add(-time.Minute).Format(time.RFC3339))
	body, err := json.Marshal(map[string]string{
		"Certificate": string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})),
		"ARIResponse": window,
	})
	if err != nil {
		p.t.Fatal(err)
	}
	req := httptest.NewRequestWithContext(p.t.Context(), http.MethodPost, "/set-renewal-info/", bytes.NewReader(body))
	req.Header.Set("User-Agent", "e2etest") // which RFC 8555, section 6.1, demands
	res := httptest.NewRecorder()
	p.management.ServeHTTP(res, req)
	if res.Code != http.StatusOK {
		p.t.Fatalf("asking pebble for a renewal: %d %s", res.Code, res.Body)
	}
}

// askAgainSoon is how a test need not wait for the next question about a renewal.
func askAgainSoon(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/renewalInfo/") {
			w = &hasty{w}
		}
		next.ServeHTTP(w, r)
	})
}

// hasty is a response writer that says to come back after renewalInfoPoll.
type hasty struct{ http.ResponseWriter }

func (w *hasty) WriteHeader(status int) {
	if w.Header().Get("Retry-After") != "" {
		w.Header().Set("Retry-After", renewalInfoPoll)
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *hasty) Write(p []byte) (int, error) {
	if w.Header().Get("Retry-After") != "" {
		w.Header().Set("Retry-After", renewalInfoPoll)
	}
	return w.ResponseWriter.Write(p)
}

// serveDNS answers that every name is at 127.0.0.1, over TCP, and returns its address.
func serveDNS(t testing.TB) string {
	t.Helper()
	var listen net.ListenConfig
	l, err := listen.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &dns.Server{Listener: l, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, question *dns.Msg) {
		answer := new(dns.Msg)
		answer.SetReply(question)
		for _, q := range question.Question {
			if q.Qtype == dns.TypeA {
				answer.Answer = append(answer.Answer, &dns.A{
					Hdr: dns.RR_Header{Name: q.Name, Rrtype: dns.TypeA, Class: dns.ClassINET},
					A:   net.IPv4(127, 0, 0, 1),
				})
			}
		}
		_ = w.WriteMsg(answer) // who asked is gone if it fails
	})}
	started, ended := make(chan struct{}), make(chan error, 1)
	server.NotifyStartedFunc = func() { close(started) }
	go func() { ended <- server.ActivateAndServe() }()
	select {
	case <-started:
	case err := <-ended:
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
		defer cancel()
		if err := server.ShutdownContext(ctx); err != nil {
			t.Error(err)
		}
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return l.Addr().String()
}
