package admin

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/gorilla/websocket"
	"github.com/spf13/cobra"
)

func connectCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "connect <ws:// or wss:// URL>",
		Short: "Connects to a WebSocket server, as a client",
		Long: `
Sends each line of the standard input as a message, and prints each message that
comes, one a line: text with control characters escaped, what is binary as a hex
dump. At the end of the input, or with Ctrl-C, it closes with 1000 and waits for
the answer; what comes before that is still printed.

The exit code is 0 if the connection was closed with 1000, or without a code; 1
if it was refused, lost, or closed with another code, which is shown.`,
		Example: `  $ caddy websocket connect wss://example.com/chat
  $ caddy websocket connect --insecure --origin https://localhost wss://localhost:4431/chat
  $ echo tom | caddy websocket connect --ca root.crt wss://localhost:4431/
  $ echo '{"type":"subscribe"}' | caddy websocket connect --wait 1m --json ws://127.0.0.1:8080/feed
  $ caddy websocket connect -v --ping 10s -H 'Authorization: Bearer abc' --subprotocol chat.v2 wss://example.com/chat`,
		RunE: run(connect),
	}
	f := cmd.Flags()
	f.StringArrayP("header", "H", nil, "Header line of the handshake, 'Name: value' (may be repeated)")
	f.StringArray("subprotocol", nil, "Subprotocol to offer (may be repeated, the best first)")
	f.String("origin", "", "Origin, as a browser sends it for a page: https://example.com")
	f.Bool("insecure", false, "Accept any certificate")
	f.String("ca", "", "PEM file with the certificate authority to trust")
	f.Duration("timeout", 10*time.Second, "How long connecting and the handshake may take")
	f.Duration("wait", 0, "How long to receive after the end of the input")
	f.Duration("ping", 0, "Send a ping so often (default never)")
	f.Bool("binary", false, "Send binary messages")
	f.Bool("raw", false, "Print messages as they are; control characters reach the terminal")
	f.Bool("json", false, "Print each message as JSON: type, and data, which is base64 if binary")
	f.BoolP("verbose", "v", false, "Show the connection, pings and pongs on the standard error")
	return cmd
}

// closeTimeout is how long the server may take to answer a close.
const closeTimeout = 5 * time.Second

func connect(cmd *cobra.Command, args []string) error {
	if len(args) != 1 {
		return usage("connect needs one URL: found %d arguments", len(args))
	}
	target, err := socketURL(args[0])
	if err != nil {
		return err
	}
	f := cmd.Flags()
	header, err := headerOf(flag(f.GetStringArray, "header"))
	if err != nil {
		return err
	}
	if origin := flag(f.GetString, "origin"); origin != "" {
		header.Set("Origin", origin)
	}
	if flag(f.GetBool, "raw") && flag(f.GetBool, "json") {
		return usage("--raw and --json: name one or the other")
	}
	for _, name := range []string{"timeout", "wait", "ping"} {
		if flag(f.GetDuration, name) < 0 {
			return usage("--%s %s: allowed are positive durations", name, flag(f.GetDuration, name))
		}
	}
	trust, err := trustOf(flag(f.GetString, "ca"), flag(f.GetBool, "insecure"))
	if err != nil {
		return err
	}
	ctx, stop := interruptible(cmd)
	defer stop()
	dialer := websocket.Dialer{
		Proxy: http.ProxyFromEnvironment, TLSClientConfig: trust,
		HandshakeTimeout: flag(f.GetDuration, "timeout"), Subprotocols: flag(f.GetStringArray, "subprotocol"),
		WriteBufferSize: 1 << 20, // what does not fit is sent in fragments
	}
	conn, res, err := dialer.DialContext(ctx, target, header)
	if err != nil {
		return refused(target, res, err)
	}
	defer conn.Close()
	t := &talk{
		conn: conn, out: cmd.OutOrStdout(), errs: cmd.ErrOrStderr(),
		verbose: flag(f.GetBool, "verbose"), raw: flag(f.GetBool, "raw"), json: flag(f.GetBool, "json"),
		ping: flag(f.GetDuration, "ping"), wait: flag(f.GetDuration, "wait"), kind: websocket.TextMessage,
	}
	if flag(f.GetBool, "binary") {
		t.kind = websocket.BinaryMessage
	}
	t.note("connected to %s, %s", conn.RemoteAddr(), protocols(conn, res))
	return t.run(ctx, stop, cmd.InOrStdin())
}

// socketURL allows http for ws, and https for wss: that is what people copy.
func socketURL(text string) (string, error) {
	u, err := url.Parse(text)
	if err != nil {
		return "", usage("%w", err)
	}
	switch u.Scheme {
	case "http", "https":
		u.Scheme = "ws" + strings.TrimPrefix(u.Scheme, "http")
	case "ws", "wss":
	default:
		return "", usage("%q is no WebSocket's URL: allowed are ws://host/path and wss://host/path", text)
	}
	if u.Host == "" {
		return "", usage("%q names no host", text)
	}
	u.Fragment = ""
	return u.String(), nil
}

func headerOf(lines []string) (http.Header, error) {
	header := make(http.Header)
	for _, line := range lines {
		name, value, found := strings.Cut(line, ":")
		name = http.CanonicalHeaderKey(strings.TrimSpace(name))
		switch {
		case !found || name == "":
			return nil, usage("--header %q: the form is 'Name: value'", line)
		case name == "Sec-Websocket-Protocol":
			return nil, usage("--header %q: use --subprotocol", line)
		case name == "Upgrade" || name == "Connection" || strings.HasPrefix(name, "Sec-Websocket-"):
			return nil, usage("--header %q: the handshake has its own", line)
		}
		header.Add(name, strings.TrimSpace(value))
	}
	return header, nil
}

// trustOf returns which certificates are accepted.
func trustOf(file string, insecure bool) (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: insecure} //nolint:gosec // asked for by name
	if file == "" {
		return config, nil
	}
	pem, err := os.ReadFile(file) //nolint:gosec // named by who runs it
	if err != nil {
		return nil, fmt.Errorf("reading the certificate authority: %w", err)
	}
	config.RootCAs = x509.NewCertPool()
	if !config.RootCAs.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("reading the certificate authority: %s has no certificate in PEM", file)
	}
	return config, nil
}

// refused says why there is no connection.
func refused(target string, res *http.Response, err error) error {
	if errors.Is(err, websocket.ErrBadHandshake) && res != nil {
		text := fmt.Sprintf("the server refused the handshake: %s", res.Status)
		if after := res.Header.Get("Retry-After"); after != "" {
			text += fmt.Sprintf(" (Retry-After: %s)", after)
		}
		to := res.Header.Get("Location")
		if to != "" {
			text += fmt.Sprintf(" (Location: %s)", to)
		}
		body, _ := io.ReadAll(res.Body) // the beginning, which the dialer has read
		switch body := strings.TrimSpace(string(body)); {
		case body != "":
			text += ": " + body
		case to == "":
			text += ": it sent no reason, its log may have one"
		}
		return errors.New(text)
	}
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return fmt.Errorf("connecting to %s: %w; name the authority's certificate with --ca, or accept any with --insecure", target, err)
	}
	return fmt.Errorf("connecting to %s: %w", target, err)
}

// protocols says what was agreed on.
func protocols(conn *websocket.Conn, res *http.Response) string {
	agreed := []string{"no TLS"}
	if secure, ok := conn.NetConn().(*tls.Conn); ok {
		agreed[0] = tls.VersionName(secure.ConnectionState().Version)
	}
	if name := conn.Subprotocol(); name != "" {
		agreed = append(agreed, "subprotocol "+safe(name))
	}
	if extensions := res.Header.Get("Sec-WebSocket-Extensions"); extensions != "" {
		agreed = append(agreed, "extensions "+safe(extensions))
	}
	return strings.Join(agreed, ", ")
}

// messageLine is a message as --json prints it.
type messageLine struct {
	Type string `json:"type"`
	Data any    `json:"data"` // text, or bytes, which become base64
}

func messageJSON(kind int, data []byte) ([]byte, error) {
	line := messageLine{"text", string(data)}
	if kind == websocket.BinaryMessage {
		line = messageLine{"binary", data}
	}
	encoded, err := json.Marshal(line)
	return safeJSON(encoded), err
}
