package admin

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"time"

	"github.com/caddyserver/caddy/v2"
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"

	"github.com/caddy-websocket/caddy-websocket/gateway/httpapi"
)

// callTimeout is how long the server may take for an ordinary call.
const callTimeout = 30 * time.Second

// adminFlags gives a command the flags of newCaller.
func adminFlags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.String("address", "", "Address of the admin endpoint, if --config is not used")
	f.StringP("config", "c", "", "Configuration file that has the address of the admin endpoint")
	f.StringP("adapter", "a", "", "Name of the config adapter, if --config is used")
	f.StringP("gateway", "g", "", "Gateway (default \"default\", or all where the help says so)")
	f.Bool("json", false, "Print JSON, one object a line")
}

// caller makes calls of a running server's admin endpoint.
type caller struct {
	address string
	url     string // of the admin endpoint
	origin  string // empty for a Unix socket
	gateway string // may be empty
	client  *http.Client
}

// newCaller finds the address as `caddy reload` and `caddy stop` do.
func newCaller(cmd *cobra.Command) (*caller, error) {
	text := cmd.Flags().GetString
	address, err := caddycmd.DetermineAdminAPIAddress(flag(text, "address"), nil, flag(text, "config"), flag(text, "adapter"))
	if err != nil {
		return nil, fmt.Errorf("finding the address of the admin endpoint: %w", err)
	}
	replaced, err := caddy.NewReplacer().ReplaceOrErr(address, true, true)
	if err != nil {
		return nil, fmt.Errorf("admin address %q: %w", address, err)
	}
	parsed, err := caddy.ParseNetworkAddress(replaced)
	if err != nil || parsed.PortRangeSize() != 1 || parsed.IsFdNetwork() {
		return nil, usage("admin address %q: allowed are host:port and unix//path", address)
	}
	network, target := parsed.Network, parsed.JoinHostPort(0)
	origin := "http://" + target
	at := origin
	if parsed.IsUnixNetwork() {
		target, _, _ = strings.Cut(target, "|") // the permissions that Caddy gives the socket
		at, origin = "http://127.0.0.1", ""
	}
	return &caller{
		address: address, url: at, origin: origin, gateway: flag(text, "gateway"),
		client: &http.Client{Transport: &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return (&net.Dialer{}).DialContext(ctx, network, target)
			},
			DisableKeepAlives: true, // a reload would close them in the worst moment
		}},
	}, nil
}

// refusal is an error that the server has answered with.
type refusal struct {
	status  int
	code    string
	message string
}

func (r *refusal) Error() string {
	if r.message == "" {
		return fmt.Sprintf("the admin endpoint answered %d %s", r.status, http.StatusText(r.status))
	}
	return r.message
}

// begin makes a call, and returns the answer if it is no error. Connections that a
// reload has cut are tried again; the server does a command only once.
func (c *caller) begin(ctx context.Context, method, path string, query url.Values, body any) (*http.Response, error) {
	target := c.url + base + path
	if c.gateway != "" {
		if query == nil {
			query = make(url.Values)
		}
		query.Set("gateway", c.gateway)
	}
	if len(query) > 0 {
		target += "?" + query.Encode()
	}
	var content []byte
	if body != nil {
		var err error
		if content, err = json.Marshal(body); err != nil {
			return nil, fmt.Errorf("encoding the command: %w", err)
		}
	}
	const attempts, pause = 4, 50 * time.Millisecond
	key := rand.Text()
	for i := 1; ; i++ {
		req, err := http.NewRequestWithContext(ctx, method, target, bytes.NewReader(content))
		if err != nil {
			return nil, fmt.Errorf("calling the admin endpoint: %w", err)
		}
		if c.origin != "" {
			req.Header.Set("Origin", c.origin)
		}
		if body != nil {
			req.Header.Set("Content-Type", "application/json")
			req.Header.Set("Idempotency-Key", key)
		}
		res, err := c.client.Do(req)
		if err == nil {
			return c.checked(res)
		}
		if i == attempts || !lost(err) {
			return nil, c.unreachable(err)
		}
		time.Sleep(pause * time.Duration(i))
	}
}

// lost tells whether a connection was cut before an answer came.
func lost(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// call makes a call and decodes the answer.
func (c *caller) call(ctx context.Context, method, path string, query url.Values, body, into any) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	return c.callFor(ctx, method, path, query, body, into)
}

// callFor is call with the caller's own time-out.
func (c *caller) callFor(ctx context.Context, method, path string, query url.Values, body, into any) error {
	res, err := c.begin(ctx, method, path, query, body)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if err := json.NewDecoder(res.Body).Decode(into); err != nil {
		return fmt.Errorf("reading the answer of the admin endpoint: %w", err)
	}
	return nil
}

// checked turns an answer that is an error into one.
func (c *caller) checked(res *http.Response) (*http.Response, error) {
	if res.StatusCode < http.StatusBadRequest {
		return res, nil
	}
	defer res.Body.Close()
	const most = 64 << 10
	text, err := io.ReadAll(io.LimitReader(res.Body, most))
	if err != nil {
		return nil, fmt.Errorf("reading the answer of the admin endpoint: %w", err)
	}
	var ours httpapi.Result
	if json.Unmarshal(text, &ours) == nil && ours.Error != nil {
		return nil, &refusal{res.StatusCode, ours.Error.Code, ours.Error.Message}
	}
	var caddys caddy.APIError
	if json.Unmarshal(text, &caddys) == nil && caddys.Message != "" {
		return nil, &refusal{status: res.StatusCode, message: fmt.Sprintf("the admin endpoint at %s answered %d: %s", c.address, res.StatusCode, caddys.Message)}
	}
	if res.StatusCode == http.StatusNotFound {
		return nil, &refusal{status: res.StatusCode, message: fmt.Sprintf("the Caddy at %s does not know the call: it runs a binary without this module, or an older one", c.address)}
	}
	return nil, &refusal{status: res.StatusCode, message: fmt.Sprintf("the admin endpoint at %s answered %d: %.200s", c.address, res.StatusCode, strings.TrimSpace(string(text)))}
}

// unreachable says what to do about a server that does not answer.
func (c *caller) unreachable(err error) error {
	// The URL says nothing about a Unix socket.
	if u, ok := errors.AsType[*url.Error](err); ok {
		err = u.Err
	}
	hint := "is Caddy running? Its admin endpoint may be elsewhere: name it with --address, or the configuration file with --config"
	switch {
	case errors.Is(err, fs.ErrPermission):
		hint = "run this as the user that Caddy runs as"
	case errors.Is(err, context.DeadlineExceeded):
		hint = "it took too long"
	case errors.Is(err, context.Canceled):
		hint = "interrupted"
	}
	return fmt.Errorf("no answer from the admin endpoint at %s: %w: %s", c.address, err, hint)
}
