package e2e

import (
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/caddy-websocket/caddy-websocket/e2e/internal/e2etest"
)

// authService lets everybody pass who has a session, and says who he is, unless he
// has a session without a name.
func authService(t *testing.T) (address string) {
	t.Helper()
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if forged, there := r.Header["Remote-User"]; there {
			t.Errorf("the service sees Remote-User %q from outside", forged)
		}
		if r.Method != http.MethodGet || r.URL.Path != "/verify" || !strings.HasPrefix(r.Header.Get("X-Forwarded-Uri"), "/app") {
			t.Errorf("the service is asked %s %s about %q", r.Method, r.URL, r.Header.Get("X-Forwarded-Uri"))
		}
		session, err := r.Cookie("session")
		if err != nil {
			http.Error(w, "log in first", http.StatusUnauthorized)
			return
		}
		if session.Value != "nameless" {
			w.Header().Set("Remote-User", session.Value)
		}
		w.WriteHeader(http.StatusNoContent)
	}))
	t.Cleanup(service.Close)
	return service.Listener.Addr().String()
}

// startAuth runs examples/auth, with a login service of the test's if one is given.
func startAuth(t *testing.T, service string) (*e2etest.Caddy, string) {
	t.Helper()
	demo := fmt.Sprintf("localhost:%d", e2etest.ReservePort(t))
	if service == "" {
		service = demo
	}
	return startProgram(t, e2etest.Binary(t), exampleFile(t, "auth/Caddyfile"), "DEMO_ADDR="+demo, "AUTH_SERVICE="+service)
}

// refused fails the test unless the handshake is refused with this status.
func refused(t *testing.T, caddy *e2etest.Caddy, url string, header http.Header, status int) {
	t.Helper()
	dialer := websocket.Dialer{
		HandshakeTimeout: 20 * time.Second,
		TLSClientConfig:  &tls.Config{RootCAs: caddy.CertPool(), MinVersion: tls.VersionTLS12},
	}
	ws, res, err := dialer.DialContext(t.Context(), url, header)
	switch {
	case err == nil:
		ws.Close()
		t.Errorf("%s with %v is let in, want %d", url, header, status)
	case res == nil || res.StatusCode != status:
		t.Errorf("%s with %v: %v (%v), want %d", url, header, err, res, status)
	}
}

func TestBasicAuthNamesTheUser(t *testing.T) {
	caddy, site := startAuth(t, "")
	basic := func(user, password string) http.Header {
		return http.Header{"Authorization": {"Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password))}}
	}
	ws := caddy.Dial("wss://"+site+"/basic", basic("tom", "demo"))
	if got := exchange(t, ws, "hi"); got != "hello tom" {
		t.Errorf("tom is answered with %q, want hello tom", got)
	}
	refused(t, caddy, "wss://"+site+"/basic", nil, http.StatusUnauthorized)
	refused(t, caddy, "wss://"+site+"/basic", basic("tom", "wrong"), http.StatusUnauthorized)
}

func TestForwardAuthNamesTheUserAndAForgedHeaderDoesNot(t *testing.T) {
	caddy, site := startAuth(t, authService(t))
	app := "wss://" + site + "/app"
	for _, forged := range []http.Header{
		{},
		{"Remote-User": {"admin"}},
		{"remote-user": {"admin"}},
		{"REMOTE-USER": {"admin", "root"}},
		{"Remote_User": {"admin"}},
	} {
		with := func(session string) http.Header {
			header := forged.Clone()
			if session != "" {
				header["Cookie"] = []string{"session=" + session}
			}
			return header
		}
		if got := exchange(t, caddy.Dial(app, with("tom")), "hi"); got != "hello tom" {
			t.Errorf("tom with %v is answered with %q, want hello tom", forged, got)
		}
		refused(t, caddy, app, with(""), http.StatusUnauthorized)
		refused(t, caddy, app, with("nameless"), http.StatusForbidden)
	}
}

// One command, as README.md says, and the login service in it.
func TestAuthExampleRunsByItself(t *testing.T) {
	caddy, site := startAuth(t, "")
	client := &http.Client{Transport: &http.Transport{
		TLSClientConfig:   &tls.Config{RootCAs: caddy.CertPool(), MinVersion: tls.VersionTLS12},
		DisableKeepAlives: true,
	}}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+site+"/login", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	res, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	cookies := res.Cookies()
	if len(cookies) != 1 || !cookies[0].Secure || !cookies[0].HttpOnly {
		t.Fatalf("/login answers %s with cookies %v", res.Status, cookies)
	}
	header := http.Header{"Cookie": {cookies[0].Name + "=" + cookies[0].Value}, "Origin": {"https://" + site}}
	if got := exchange(t, caddy.Dial("wss://"+site+"/app", header), "hi"); got != "hello tom" {
		t.Errorf("answer %q, want hello tom", got)
	}
	refused(t, caddy, "wss://"+site+"/app", nil, http.StatusUnauthorized)

	// A page of another site has the cookie, too, if it is not SameSite.
	header.Set("Origin", "https://elsewhere.example")
	refused(t, caddy, "wss://"+site+"/app", header, http.StatusForbidden)
}
