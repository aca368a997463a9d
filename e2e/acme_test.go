package e2e

import (
	"crypto/tls"
	"fmt"
	"testing"
	"time"

	"github.com/caddy-websocket/caddy-websocket/e2e/internal/e2etest"
)

// publicName is one that an authority gives certificates for, and that leads nowhere.
const publicName = "ws.example.test"

// startACME runs Caddy with certificates from Pebble, as a public server has them from
// Let's Encrypt. The site is at sitePort; 80 and 443 are httpPort and httpsPort here.
func startACME(t *testing.T, sitePort, httpPort, httpsPort int, issuer string) (*e2etest.Caddy, *e2etest.Pebble) {
	t.Helper()
	pebble := e2etest.StartPebble(t, httpPort, httpsPort)
	caddy := e2etest.StartCaddy(t, t.TempDir(), fmt.Sprintf(`{
	http_port %d
	https_port %d
	default_bind 127.0.0.1
	renew_interval 1s
	acme_ca %s
	acme_ca_root %s
}
%s:%d {
	tls {
		issuer acme {
			%s
		}
	}
	websocket /ws {
		logic reply {ws.client_ip}
	}
}
`, httpPort, httpsPort, pebble.URL, pebble.ServerRoot, publicName, sitePort, issuer))
	return caddy, pebble
}

// logged waits for a log line with this message.
func logged(caddy *e2etest.Caddy, message string) map[string]any {
	return caddy.WaitLog(func(entry map[string]any) bool { return entry["msg"] == message })
}

// challenges returns how often Caddy has answered a challenge by TLS. Pebble asks several
// times for each certificate.
func challenges(caddy *e2etest.Caddy) (n int) {
	for _, entry := range caddy.Log() {
		if entry["msg"] == "served key authentication certificate" && entry["challenge"] == "tls-alpn-01" {
			n++
		}
	}
	return n
}

// The address of the README, example.com:4431: a certificate comes by itself if port 80
// is reachable, and a client that has never heard of Caddy's own authority trusts it.
func TestACMECertificateByPort80ServesASiteOnAnotherPort(t *testing.T) {
	port, httpPort := e2etest.ReservePort(t), e2etest.ReservePort(t)
	caddy, pebble := startACME(t, port, httpPort, e2etest.ReservePort(t), "disable_tlsalpn_challenge")
	trust := &tls.Config{RootCAs: pebble.Roots(), MinVersion: tls.VersionTLS12}
	ws := dialTLS(t, publicName, port, "/ws", trust)
	if got := exchange(t, ws, "tom"); got != "127.0.0.1" {
		t.Errorf("tom is answered with %q, want 127.0.0.1", got)
	}
	if entry := logged(caddy, "served key authentication"); entry["challenge"] != "http-01" {
		t.Errorf("the challenge was %v, want http-01", entry["challenge"])
	}
}

// An authority may want a certificate replaced at any time, before a revocation. Who
// connects later sees the new one; who is connected notices nothing.
func TestACMERenewalReplacesTheCertificateAndKeepsTheSocket(t *testing.T) {
	port := e2etest.ReservePort(t) // of the site, and where the challenge is answered
	caddy, pebble := startACME(t, port, e2etest.ReservePort(t), port, "disable_http_challenge")
	trust := &tls.Config{RootCAs: pebble.Roots(), MinVersion: tls.VersionTLS12}
	before := dialTLS(t, publicName, port, "/ws", trust)
	if got := exchange(t, before, "before"); got != "127.0.0.1" {
		t.Fatalf("the answer is %q, want 127.0.0.1", got)
	}
	first := tlsState(t, before).PeerCertificates[0]
	answered := challenges(caddy)

	pebble.WantRenewal(first)
	logged(caddy, "certificate renewed successfully")
	if again := challenges(caddy); answered == 0 || again <= answered {
		t.Errorf("%d challenges were answered for the first certificate, and then %d: want some for each", answered, again-answered)
	}
	deadline := time.Now().Add(10 * time.Second)
	for {
		after := dialTLS(t, publicName, port, "/ws", trust)
		if got := exchange(t, after, "after"); got != "127.0.0.1" {
			t.Errorf("on a new connection the answer is %q, want 127.0.0.1", got)
		}
		if tlsState(t, after).PeerCertificates[0].SerialNumber.Cmp(first.SerialNumber) != 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("new connections still see the first certificate")
		}
		time.Sleep(50 * time.Millisecond)
	}
	if got := exchange(t, before, "still"); got != "127.0.0.1" {
		t.Errorf("on the connection from before the renewal the answer is %q, want 127.0.0.1", got)
	}
}
