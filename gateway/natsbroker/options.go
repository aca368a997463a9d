package natsbroker

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
)

// Defaults of Options.
const (
	DefaultURL            = nats.DefaultURL // nats://127.0.0.1:4222
	DefaultPrefix         = "caddy-websocket"
	DefaultConnectTimeout = 2 * time.Second
	DefaultReconnectWait  = time.Second
	DefaultPingInterval   = 5 * time.Second
	DefaultSendBuffer     = 8 << 20
	DefaultReceiveBuffer  = 16 << 20
)

// MinBuffer is the least that SendBuffer and ReceiveBuffer may be, in bytes.
const MinBuffer = 64 << 10

// Options say which servers, as whom, and how. The zero value is a server on this
// machine that asks for nothing.
//
// At most one way to authenticate may be given: CredentialsFile, NKeySeedFile, User with
// Password, or Token. A client certificate may come with any of them. Files are read for
// every connection, so that what is renewed on disk is used from the next one on; New
// reads them once to say what is wrong with them.
type Options struct {
	// URLs are the servers, in no order: nats://, tls://, ws:// or wss://, host and
	// port; without a scheme nats:// is meant, without a port 4222 (80 and 443 for
	// WebSocket). Servers that these name as belonging to their cluster are used, too.
	// tls:// demands TLS of that server, nats:// has it if the server wants it or any of
	// TLS is set. User information in a URL is an error, and so is WebSocket beside the others.
	// Empty means DefaultURL.
	URLs []string

	// Name is shown among the server's connections (connz). Empty means
	// "caddy-websocket" and the host's name.
	Name string

	// Prefix begins every subject, before the gateway's name and a dot: gateways under
	// different prefixes do not hear each other. It is of ASCII letters, digits, - and _,
	// and single dots in between, 128 bytes at most. Empty means DefaultPrefix.
	Prefix string

	// CredentialsFile is a .creds file: a user's JWT and the seed of its key.
	CredentialsFile string

	// NKeySeedFile is a file with the seed of a user's nkey (SU...).
	NKeySeedFile string

	// User and Password are for servers with users. A Password without a User is an error.
	User     string
	Password string

	// Token is for servers with one token for all.
	Token string

	// TLS says whom to trust and who we are. The zero value is TLS with the system's
	// certificate authorities if a URL or a server asks for it. Any of it set demands TLS,
	// whatever the URLs say.
	TLS TLS

	// ConnectTimeout bounds an attempt to connect to one server. Zero means
	// DefaultConnectTimeout; negative is an error.
	ConnectTimeout time.Duration

	// ReconnectWait is the time from when all servers have been tried in vain until
	// they are tried again; up to half of it is added at random. There is no last
	// attempt. Zero means DefaultReconnectWait; negative is an error.
	ReconnectWait time.Duration

	// PingInterval is how often the server is asked for a sign of life. When two
	// questions are unanswered, or a write gets nowhere for as long as that, the connection is
	// given up: after ten to fifteen seconds by default. Zero means DefaultPingInterval;
	// negative is an error.
	PingInterval time.Duration

	// SendBuffer is how many bytes may wait to be published, for each link; beyond it
	// Publish is gateway.ErrLinkFull. A message counts for 64 more than it has; one that
	// is longer than the server takes travels in parts, which must fit in together. Zero
	// means DefaultSendBuffer; less than MinBuffer is an error.
	SendBuffer int64

	// ReceiveBuffer is how many bytes may wait for a gateway that is held up, for each
	// link; beyond it messages are dropped, and the gateway is told how many. A message
	// counts for 64 more than it has; one that came in parts needs room for all of them.
	// Zero means DefaultReceiveBuffer; less than MinBuffer is an error.
	ReceiveBuffer int64

	// Logger gets a line when the connection comes, goes or cannot be made, and when the
	// server refuses something: one a minute of each kind. Nil discards them.
	Logger *slog.Logger
}

// TLS names PEM files. See Options.TLS.
type TLS struct {
	// CAFile has the certificate authorities that may vouch for the servers. Empty means
	// the system's.
	CAFile string

	// CertFile and KeyFile are the client certificate, for servers that demand one.
	// One without the other is an error.
	CertFile string
	KeyFile  string

	// ServerName is what the servers' certificates must be for. Empty means the host of
	// the URL.
	ServerName string
}

// check returns the options with the defaults filled in, or what is wrong with them. What
// a configuration may give otherwise than as a field of Options is told in words.
func (o Options) check() (Options, error) {
	for _, check := range []func(*Options) error{checkURLs, checkNames, checkAuthentication, checkTLS, checkBounds} {
		if err := check(&o); err != nil {
			return o, err
		}
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o, nil
}

func checkURLs(o *Options) error {
	if len(o.URLs) == 0 {
		o.URLs = []string{DefaultURL}
	}
	o.URLs = slices.Clone(o.URLs)
	for i, raw := range o.URLs {
		server, err := parseURL(raw)
		if err != nil {
			return fmt.Errorf("URL number %d: %w", i+1, err)
		}
		o.URLs[i] = server
		if isWebSocket(server) != isWebSocket(o.URLs[0]) {
			return errors.New("the URLs: ws:// and wss:// cannot stand beside nats:// and tls://: give one kind only")
		}
	}
	return nil
}

// parseURL completes a server's URL. Its errors do not quote what could be a password.
func parseURL(raw string) (string, error) {
	if strings.Contains(raw, "@") {
		return "", errors.New("user information is not allowed in a URL: user and password, or a token, are options of their own")
	}
	full := strings.TrimSpace(raw)
	if !strings.Contains(full, "://") {
		full = "nats://" + full
	}
	u, err := url.Parse(full)
	if err != nil {
		return "", fmt.Errorf("%q is not a URL such as nats://host:4222", raw)
	}
	port := "4222"
	switch u.Scheme {
	case "nats", "tls":
	case "ws":
		port = "80"
	case "wss":
		port = "443"
	default:
		return "", fmt.Errorf("%q: the scheme is %q, allowed are nats, tls, ws and wss", raw, u.Scheme)
	}
	if u.Hostname() == "" {
		return "", fmt.Errorf("%q names no host", raw)
	}
	if n, err := strconv.ParseUint(u.Port(), 10, 16); u.Port() != "" && (err != nil || n == 0) {
		return "", fmt.Errorf("%q: the port is %s, allowed are 1 to 65535", raw, u.Port())
	}
	if u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.Fragment != "" {
		return "", fmt.Errorf("%q: there may be nothing after host and port", raw)
	}
	u.Path = ""
	if u.Port() == "" {
		u.Host = strings.TrimSuffix(u.Host, ":") + ":" + port
	}
	return u.String(), nil
}

func isWebSocket(server string) bool { return strings.HasPrefix(server, "ws") }

func checkNames(o *Options) error {
	if o.Name == "" {
		host, err := os.Hostname()
		if err != nil {
			host = "unknown host"
		}
		o.Name = "caddy-websocket " + host
	}
	if o.Prefix == "" {
		o.Prefix = DefaultPrefix
	}
	if len(o.Prefix) > maxPrefix {
		return fmt.Errorf("the prefix %.32q... has %d bytes, allowed are %d", o.Prefix, len(o.Prefix), maxPrefix)
	}
	for token := range strings.SplitSeq(o.Prefix, ".") {
		if token == "" || encodeName(token) != token {
			return fmt.Errorf("the prefix %q: allowed are ASCII letters, digits, - and _, and single dots in between", o.Prefix)
		}
	}
	return nil
}

func checkAuthentication(o *Options) error {
	var given []string
	for _, way := range []struct {
		name string
		set  bool
	}{
		{"CredentialsFile", o.CredentialsFile != ""},
		{"NKeySeedFile", o.NKeySeedFile != ""},
		{"User", o.User != "" || o.Password != ""},
		{"Token", o.Token != ""},
	} {
		if way.set {
			given = append(given, way.name)
		}
	}
	if len(given) > 1 {
		return fmt.Errorf("%s are given: only one way to authenticate is allowed", strings.Join(given, " and "))
	}
	if o.User == "" && o.Password != "" {
		return errors.New("a Password is given without User")
	}
	if o.CredentialsFile != "" {
		if _, err := readCredentials(o.CredentialsFile); err != nil {
			return fmt.Errorf("the credentials file: %w", err)
		}
	}
	if o.NKeySeedFile != "" {
		if _, err := readSeed(o.NKeySeedFile); err != nil {
			return fmt.Errorf("the file of the nkey's seed: %w", err)
		}
	}
	return nil
}

func checkTLS(o *Options) error {
	if (o.TLS.CertFile == "") != (o.TLS.KeyFile == "") {
		return errors.New("TLS.CertFile and TLS.KeyFile: one is given without the other")
	}
	if o.TLS.CAFile != "" {
		if _, err := readCAs(o.TLS.CAFile); err != nil {
			return fmt.Errorf("the file of TLS authorities: %w", err)
		}
	}
	if o.TLS.CertFile != "" {
		if _, err := tls.LoadX509KeyPair(o.TLS.CertFile, o.TLS.KeyFile); err != nil {
			return fmt.Errorf("the TLS client certificate %q with the key %q: %w", o.TLS.CertFile, o.TLS.KeyFile, err)
		}
	}
	return nil
}

func checkBounds(o *Options) error {
	for _, d := range []struct {
		name     string
		value    *time.Duration
		fallback time.Duration
	}{
		{"ConnectTimeout", &o.ConnectTimeout, DefaultConnectTimeout},
		{"ReconnectWait", &o.ReconnectWait, DefaultReconnectWait},
		{"PingInterval", &o.PingInterval, DefaultPingInterval},
	} {
		if *d.value < 0 {
			return fmt.Errorf("%s is %s: it must not be negative", d.name, *d.value)
		}
		if *d.value == 0 {
			*d.value = d.fallback
		}
	}
	for _, b := range []struct {
		name     string
		value    *int64
		fallback int64
	}{
		{"SendBuffer", &o.SendBuffer, DefaultSendBuffer},
		{"ReceiveBuffer", &o.ReceiveBuffer, DefaultReceiveBuffer},
	} {
		if *b.value == 0 {
			*b.value = b.fallback
		}
		if *b.value < MinBuffer {
			return fmt.Errorf("%s is %d bytes: at least %d are needed", b.name, *b.value, MinBuffer)
		}
	}
	return nil
}
