package nats

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-websocket/caddy-websocket/gateway/natsbroker"
)

// maxRequired bounds Required: Caddy can do nothing else meanwhile.
const maxRequired = time.Minute

// check tells whether the options could be used, as far as that is known before
// placeholders are resolved, and without a look at files.
func (n *NATS) check() error {
	for _, d := range []struct {
		name  string
		value caddy.Duration
	}{
		{"connect_timeout", n.ConnectTimeout},
		{"reconnect_wait", n.ReconnectWait},
		{"ping_interval", n.PingInterval},
		{"required", n.Required},
	} {
		if d.value < 0 {
			return fmt.Errorf("%s %s: allowed are positive durations", d.name, time.Duration(d.value))
		}
	}
	if n.Required > caddy.Duration(maxRequired) {
		return fmt.Errorf("required %s: allowed is at most %s", time.Duration(n.Required), maxRequired)
	}
	for _, b := range []struct {
		name  string
		value int64
	}{{"send_buffer", n.SendBuffer}, {"receive_buffer", n.ReceiveBuffer}} {
		if b.value != 0 && b.value < natsbroker.MinBuffer {
			return fmt.Errorf("%s %d: allowed are sizes of %d bytes and more", b.name, b.value, natsbroker.MinBuffer)
		}
	}
	if err := n.checkAuthentication(); err != nil {
		return err
	}
	o := natsbroker.Options{URLs: make([]string, 0, len(n.URLs))}
	for _, u := range n.URLs {
		if u == "" {
			return errors.New("a url is empty")
		}
		if !hasPlaceholder(u) {
			o.URLs = append(o.URLs, u)
		}
	}
	if !hasPlaceholder(n.Prefix) {
		o.Prefix = n.Prefix
	}
	return o.Check()
}

func (n *NATS) checkAuthentication() error {
	var given []string
	for _, way := range []struct{ name, value string }{
		{"credentials_file", n.CredentialsFile}, {"nkey_seed_file", n.NKeySeedFile}, {"user", n.User}, {"token", n.Token},
	} {
		if way.value != "" {
			given = append(given, way.name)
		}
	}
	if len(given) > 1 {
		return fmt.Errorf("%s are given: allowed is one way to authenticate", strings.Join(given, " and "))
	}
	if n.Password != "" && n.User == "" {
		return errors.New("password is given without user")
	}
	if (n.TLSClientCertificate == "") != (n.TLSClientKey == "") {
		return errors.New("tls_client: certificate and key are given together")
	}
	return nil
}

func hasPlaceholder(text string) bool { return strings.Contains(text, "{") }

// resolve returns the options with placeholders resolved.
func (n *NATS) resolve() (natsbroker.Options, error) {
	o := natsbroker.Options{
		ConnectTimeout: time.Duration(n.ConnectTimeout),
		ReconnectWait:  time.Duration(n.ReconnectWait),
		PingInterval:   time.Duration(n.PingInterval),
		SendBuffer:     n.SendBuffer,
		ReceiveBuffer:  n.ReceiveBuffer,
	}
	repl := caddy.NewReplacer()
	resolve := func(what, text string) (string, error) {
		if text == "" {
			return "", nil
		}
		value, err := repl.ReplaceOrErr(text, true, true)
		if err == nil && value == "" {
			err = errors.New("it is empty")
		}
		if err != nil {
			return "", fmt.Errorf("%s: %w", what, err)
		}
		return value, nil
	}
	for _, u := range n.URLs {
		u, err := resolve("url", u)
		if err != nil {
			return o, err
		}
		o.URLs = append(o.URLs, u)
	}
	for _, s := range []struct {
		name, text string
		into       *string
	}{
		{"name", n.Name, &o.Name},
		{"prefix", n.Prefix, &o.Prefix},
		{"credentials_file", n.CredentialsFile, &o.CredentialsFile},
		{"nkey_seed_file", n.NKeySeedFile, &o.NKeySeedFile},
		{"user", n.User, &o.User},
		{"password", n.Password, &o.Password},
		{"token", n.Token, &o.Token},
		{"tls_ca", n.TLSCA, &o.TLS.CAFile},
		{"tls_client: certificate", n.TLSClientCertificate, &o.TLS.CertFile},
		{"tls_client: key", n.TLSClientKey, &o.TLS.KeyFile},
		{"tls_server_name", n.TLSServerName, &o.TLS.ServerName},
	} {
		var err error
		if *s.into, err = resolve(s.name, s.text); err != nil {
			return o, err
		}
	}
	return o, nil
}
