package e2e

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/caddy-websocket/caddy-websocket/e2e/internal/e2etest"
)

// tlsTimeout is for a server that is about to have its certificate.
const tlsTimeout = 20 * time.Second

// loopbackOnly dials the port of an address on 127.0.0.1, whatever its name.
func loopbackOnly(ctx context.Context, network, addr string) (net.Conn, error) {
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	return new(net.Dialer).DialContext(ctx, network, net.JoinHostPort("127.0.0.1", port))
}

// tryTLS opens a WebSocket to a site on this machine by its name or address, which the
// certificate must be for, and closes it when the test ends.
func tryTLS(t *testing.T, host string, port int, path string, config *tls.Config) (*websocket.Conn, error) {
	t.Helper()
	dialer := websocket.Dialer{NetDialContext: loopbackOnly, TLSClientConfig: config, HandshakeTimeout: tlsTimeout}
	ctx, cancel := context.WithTimeout(t.Context(), tlsTimeout)
	defer cancel()
	ws, _, err := dialer.DialContext(ctx, "wss://"+net.JoinHostPort(host, strconv.Itoa(port))+path, nil)
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { ws.Close() })
	return ws, nil
}

// dialTLS is tryTLS for a handshake that must succeed, at the latest when the server has
// begun to serve its certificate.
func dialTLS(t *testing.T, host string, port int, path string, config *tls.Config) *websocket.Conn {
	t.Helper()
	deadline := time.Now().Add(tlsTimeout)
	for {
		ws, err := tryTLS(t, host, port, path, config)
		if err == nil {
			return ws
		}
		if time.Now().After(deadline) {
			t.Fatalf("connecting to %s by TLS: %v", host, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// tlsState returns what the two sides of a WebSocket agreed on.
func tlsState(t *testing.T, ws *websocket.Conn) tls.ConnectionState {
	t.Helper()
	conn, ok := ws.NetConn().(*tls.Conn)
	if !ok {
		t.Fatalf("the connection is a %T", ws.NetConn())
	}
	return conn.ConnectionState()
}

// only returns a client's configuration that speaks one version of TLS.
func only(version uint16, roots *x509.CertPool) *tls.Config {
	return &tls.Config{RootCAs: roots, MinVersion: version, MaxVersion: version}
}

// startWithFiles runs a site for any name on a port, with server.pem and server.key and,
// in the tls block, options. The folder is where the files are.
func startWithFiles(t *testing.T, dir, options string) (*e2etest.Caddy, int) {
	t.Helper()
	port := e2etest.ReservePort(t)
	return e2etest.StartCaddy(t, dir, filesCaddyfile(port, options)), port
}

func filesCaddyfile(port int, options string) string {
	return fmt.Sprintf(`{
	auto_https disable_redirects
	default_bind 127.0.0.1
}
:%d {
	tls server.pem server.key {
		%s
	}
	websocket /ws {
		logic echo
	}
	respond "a page"
}
`, port, options)
}

// nginx reads new files at every reload. Caddy does nothing at a reload if the Caddyfile
// is the same: the files are read if it is forced, and the clients stay in any case.
func TestReplacedCertificateFilesAreServedAfterAForcedReload(t *testing.T) {
	dir, authority := t.TempDir(), e2etest.NewAuthority(t)
	first := authority.WriteFiles(dir, "ws.example.test")
	caddy, port := startWithFiles(t, dir, "")
	trust := only(tls.VersionTLS13, authority.Roots())
	old := dialTLS(t, "ws.example.test", port, "/ws", trust)
	if got := tlsState(t, old).PeerCertificates[0]; !got.Equal(first) {
		t.Fatalf("the certificate served is %s", got.SerialNumber)
	}

	second := authority.WriteFiles(dir, "ws.example.test")
	if err := caddy.Reload(filesCaddyfile(port, "")); err != nil {
		t.Fatal(err)
	}
	if got := tlsState(t, dialTLS(t, "ws.example.test", port, "/ws", trust)).PeerCertificates[0]; !got.Equal(first) {
		t.Errorf("after a reload of the same Caddyfile the certificate served is %s: correct what the documentation says about --force", got.SerialNumber)
	}
	if err := caddy.ForceReload(); err != nil {
		t.Fatal(err)
	}
	if got := tlsState(t, dialTLS(t, "ws.example.test", port, "/ws", trust)).PeerCertificates[0]; !got.Equal(second) {
		t.Errorf("after the reload the certificate served is %s, want the new file's", got.SerialNumber)
	}
	if got := exchange(t, old, "still here"); got != "still here" {
		t.Errorf("on the connection from before the reload the answer is %q", got)
	}
	if got := tlsState(t, old).PeerCertificates[0]; !got.Equal(first) {
		t.Errorf("the old connection has certificate %s", got.SerialNumber)
	}
}

// A program in an intranet connects to an address, and sends no name for the server to
// choose a certificate by.
func TestClientWithoutServerNameIsServed(t *testing.T) {
	dir, authority := t.TempDir(), e2etest.NewAuthority(t)
	authority.WriteFiles(dir, "ws.example.test", "127.0.0.1")
	_, port := startWithFiles(t, dir, "")
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		ws := dialTLS(t, "127.0.0.1", port, "/ws", only(version, authority.Roots()))
		if got := exchange(t, ws, "tom"); got != "tom" {
			t.Errorf("%s: the answer is %q", tls.VersionName(version), got)
		}
	}
}

// The same with Caddy's own authority, for a site whose address is an IP address.
func TestInternalCertificateForAnAddressNeedsNoServerName(t *testing.T) {
	port := e2etest.ReservePort(t)
	caddy := e2etest.StartCaddy(t, t.TempDir(), fmt.Sprintf(`{
	auto_https disable_redirects
	skip_install_trust
}
https://127.0.0.1:%d {
	bind 127.0.0.1
	tls internal
	websocket /ws {
		logic echo
	}
}
`, port))
	ws := dialTLS(t, "127.0.0.1", port, "/ws", only(tls.VersionTLS13, caddy.CertPool()))
	if got := exchange(t, ws, "tom"); got != "tom" {
		t.Errorf("the answer is %q", got)
	}
	if chain := tlsState(t, ws).VerifiedChains[0]; len(chain) != 3 {
		t.Errorf("the chain has %d certificates, want site, intermediate and root", len(chain))
	}
}

// What scanners of TLS settings look for, and what nginx's ssl_protocols said.
func TestTLSVersionsAre12And13UnlessOneIsChosen(t *testing.T) {
	dir, authority := t.TempDir(), e2etest.NewAuthority(t)
	authority.WriteFiles(dir, "ws.example.test")
	for options, accepted := range map[string]map[uint16]bool{
		"":                        {tls.VersionTLS11: false, tls.VersionTLS12: true, tls.VersionTLS13: true},
		"protocols tls1.3":        {tls.VersionTLS11: false, tls.VersionTLS12: false, tls.VersionTLS13: true},
		"protocols tls1.2 tls1.2": {tls.VersionTLS11: false, tls.VersionTLS12: true, tls.VersionTLS13: false},
	} {
		_, port := startWithFiles(t, dir, options)
		for version, accept := range accepted {
			name := fmt.Sprintf("with %q, %s", options, tls.VersionName(version))
			config := only(version, authority.Roots())
			if accept {
				ws := dialTLS(t, "ws.example.test", port, "/ws", config)
				if got := exchange(t, ws, "tom"); got != "tom" {
					t.Errorf("%s: the answer is %q", name, got)
				}
				continue
			}
			_, err := tryTLS(t, "ws.example.test", port, "/ws", config)
			// The server's word, not the client's: 70 is protocol_version (RFC 8446, section 6).
			const protocolVersion = tls.AlertError(70)
			if alert, _ := errors.AsType[*net.OpError](err); alert == nil || alert.Err.Error() != protocolVersion.Error() {
				t.Errorf("%s: %v, want it refused", name, err)
			}
		}
	}
}

// Ten thousand clients that reconnect at once cost a signature each, unless they resume.
func TestTLSSessionsAreResumed(t *testing.T) {
	dir, authority := t.TempDir(), e2etest.NewAuthority(t)
	authority.WriteFiles(dir, "ws.example.test")
	_, port := startWithFiles(t, dir, "")
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		config := only(version, authority.Roots())
		config.ClientSessionCache = tls.NewLRUClientSessionCache(1)
		for _, resumed := range []bool{false, true} {
			ws := dialTLS(t, "ws.example.test", port, "/ws", config)
			// TLS 1.3 sends the ticket after the handshake: it arrives before the answer.
			if got := exchange(t, ws, "tom"); got != "tom" {
				t.Fatalf("%s: the answer is %q", tls.VersionName(version), got)
			}
			if state := tlsState(t, ws); state.DidResume != resumed {
				t.Errorf("%s: resumed %t, want %t", tls.VersionName(version), state.DidResume, resumed)
			}
		}
	}
}

// Browsers fetch the page by HTTP/2 and offer only http/1.1 for wss to the same port.
func TestPageByHTTP2AndSocketByHTTP1ShareAPort(t *testing.T) {
	dir, authority := t.TempDir(), e2etest.NewAuthority(t)
	authority.WriteFiles(dir, "ws.example.test")
	_, port := startWithFiles(t, dir, "")
	for _, offer := range []struct {
		protocols []string
		agreed    string
	}{{[]string{"http/1.1"}, "http/1.1"}, {nil, ""}} {
		config := only(tls.VersionTLS13, authority.Roots())
		config.NextProtos = offer.protocols
		ws := dialTLS(t, "ws.example.test", port, "/ws", config)
		if got := tlsState(t, ws).NegotiatedProtocol; got != offer.agreed {
			t.Errorf("offered %q: agreed on %q, want %q", offer.protocols, got, offer.agreed)
		}
		if got := exchange(t, ws, "tom"); got != "tom" {
			t.Errorf("offered %q: the answer is %q", offer.protocols, got)
		}
	}

	transport := &http.Transport{
		DialContext:       loopbackOnly,
		TLSClientConfig:   &tls.Config{RootCAs: authority.Roots(), MinVersion: tls.VersionTLS12},
		ForceAttemptHTTP2: true,
	}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, Timeout: tlsTimeout}
	res, err := client.Get(fmt.Sprintf("https://ws.example.test:%d/", port))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	page, err := io.ReadAll(res.Body)
	if err != nil || res.Proto != "HTTP/2.0" || string(page) != "a page" {
		t.Errorf("the page came by %s: %q (%v), want HTTP/2.0", res.Proto, page, err)
	}
}
