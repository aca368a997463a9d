package websocket_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
)

// The path of a call is what follows the mount; what is outside of it belongs to the
// rest of the site.
func TestPushAPIKnowsWhereItIsMounted(t *testing.T) {
	const rest = "\n\trespond \"page\"\n}"
	token := " {\n\t\ttoken " + pushToken + "\n\t"
	for _, tt := range []struct {
		name, site string
		calls      []string // of count
		pages      []string // answered by the rest of the site
		unknown    []string // answered with 404 in JSON
	}{
		{
			"a path", "HTTP {\n\twebsocket_api /push/*" + token + "}" + rest,
			[]string{"/push/count", "/PUSH/count", "//push//count", "/x/../push/count", "/p%75sh/count"},
			[]string{"/", "/push", "/count", "/pushcount"},
			[]string{"/push/", "/push/count/", "/push/push/count", "/push/Count"},
		},
		{
			"a path without a slash", "HTTP {\n\twebsocket_api /push*" + token + "}" + rest,
			[]string{"/push/count"},
			[]string{"/pushcount", "/pusher/count", "/count"},
			[]string{"/push", "/push/"},
		},
		{
			"a named matcher with a path", "HTTP {\n\t@local {\n\t\tpath /a/b/*\n\t\tremote_ip 127.0.0.1\n\t}\n\twebsocket_api @local" + token + "}" + rest,
			[]string{"/a/b/count"},
			[]string{"/a/count", "/count"},
			[]string{"/a/b/"},
		},
		{
			"a named matcher and the option", "HTTP {\n\t@local {\n\t\tpath /p/count /p/users /q/count\n\t}\n\twebsocket_api @local" + token + "\tprefix /p\n\t}" + rest,
			[]string{"/p/count"},
			[]string{"/p/clients", "/q/count", "/p"},
			nil,
		},
		{
			"handle_path", "HTTP {\n\thandle_path /push/* {\n\t\twebsocket_api" + token + "}\n\t}" + rest,
			[]string{"/push/count"},
			[]string{"/count", "/push"},
			[]string{"/push/", "/push/push/count"},
		},
		{
			"handle and the option", "HTTP {\n\thandle /push/* {\n\t\twebsocket_api" + token + "\tprefix /push\n\t\t}\n\t}" + rest,
			[]string{"/push/count"},
			[]string{"/count"},
			[]string{"/push/x"},
		},
		{
			"a whole site", "HTTP {\n\twebsocket_api" + token + "}" + rest,
			[]string{"/count"},
			nil,
			[]string{"/", "/push/count", "/favicon.ico"},
		},
		{
			"every path", "HTTP {\n\twebsocket_api /*" + token + "}" + rest,
			[]string{"/count"},
			nil,
			[]string{"/", "/push/count"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := start(t, tt.site)
			api := s.caller(t, "http:", pushToken)
			for _, path := range tt.calls {
				api.want("GET", path, "", `{"clients": 0}`)
			}
			for _, path := range tt.pages {
				if a := api.ask("GET", path, ""); a.resp.StatusCode != http.StatusOK || a.body != "page" {
					t.Errorf("%s is answered with %s %q, want the page", path, a.resp.Status, a.body)
				}
			}
			for _, path := range tt.unknown {
				api.refused(api.ask("GET", path, ""), http.StatusNotFound, "unknown_call")
			}
			api.token = ""
			for _, path := range append(tt.calls, tt.unknown...) { // strangers learn nothing of calls
				api.refused(api.ask("GET", path, ""), http.StatusUnauthorized, "unauthorized")
			}
		})
	}
}

// A token belongs onto an encrypted line, and HTTP/2 is what most libraries speak
// there.
func TestPushAPIAnswersOverTLSAndHTTP2(t *testing.T) {
	s := start(t, strings.Replace(pushSite("token "+pushToken), "HTTP", "HTTPS", 1))
	tom := s.dial("wss:/chat?user=tom")
	for _, want := range []int{1, 2} {
		api := s.caller(t, "https:/push", pushToken)
		transport := api.http.Transport.(*http.Transport)
		transport.Protocols = new(http.Protocols)
		transport.Protocols.SetHTTP1(want == 1)
		transport.Protocols.SetHTTP2(want == 2)
		text := fmt.Sprint("over HTTP/", want)
		a := api.ask("POST", "/send", `{"to": {"users": ["tom"]}, "text": "`+text+`"}`)
		if a.resp.ProtoMajor != want || a.body != "{\"clients\":1}\n" || a.resp.TLS == nil || a.resp.TLS.Version != tls.VersionTLS13 {
			t.Errorf("%s: answered by %s with %s %q", text, a.resp.Proto, a.resp.Status, a.body)
		}
		tom.want(text)
		api.token = "wrong-wrong-wrong-wrong"
		api.refused(api.ask("GET", "/count", ""), http.StatusUnauthorized, "unauthorized")
	}
}

// File permissions are the simplest thing that can decide who pushes; an address to log
// there is none.
func TestPushAPIAnswersOnAUnixSocket(t *testing.T) {
	s := newServer(t)
	socket := filepath.Join(filepath.Dir(s.admin), "push")
	s.mustLoad("", pushSite("insecure_no_token")+"\nhttp://push {\n\tbind unix/"+socket+"|0660\n\twebsocket_api {\n\t\ttoken "+pushToken+"\n\t}\n}")
	tom := s.dial("ws:/chat?user=tom")
	api := s.caller(t, "http:", pushToken)
	api.base = "http://push"
	api.http.Transport.(*http.Transport).DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}
	api.host = "push"
	api.want("POST", "/send", `{"to": {"users": ["tom"]}, "text": "by a socket"}`, `{"clients": 1}`)
	tom.want("by a socket")
	api.token = ""
	api.refused(api.ask("GET", "/count", ""), http.StatusUnauthorized, "unauthorized")
	s.log.wait(t, "a call of the push API was refused")
}
