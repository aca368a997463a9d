// Package nats joins Caddys that serve the same clients over NATS: the line
// `broker nats <url> ...` of the global option `websocket`.
package nats

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-websocket/caddy-websocket/gateway"
	"github.com/caddy-websocket/caddy-websocket/gateway/natsbroker"
)

func init() {
	caddy.RegisterModule(&NATS{})
}

// DefaultRequiredTimeout is what `required` means without a time.
const DefaultRequiredTimeout = 5 * time.Second

// NATS is a broker: core NATS, at most once, nothing is stored. All gateways of the
// process share one connection, and a reload with equal settings keeps it.
//
// All texts may have placeholders like `{env.NATS_TOKEN}` or `{file./run/secrets/nats}`,
// which are resolved when the configuration is loaded; one that is empty then is an
// error. At most one of CredentialsFile, NKeySeedFile, User and Token may be given. Files
// are read again for every connection.
type NATS struct {
	// URLs are the servers, in no order: nats://, tls://, ws:// or wss://, host and port,
	// without user information. Others of their cluster are found by themselves. Default:
	// `nats://127.0.0.1:4222`.
	URLs []string `json:"urls,omitempty"`

	// Name is what the servers list the connection as. Default: `caddy-websocket` and the
	// host's name.
	Name string `json:"name,omitempty"`

	// Prefix begins all subjects: nodes under another do not hear each other. 1 to 128
	// ASCII letters, digits, - and _, and single dots in between. Default:
	// `caddy-websocket`.
	Prefix string `json:"prefix,omitempty"`

	// CredentialsFile is a .creds file: a user's JWT and the seed of its key.
	CredentialsFile string `json:"credentials_file,omitempty"`

	// NKeySeedFile is a file with the seed of a user's nkey (SU...).
	NKeySeedFile string `json:"nkey_seed_file,omitempty"`

	// User and Password are for servers with users.
	User     string `json:"user,omitempty"`
	Password string `json:"password,omitempty"`

	// Token is for servers with one token for all.
	Token string `json:"token,omitempty"`

	// TLSCA is a PEM file with the authorities that the servers' certificates may come
	// from. This and each of the next three demands TLS, whatever the URLs say. Default:
	// those of the system.
	TLSCA string `json:"tls_ca,omitempty"`

	// TLSClientCertificate and TLSClientKey are PEM files, for servers that demand a
	// certificate.
	TLSClientCertificate string `json:"tls_client_certificate,omitempty"`
	TLSClientKey         string `json:"tls_client_key,omitempty"`

	// TLSServerName is what the servers' certificates must be for. Default: the host of
	// the URL.
	TLSServerName string `json:"tls_server_name,omitempty"`

	// ConnectTimeout bounds an attempt to connect to one server. Default: 2s.
	ConnectTimeout caddy.Duration `json:"connect_timeout,omitempty"`

	// ReconnectWait is the time from when all servers were tried in vain until they are
	// tried again; up to half of it is added at random. Default: 1s.
	ReconnectWait caddy.Duration `json:"reconnect_wait,omitempty"`

	// PingInterval is how often the server is asked for a sign of life; when two questions
	// are unanswered the connection is given up. Default: 5s.
	PingInterval caddy.Duration `json:"ping_interval,omitempty"`

	// SendBuffer is how many bytes of each gateway may wait to be published, 64 KiB at
	// least. What is more does not reach other nodes, and is counted. Default: 8 MiB.
	SendBuffer int64 `json:"send_buffer,omitempty"`

	// ReceiveBuffer is how many bytes that have come may wait for each gateway, 64 KiB at
	// least. What is more is lost, and counted. Default: 16 MiB.
	ReceiveBuffer int64 `json:"receive_buffer,omitempty"`

	// Required is how long a start or a reload waits for the connection; without one in
	// time the configuration is refused. At most 1m. Default: it is not waited for: the
	// node serves alone until the broker can be reached.
	Required caddy.Duration `json:"required,omitempty"`

	options natsbroker.Options // placeholders resolved
}

// CaddyModule returns the Caddy module information.
func (*NATS) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "websocket.brokers.nats", New: func() caddy.Module { return new(NATS) }}
}

// Provision resolves placeholders and looks at the files. It makes no connection.
func (n *NATS) Provision(caddy.Context) error {
	if err := n.check(); err != nil {
		return err
	}
	o, err := n.resolve()
	if err != nil {
		return err
	}
	if err := o.Check(); err != nil {
		return err
	}
	o.Logger = currentLogger()
	n.options = o
	return nil
}

// NewBroker returns a broker that connects when it is first used.
func (n *NATS) NewBroker() (gateway.Broker, error) { return &broker{options: n.options}, nil }

// BrokerKey is a hash of all that the connection depends on; `required` is not among it.
func (n *NATS) BrokerKey() string {
	o := n.options
	o.Logger = nil
	b, err := json.Marshal(o) //nolint:gosec // it has secrets, and is hashed
	if err != nil {           // cannot happen: these are texts and numbers
		panic(err)
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// Ready waits for the connection, with which these gateways can be used, if it is required.
func (n *NATS) Ready(ctx context.Context, b gateway.Broker, gateways []string) error {
	if n.Required == 0 {
		return nil
	}
	shared, ok := b.(*broker)
	if !ok {
		return fmt.Errorf("%T is not of this module", b)
	}
	timeout := time.Duration(n.Required)
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	err := shared.connect(ctx, gateways)
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return fmt.Errorf("required, and not connected within %s: %w", timeout, err)
	default:
		return fmt.Errorf("required, and refused: %w", err)
	}
}

// Interface guards
var _ caddy.Provisioner = (*NATS)(nil)
