package natsbroker

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"
)

// credentials are of a .creds file.
type credentials struct {
	jwt  string
	pair nkeys.KeyPair
}

// readCredentials reads a .creds file.
func readCredentials(file string) (credentials, error) {
	content, err := os.ReadFile(file) //nolint:gosec // the operator names it
	if err != nil {
		return credentials{}, err
	}
	defer clear(content)
	jwt, err := nkeys.ParseDecoratedJWT(content)
	// What has no decoration is taken for a JWT: a seed alone would go to the server.
	if err != nil || !strings.HasPrefix(jwt, "eyJ") || strings.Count(jwt, ".") != 2 {
		return credentials{}, fmt.Errorf("%q has no user JWT: a .creds file has one and the seed of its key", file)
	}
	pair, err := userKey(file, content)
	return credentials{jwt, pair}, err
}

// readSeed reads a file with the seed of a user's nkey.
func readSeed(file string) (nkeys.KeyPair, error) {
	content, err := os.ReadFile(file) //nolint:gosec // the operator names it
	if err != nil {
		return nil, err
	}
	defer clear(content)
	return userKey(file, content)
}

func userKey(file string, content []byte) (nkeys.KeyPair, error) {
	pair, err := nkeys.ParseDecoratedUserNKey(content)
	if err != nil {
		return nil, fmt.Errorf("%q has no seed of a user's key (SU...): %w", file, err)
	}
	return pair, nil
}

func readCAs(file string) (*x509.CertPool, error) {
	content, err := os.ReadFile(file) //nolint:gosec // the operator names it
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(content) {
		return nil, fmt.Errorf("%q has no certificate in PEM", file)
	}
	return pool, nil
}

// authenticate says who we are. Files are read now.
func (o *Options) authenticate(n *nats.Options) error {
	n.User, n.Password, n.Token = o.User, o.Password, o.Token
	if o.CredentialsFile != "" {
		c, err := readCredentials(o.CredentialsFile)
		if err != nil {
			return fmt.Errorf("the credentials file: %w", err)
		}
		n.UserJWT = func() (string, error) { return c.jwt, nil }
		n.SignatureCB = c.pair.Sign
	}
	if o.NKeySeedFile != "" {
		pair, err := readSeed(o.NKeySeedFile)
		if err != nil {
			return fmt.Errorf("the file of the nkey's seed: %w", err)
		}
		n.SignatureCB = pair.Sign
		if n.Nkey, err = pair.PublicKey(); err != nil {
			return fmt.Errorf("the file of the nkey's seed: %w", err)
		}
	}
	return nil
}

// secure says whom to trust, and shows a certificate. Files are read now.
func (o *Options) secure(n *nats.Options, at server) error {
	n.Secure = o.TLS != TLS{} || strings.HasPrefix(at.url, "tls:") || strings.HasPrefix(at.url, "wss:")
	if !n.Secure && isWebSocket(at.url) {
		return nil // nats.go takes a TLSConfig for a wish there
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: o.TLS.ServerName}
	if config.ServerName == "" {
		config.ServerName = at.name
	}
	if o.TLS.CAFile != "" {
		var err error
		if config.RootCAs, err = readCAs(o.TLS.CAFile); err != nil {
			return fmt.Errorf("the file of TLS authorities: %w", err)
		}
	}
	if o.TLS.CertFile != "" {
		pair, err := tls.LoadX509KeyPair(o.TLS.CertFile, o.TLS.KeyFile)
		if err != nil {
			return fmt.Errorf("the TLS client certificate %q with the key %q: %w", o.TLS.CertFile, o.TLS.KeyFile, err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	n.TLSConfig = config
	return nil
}

// refusals are errors that waiting does not mend.
var refusals = []error{
	nats.ErrAuthorization, nats.ErrAuthExpired, nats.ErrAuthRevoked, nats.ErrAccountAuthExpired,
	nats.ErrTLS, nats.ErrSecureConnWanted, nats.ErrNkeysNotSupported, nats.ErrNoEchoNotSupported,
	nats.ErrNoInfoReceived, errTooSmall,
}

// isRefusal tells whether a server was reached and will say the same next time.
func isRefusal(err error) bool {
	for _, r := range refusals {
		if errors.Is(err, r) {
			return true
		}
	}
	var alert tls.AlertError
	var remote *net.OpError
	return errors.As(err, &alert) || errors.As(err, &remote) && remote.Op == "remote error"
}

// explain adds what an error does not say. With TLS 1.3 a server hears of the client's
// certificate when the client is through already: its alert may be lost as it hangs up.
func explain(err error) error {
	if errors.Is(err, nats.ErrTLS) && strings.Contains(err.Error(), "closed by remote after TLS handshake") {
		return fmt.Errorf("%w: the server may demand a client certificate, or another one", err)
	}
	return err
}

// discovered names a server that another has told of. By its address alone its
// certificate could not be told to be right: it must be for the other's name.
func (s server) discovered(raw string) (server, bool) {
	full, err := parseURL(raw)
	if err != nil {
		return server{}, false
	}
	u, err := url.Parse(full)
	if err != nil {
		return server{}, false
	}
	found := server{url: full}
	if net.ParseIP(u.Hostname()) != nil {
		found.name = s.name
		if own, err := url.Parse(s.url); err == nil && found.name == "" {
			found.name = own.Hostname()
		}
	}
	return found, true
}
