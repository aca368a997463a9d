package websocket_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// around is Caddy with a site whose directive `websocket` stands among others.
type around struct {
	*server
	t       *testing.T
	backend *backend // nil if logic answers in process
}

// inBothModes runs check with Caddy twice: ENDPOINT in sites stands for logic in
// process first, and then for a backend.
func inBothModes(t *testing.T, globals, sites string, check func(t *testing.T, s *around)) {
	t.Helper()
	t.Run("logic", func(t *testing.T) {
		check(t, &around{startWith(t, globals, strings.ReplaceAll(sites, "ENDPOINT", "logic probe x")), t, nil})
	})
	t.Run("reverse_proxy", func(t *testing.T) {
		b := newBackend(t, false)
		check(t, &around{startWith(t, globals, strings.ReplaceAll(sites, "ENDPOINT", "reverse_proxy "+b.addr())), t, b})
	})
}

// open connects, and sees a message and its answer through.
func (s *around) open(url string, header ...string) *client {
	s.t.Helper()
	c, _ := s.openAndReport(url, header...)
	return c
}

// openAndReport is open; it also returns what a backend got.
func (s *around) openAndReport(url string, header ...string) (*client, http.Header) {
	s.t.Helper()
	c := s.dial(url, header...)
	var got http.Header
	if s.backend != nil {
		got = fields(s.t, c)
	}
	c.ask("tom", "tom")
	return c, got
}

// wantUser fails the test unless a connection with this header is a client of
// this user.
func (s *around) wantUser(user, url string, header ...string) {
	s.t.Helper()
	before := len(s.log.find("client connected"))
	c := s.open(url, header...)
	defer c.Close()
	s.waitFor("the log line", func() bool { return len(s.log.find("client connected")) > before })
	if got := s.log.find("client connected")[before]["user"]; got != user {
		s.t.Errorf("%s %q is user %q, want %q", url, header, got, user)
	}
}

// get sends a request that is no handshake.
func (s *around) get(path string) (*http.Response, string) {
	s.t.Helper()
	return s.request("GET " + path + " HTTP/1.1\nHost: 127.0.0.1\nConnection: close\n\n")
}

// What watches requests must see one that was answered with 101, at once: not
// one that lasts as long as the socket, and none with 0, 200 or an error.
func TestObserversSeeOneRequestWith101(t *testing.T) {
	spans := make(chan []byte, 16)
	collector := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if b, err := io.ReadAll(r.Body); err == nil {
			select {
			case spans <- b:
			default:
			}
		}
	}))
	t.Cleanup(collector.Close)
	for name, value := range map[string]string{
		"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf", "OTEL_BSP_SCHEDULE_DELAY": "10",
		"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": collector.URL + "/v1/traces", "OTEL_PROPAGATORS": "tracecontext",
	} {
		t.Setenv(name, value)
	}
	inBothModes(t, "metrics", `HTTP {
		log
		log_append who {query.who}
		tracing {
			span "socket of {query.who}"
		}
		websocket /ws {
			ENDPOINT
		}
	}`, func(t *testing.T, s *around) {
		c, got := s.openAndReport("ws:/ws?who=tom")
		line := s.log.wait(t, "handled request", "status", 101.0, "who", "tom")
		if n := len(s.log.find("handled request")); n != 1 {
			t.Errorf("%d access log lines, want 1", n)
		}
		const metric = "caddy_http_request_duration_seconds_count"
		s.waitFor("the metric of code 101", func() bool { return s.metric(metric, `code="101"`) == "1" })
		if in, other := s.metric("caddy_http_requests_in_flight"), s.metric(metric, `code="200"`); in != "0" || other != "0" {
			t.Errorf("%s requests in flight and %s with code 200, want none", in, other)
		}

		var span []byte // of the request; that of the handshake, inside of it, may come before
		for late := time.After(wait); !bytes.Contains(span, []byte("socket of ")); {
			select {
			case span = <-spans:
			case <-late:
				t.Fatalf("there is no span of the request while the socket lives; the last one is %q", span)
			}
		}
		// A key and the number 101, as OTLP's protobuf has them.
		for _, want := range []string{"socket of tom", "http.response.status_code\x12\x02\x18\x65"} {
			if !bytes.Contains(span, []byte(want)) {
				t.Errorf("the span has no %q: %q", want, span)
			}
		}
		trace, _ := line["traceID"].(string)
		if parent := got.Get("Traceparent"); trace == "" || s.backend != nil && !strings.Contains(parent, trace) {
			t.Errorf("the log has trace %q, the backend got parent %q", trace, parent)
		}
		c.ask("still here", "still here")
	})
}

// Whoever left a login in front of the socket must know that it works there, and
// that the name which logic sees is the one that was proven.
func TestLoginDecidesWhoTheUserIs(t *testing.T) {
	inBothModes(t, "", `HTTP {
		log
		basic_auth {
			tom $2b$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW
		}
		websocket /ws {
			user {http.auth.user.id}
			ENDPOINT
		}
	}`, func(t *testing.T, s *around) {
		const tom, wrong = "Authorization: Basic dG9tOnNlY3JldA==", "Authorization: Basic dG9tOndyb25n" // tom:secret, tom:wrong
		resp, _ := s.refused(http.StatusUnauthorized, "ws:/ws")
		if got := resp.Header.Get("WWW-Authenticate"); !strings.HasPrefix(got, "Basic ") {
			t.Errorf("a browser is asked for a password with %q", got)
		}
		s.refused(http.StatusUnauthorized, "ws:/ws", wrong)
		s.wantUser("tom", "ws:/ws", tom)
		s.log.wait(t, "handled request", "status", 101.0, "user_id", "tom")
		if s.backend != nil && s.backend.asked.Load() != 1 {
			t.Errorf("the backend got %d handshakes, want only that which was let in", s.backend.asked.Load())
		}
	})
}

// The same with a login server of one's own. It gets the handshake with its
// Upgrade, answers 200, and then the connection must still be there to take; and
// nobody may name himself.
func TestForwardAuthDecidesWhoTheUserIs(t *testing.T) {
	login := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.Header.Get("Cookie") {
		case "session=tom":
			w.Header().Set("Remote-User", "tom")
		case "session=nameless":
		default:
			http.Error(w, "log in first", http.StatusUnauthorized)
		}
	}))
	t.Cleanup(login.Close)
	inBothModes(t, "", `HTTP {
		forward_auth `+login.Listener.Addr().String()+` {
			uri /check
			copy_headers Remote-User>X-User
		}
		websocket /ws {
			user {header.X-User}
			ENDPOINT
		}
	}`, func(t *testing.T, s *around) {
		if _, text := s.refused(http.StatusUnauthorized, "ws:/ws", "X-User: tom"); !strings.Contains(text, "log in first") {
			t.Errorf("refused with %q, want the login server's words", text)
		}
		s.wantUser("tom", "ws:/ws", "Cookie: session=tom", "X-User: root")
		s.wantUser("", "ws:/ws", "Cookie: session=nameless", "X-User: root")
	})
}

// Middleware that wraps the answer, or bounds the request, is written for pages.
// It must do its work on the 101 or let it be, and leave the connection alone.
func TestMiddlewareForPagesLeavesTheSocketAlone(t *testing.T) {
	inBothModes(t, "metrics", `HTTP {
		log
		header +X-Foo one
		header >X-Bar later
		header -X-Backend
		request_body {
			max_size 10
		}
		timeouts {
			read_timeout 10ms
			write_timeout 10ms
		}
		encode gzip zstd {
			match {
				status 1xx 2xx
			}
		}
		templates
		intercept {
			@refused status 4xx
			handle_response @refused {
				respond "intercepted {resp.status_code}" 404
			}
		}
		websocket /ws {
			ENDPOINT
		}
	}`, func(t *testing.T, s *around) {
		c := s.open("ws:/ws", "Accept-Encoding: gzip, zstd")
		for name, want := range map[string]string{"X-Foo": "one", "X-Bar": "later", "X-Backend": "", "Content-Encoding": ""} {
			if got := c.resp.Header.Get(name); got != want {
				t.Errorf("%s is %q, want %q", name, got, want)
			}
		}
		if c.resp.StatusCode != http.StatusSwitchingProtocols {
			t.Errorf("the answer is %s", c.resp.Status)
		}
		long := strings.Repeat("x", 64<<10) // more than max_size
		for begun := time.Now(); time.Since(begun) < 100*time.Millisecond; {
			c.ask(long, long) // for longer than the time-outs
		}
		s.log.wait(t, "handled request", "status", 101.0)
		if s.backend != nil {
			if _, text := s.refused(http.StatusNotFound, "ws:/ws?refuse"); text != "intercepted 418" {
				t.Errorf("a refusal of the backend's is answered with %q, want what intercept makes of it", text)
			}
		}
	})
}

// An intercept without a condition answers everything, and finds the connection
// gone: that must be its own trouble and not the client's.
func TestInterceptOfEverythingDoesNotReachTheSocket(t *testing.T) {
	for name, what := range map[string]string{
		"a response": "handle_response {\n respond \"in the middle of a frame\" 200\n}",
		"a status":   "replace_status 200",
	} {
		t.Run(name, func(t *testing.T) {
			inBothModes(t, "", "HTTP {\n log\n intercept {\n "+what+"\n}\n websocket /ws {\n ENDPOINT\n}\n handle_errors {\n respond \"an error page\"\n}\n}\n",
				func(t *testing.T, s *around) {
					c := s.open("ws:/ws")
					s.log.wait(t, "handled request") // whatever its status
					c.ask("still here", "still here")
					c.leave(4001, "bye")
				})
		})
	}
}

// A refusal is an error of the site like any other, whoever answers handshakes;
// what happens to a socket after its 101 is none.
func TestHandleErrorsAnswersRefusalsAndNothingAfterThe101(t *testing.T) {
	inBothModes(t, "", `HTTP {
		log
		websocket /ws {
			max_clients 1
			ENDPOINT
		}
		handle_errors {
			header X-Error {err.status_code}
			respond "refused {err.status_code}"
		}
	}`, func(t *testing.T, s *around) {
		wantRefusal := func(status int, resp *http.Response, text string) {
			t.Helper()
			if want := fmt.Sprint("refused ", status); text != want || resp.Header.Get("X-Error") != fmt.Sprint(status) {
				t.Errorf("%s %q, want %q", resp.Status, text, want)
			}
		}
		c := s.open("ws:/ws")
		if c.resp.Header.Get("X-Error") != "" {
			t.Error("the 101 looks like an error")
		}
		resp, text := s.refused(http.StatusServiceUnavailable, "ws:/ws")
		wantRefusal(http.StatusServiceUnavailable, resp, text)
		resp, text = s.refused(http.StatusForbidden, "ws:/ws", "Origin: https://evil.example")
		wantRefusal(http.StatusForbidden, resp, text)
		resp, text = s.get("/ws")
		wantRefusal(http.StatusUpgradeRequired, resp, text)

		code := 1001
		if s.backend != nil {
			c.send("die")
		} else {
			_ = c.WriteMessage(1, []byte("no UTF-8: \xff"))
			code = 1007
		}
		c.wantClose(code)
		_ = c.SetReadDeadline(time.Now().Add(wait))
		if rest, _ := io.ReadAll(c.NetConn()); len(rest) > 0 {
			t.Errorf("after the close frame comes %q", rest)
		}
		_ = c.Close()
		s.log.wait(t, "client gone", "code", float64(code))
		for _, status := range []float64{101, 503, 403, 426} {
			s.log.wait(t, "handled request", "status", status)
		}
		if n := len(s.log.find("handled request")); n != 4 {
			t.Errorf("%d access log lines, want 4: one for each request", n)
		}
	})
}

// The matcher of the directive sees the request as the directives before it have
// left it, and what they set is there for user and join.
func TestDirectivesBeforeChangeWhatTheHandshakeIs(t *testing.T) {
	root := t.TempDir()
	if err := os.WriteFile(filepath.Join(root, "page.html"), []byte("the page"), 0o600); err != nil {
		t.Fatal(err)
	}
	const endpoint = "websocket /ws {\n user {header.X-User}\n ENDPOINT\n}\n"
	for _, tt := range []struct{ name, sites, url, user string }{
		{"rewrite", "HTTP {\n rewrite /old /ws?u=tom\n request_header X-User {query.u}\n " + endpoint + "}\n", "ws:/old", "tom"},
		{"rewrite keeps the query", "HTTP {\n rewrite /old /ws?{query}\n request_header X-User {query.u}\n " + endpoint + "}\n", "ws:/old?u=tom", "tom"},
		{"uri strip_prefix", "HTTP {\n uri strip_prefix /api\n " + endpoint + "}\n", "ws:/api/ws", ""},
		{"uri query", "HTTP {\n uri query +u tom\n websocket /ws {\n user {query.u}\n ENDPOINT\n}\n}\n", "ws:/ws", "tom"},
		{"method", "HTTP {\n method GET\n " + endpoint + "}\n", "ws:/ws", ""},
		{"try_files, and handshakes of every path", "HTTP {\n root " + root + "\n try_files {path} /page.html\n websocket {\n ENDPOINT\n}\n file_server\n}\n", "ws:/anything", ""},
		{"a page that catches all else", "HTTP {\n root " + root + "\n handle /ws {\n " + endpoint + "}\n handle {\n try_files {path} /page.html\n file_server\n}\n}\n", "ws:/ws", ""},
		{"handle", "HTTP {\n handle /ws {\n " + endpoint + "}\n handle {\n respond no 404\n}\n}\n", "ws:/ws", ""},
		{"handle_path", "HTTP {\n handle_path /api/* {\n " + endpoint + "}\n}\n", "ws:/api/ws", ""},
		{"route", "HTTP {\n route /ws* {\n request_header X-User tom\n " + endpoint + " respond no 404\n}\n}\n", "ws:/ws", "tom"},
		{"route in written order", "HTTP {\n route {\n " + endpoint + " request_header X-User tom\n}\n}\n", "ws:/ws", ""},
		{"redir of another path", "HTTP {\n redir /old /ws\n " + endpoint + "}\n", "ws:/ws", ""},
		{"map", "HTTP {\n map {query.token} {who} {\n secret tom\n default \"\"\n}\n websocket /ws {\n user {who}\n ENDPOINT\n}\n}\n", "ws:/ws?token=secret", "tom"},
		{"map to nothing", "HTTP {\n map {query.token} {who} {\n secret tom\n default \"\"\n}\n websocket /ws {\n user {who}\n ENDPOINT\n}\n}\n", "ws:/ws?token=guess", ""},
		{"vars", "HTTP {\n vars who {query.u}\n websocket /ws {\n user member:{vars.who}\n ENDPOINT\n}\n}\n", "ws:/ws?u=tom", "member:tom"},
		{"vars with nothing in it", "HTTP {\n vars who {query.u}\n websocket /ws {\n user member:{vars.who}\n ENDPOINT\n}\n}\n", "ws:/ws", ""},
		{"a snippet with arguments", "(chat) {\n websocket {args[0]} {\n user {args[1]}\n ENDPOINT\n}\n}\nHTTP {\n import chat /a tom\n import chat /b ann\n}\n", "ws:/b", "ann"},
		{"a snippet with a block", "(chat) {\n websocket /ws {\n {block}\n}\n}\nHTTP {\n import chat {\n user tom\n ENDPOINT\n}\n}\n", "ws:/ws", "tom"},
		{"a named route", "&(chat) {\n request_header X-User tom\n " + endpoint + "}\nHTTP {\n invoke chat\n respond no 404\n}\n", "ws:/ws", "tom"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inBothModes(t, "", tt.sites, func(_ *testing.T, s *around) { s.wantUser(tt.user, tt.url) })
		})
	}
}

// The same for groups, which only clients of logic have.
func TestGroupsComeFromVarsAndMap(t *testing.T) {
	s := start(t, `HTTP {
		vars team red
		map {query.role} {room} {
			~^admin admins
			guest   ""
			default users
		}
		request_header -X-Room
		request_header X-Room {query.room}
		websocket /ws {
			join team:{vars.team} {room} {header.X-Room}
			logic probe x
		}
	}`)
	s.dial("ws:/ws?role=administrator", "X-Room: spoofed").ask("groups", "admins team:red")
	s.dial("ws:/ws?role=guest").ask("groups", "team:red")
	s.dial("ws:/ws?room=a", "X-Room: spoofed").ask("groups", "a team:red users")
}

// try_files comes before the directive, and makes a page of every path that is no
// file. Who writes both side by side must get an answer that says so, and no hanging
// socket: `handle` (above) is what helps.
func TestTryFilesSideBySideTakesTheHandshake(t *testing.T) {
	root := t.TempDir()
	if err := os.WriteFile(filepath.Join(root, "page.html"), []byte("the page"), 0o600); err != nil {
		t.Fatal(err)
	}
	inBothModes(t, "", "HTTP {\n root "+root+"\n try_files {path} /page.html\n websocket /ws {\n ENDPOINT\n}\n file_server\n}\n",
		func(t *testing.T, s *around) {
			if _, text := s.refused(http.StatusOK, "ws:/ws"); text != "the page" {
				t.Errorf("answered with %q", text)
			}
		})
}

// A page and its socket share a path: what is no handshake is not for the
// backend of the socket either.
func TestRequestsThatAreNoHandshakePassABackendBy(t *testing.T) {
	inBothModes(t, "", `HTTP {
		websocket {
			name all
			ENDPOINT
		}
		respond "the page"
	}`, func(t *testing.T, s *around) {
		for _, path := range []string{"/", "/any"} {
			if resp, text := s.get(path); resp.StatusCode != http.StatusOK || text != "the page" {
				t.Errorf("GET %s: %s %q", path, resp.Status, text)
			}
			s.open("ws:" + path)
		}
		if s.backend != nil && s.backend.asked.Load() != 2 {
			t.Errorf("the backend got %d requests, want the two handshakes", s.backend.asked.Load())
		}
	})
}

// Two sites often have a socket under one path. If it is the same it counts as
// one; if it is not, the error shows where both are.
func TestTwoSitesWithOnePathShareAnEndpointOrAreRefused(t *testing.T) {
	second := reserve(t, loopback4)
	sites := func(most string) string {
		return "HTTP {\n websocket /ws {\n max_clients 1\n ENDPOINT\n}\n}\nhttp://" + second.String() + " {\n websocket /ws {\n max_clients " + most + "\n ENDPOINT\n}\n}\n"
	}
	inBothModes(t, "", sites("1"), func(t *testing.T, s *around) {
		bySecond := connection{network: "tcp", address: second.String()}
		c := s.dialBy(bySecond, "ws:/ws", "Host: "+second.String())
		s.refused(http.StatusServiceUnavailable, "ws:/ws")
		if s.backend != nil {
			fields(t, c)
		}
		c.ask("tom", "tom")

		different := strings.ReplaceAll(sites("2"), "ENDPOINT", "logic probe x")
		var want []string
		for i, line := range strings.Split(s.caddyfile("", different), "\n") {
			if strings.Contains(line, "websocket /ws") {
				want = append(want, fmt.Sprintf("at Caddyfile:%d", i+1))
			}
		}
		err := s.load("", different)
		if err == nil || len(want) != 2 || !strings.Contains(err.Error(), want[0]+" and "+want[1]+":") {
			t.Errorf("loading: %v, want an error with %q", err, want)
		}
		c.ask("tom", "tom")
	})
}

// A named route that several sites invoke is one endpoint, too.
func TestNamedRouteOfTwoSitesIsOneEndpoint(t *testing.T) {
	second := reserve(t, loopback4)
	inBothModes(t, "", "&(chat) {\n websocket /ws {\n max_clients 1\n ENDPOINT\n}\n}\nHTTP {\n invoke chat\n}\nhttp://"+second.String()+" {\n invoke chat\n}\n",
		func(t *testing.T, s *around) {
			s.open("ws:/ws")
			conn, resp, err := s.tryDial(connection{network: "tcp", address: second.String()}, "ws:/ws", []string{"Host: " + second.String()})
			if err == nil {
				_ = conn.Close()
			}
			if resp == nil || resp.StatusCode != http.StatusServiceUnavailable {
				t.Errorf("the second site answers %v %v, want 503", resp, err)
			}
		})
}
