package webhook

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"time"

	"github.com/caddyserver/caddy/v2"
)

// backend sends requests.
type backend struct {
	url     *url.URL
	where   string // the URL as it may be logged
	key     []byte // of signatures; nil if there are none
	header  http.Header
	client  *http.Client
	timeout time.Duration
	retries int
	slots   chan struct{} // one for each request in flight
	log     *slog.Logger
	quota   logQuota
}

// keepIdle is how long an idle connection is kept: less than a backend does (2 s
// for gunicorn; 5 s for Node, Apache, uvicorn), since a message that is written to
// a connection as the other side closes it is lost.
const keepIdle = 1500 * time.Millisecond

func newBackend(w *Webhook, log *slog.Logger) (*backend, error) {
	b := &backend{
		log: log, header: make(http.Header), timeout: time.Duration(w.Timeout), retries: *w.Retries,
		slots: make(chan struct{}, w.MaxConcurrent),
	}
	repl := caddy.NewReplacer()
	resolve := func(what, text string) (string, error) {
		value, err := repl.ReplaceOrErr(text, true, true)
		if err == nil && value == "" {
			err = errors.New("it is empty")
		}
		if err != nil {
			return "", fmt.Errorf("%s: %w", what, err)
		}
		return value, nil
	}
	address, err := resolve("url", w.URL)
	if err != nil {
		return nil, err
	}
	if b.url, err = parseURL(address); err != nil {
		return nil, err
	}
	b.where = (&url.URL{Scheme: b.url.Scheme, Host: b.url.Host, Path: b.url.Path}).String() // a password or a token may be elsewhere
	if w.Secret != "" {
		secret, err := resolve("secret", w.Secret)
		if err != nil {
			return nil, err
		}
		if b.key, err = keyOf(secret); err != nil {
			return nil, err
		}
	}
	for name, values := range w.Headers {
		for _, value := range values {
			if value, err = resolve("header "+name, value); err != nil {
				return nil, err
			}
			b.header.Add(name, value)
		}
	}
	transport, err := newTransport(w)
	if err != nil {
		return nil, err
	}
	b.client = &http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return b, nil
}

func newTransport(w *Webhook) (*http.Transport, error) {
	dialer := new(net.Dialer)
	t := &http.Transport{
		DialContext:         dialer.DialContext,
		MaxIdleConnsPerHost: w.MaxConcurrent,
		IdleConnTimeout:     keepIdle,
		DisableCompression:  true,
		Protocols:           new(http.Protocols),
	}
	t.Protocols.SetHTTP1(true) // HTTP/2 would put everything on one connection
	if w.UnixSocket != "" {
		t.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", w.UnixSocket)
		}
	}
	if w.TLSInsecureSkipVerify || len(w.TLSTrustedCACerts) > 0 {
		t.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: w.TLSInsecureSkipVerify} //nolint:gosec // asked for
	}
	for _, file := range w.TLSTrustedCACerts {
		pem, err := os.ReadFile(file) //nolint:gosec // the operator names it
		if err != nil {
			return nil, fmt.Errorf("tls_trusted_ca_certs: %w", err)
		}
		if t.TLSClientConfig.RootCAs == nil {
			t.TLSClientConfig.RootCAs = x509.NewCertPool()
		}
		if !t.TLSClientConfig.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("tls_trusted_ca_certs: no certificate in %s", file)
		}
	}
	return t, nil
}
