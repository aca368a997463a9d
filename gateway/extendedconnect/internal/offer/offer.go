// Package offer finds out, for tests, whether the HTTP/2 servers of a process offer
// extended CONNECT.
package offer

import (
	"crypto/tls"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"golang.org/x/net/http2"
)

// Ask returns what an extended CONNECT to each kind of server comes to.
func Ask(t *testing.T) map[string]error {
	t.Helper()
	return map[string]error{
		"net/http": ask(t, func(s *httptest.Server) { s.EnableHTTP2 = true }),
		"golang.org/x/net/http2": ask(t, func(s *httptest.Server) {
			if err := http2.ConfigureServer(s.Config, new(http2.Server)); err != nil { //nolint:staticcheck // Caddy serves with it
				t.Fatal(err)
			}
			s.TLS = s.Config.TLSConfig
		}),
	}
}

func ask(t *testing.T, configure func(*httptest.Server)) error {
	t.Helper()
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodConnect || r.Header.Get(":protocol") != "websocket" {
			http.Error(w, "unexpected", http.StatusBadRequest)
		}
	}))
	configure(s)
	s.StartTLS()
	defer s.Close()
	config := s.Client().Transport.(*http.Transport).TLSClientConfig.Clone()
	config.NextProtos = []string{"h2"}
	conn, err := tls.Dial("tcp", s.Listener.Addr().String(), config)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	client, err := new(http2.Transport).NewClientConn(conn) //nolint:staticcheck // the Transport of net/http sends no extended CONNECT
	if err != nil {
		t.Fatal(err)
	}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodConnect, s.URL, strings.NewReader(""))
	if err != nil {
		t.Fatal(err)
	}
	r.Header[":protocol"] = []string{"websocket"}
	resp, err := client.RoundTrip(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("answered with %s, %v", resp.Status, err)
	}
	return nil
}
