package websocket_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-websocket/caddy-websocket/caddymodule/websocket"
	"github.com/caddy-websocket/caddy-websocket/gateway"
)

// newJSON runs Caddy with routes of one server, and what app says of the app
// websocket: a configuration that no Caddyfile was adapted to.
func newJSON(t *testing.T, app, routes string) *server {
	t.Helper()
	s := newServer(t)
	if err := s.loadJSON(s.json(app, routes)); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *server) json(app, routes string) []byte {
	return fmt.Appendf(nil, `{
		"admin": {"listen": "unix/%s", "config": {"persist": false}},
		"logging": {"logs": {"default": {"writer": {"output": "websocket_test"}, "encoder": {"format": "json"}}}},
		"apps": {
			"websocket": %s,
			"http": {"servers": {"main": {"listen": [%q], "automatic_https": {"disable": true}, "routes": [%s]}}}
		}}`, s.admin, app, s.http, routes)
}

// route is a route in JSON: handshakes at path, with options of the handler.
func route(path, options string) string {
	return fmt.Sprintf(`{"match": [{"path": [%q]}], "handle": [{"handler": "websocket", "name": %[1]q, %s}]}`, path, options)
}

const probeOld = `"logic": {"module": "probe", "text": "old"}`

// api changes or asks for a part of the configuration that runs, as operators do
// with curl. It returns what the API answers.
func (s *server) api(method, path, text string) (status int, answer string) {
	s.t.Helper()
	hc := &http.Client{Timeout: 2 * wait, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", s.admin)
		},
	}}
	var resp *http.Response
	for deadline := time.Now().Add(wait); ; {
		req, err := http.NewRequestWithContext(s.t.Context(), method, "http://127.0.0.1"+path, strings.NewReader(text))
		if err != nil {
			s.t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		if resp, err = hc.Do(req); err == nil {
			break
		}
		// The API is restarted with every configuration: what it had not read from is
		// lost then, and was not done.
		if !s.lost(err) || time.Now().After(deadline) {
			s.t.Fatalf("%s %s: %v", method, path, err)
		}
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	s.reloaded = s.reloaded || method != http.MethodGet
	return resp.StatusCode, strings.TrimSpace(string(b))
}

// mustAPI fails the test unless the API does what it is told.
func (s *server) mustAPI(method, path, text string) {
	s.t.Helper()
	if status, answer := s.api(method, path, text); status != http.StatusOK {
		s.t.Fatalf("%s %s %s: %d %s", method, path, text, status, answer)
	}
}

const routes = "/config/apps/http/servers/main/routes"

// Many generate JSON and have no Caddyfile: placeholders, defaults and the
// answers to mistakes must be those of the handler, not of its directive.
func TestJSONNeedsNoCaddyfile(t *testing.T) {
	s := newJSON(t, `{}`, route("/ws", `"user": "{http.request.uri.query.u}", "join": ["all", "{http.vars.none}"],
		"session": {"ip": "{http.vars.client_ip}"}, "message_rate": {"per_second": 1000, "burst": 100}, "ping": {"interval": "1m"},
		"max_clients_per_ip": 2, "logic": {"module": "probe", "text": "old"}`)+`, {"handle": [{"handler": "websocket", "logic": {"module": "echo"}}]}`)
	c := s.dial("ws:/ws?u=tom")
	c.ask("user", "tom")
	c.ask("groups", "all")
	c.ask("session", `{"ip":"127.0.0.1"}`)
	s.dial("ws:/any").ask("x", "x")
	s.log.wait(t, "client connected", "endpoint", websocket.DefaultEndpointName)

	for _, tt := range []struct{ name, app, options, err string }{
		{"mistyped option", `{}`, `"max_client": 1`, `unknown field "max_client"`},
		{"mistyped option of the app", `{"close_rat": 1}`, probeOld, `unknown field "close_rat"`},
		{"mistyped option of the logic", `{}`, `"logic": {"module": "probe", "texts": "x"}`, `unknown field "texts"`},
		{"unknown logic", `{}`, `"logic": {"module": "ech"}`, "websocket.logic.ech"},
		{"logic without a name", `{}`, `"logic": {"text": "x"}`, "module"},
		{"duration", `{}`, `"idle_timeout": "1 week"`, "1 week"},
		{"negative limit", `{}`, `"max_clients": -1`, "max clients is negative"},
		{"negative size", `{}`, `"max_message_size": -1`, "max message size is negative"},
		{"rate of 0", `{}`, `"message_rate": {"per_second": 0, "burst": 1}`, "rate"},
		{"policy", `{}`, `"send_buffer": {"when_full": "drop"}`, `"drop" for a full send buffer: allowed are close, drop_newest, drop_oldest`},
		{"compression level", `{}`, `"compression": {"level": 10}`, "10"},
		{"origin", `{}`, `"origins": ["example.com"]`, "example.com"},
		{"close_rate", `{"close_rate": -1}`, probeOld, "close_rate -1: allowed are positive numbers"},
		{"drain_timeout", `{"drain_timeout": "-1s"}`, probeOld, "drain_timeout -1s: allowed are positive durations"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := s.loadJSON(s.json(tt.app, route("/ws", tt.options)))
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("loading: %v, want an error with %q", err, tt.err)
			}
		})
	}
	c.ask("text", "old")
}

// One number is changed without a file: who is connected finds it, and nobody
// else notices.
func TestPatchReachesALiveSocket(t *testing.T) {
	s := newJSON(t, `{}`, route("/ws", `"max_clients": 1, `+probeOld)+","+route("/other", probeOld))
	c, other := s.dial("ws:/ws"), s.dial("ws:/other")
	c.ask("text", "old")
	s.mustAPI("PATCH", routes+"/0/handle/0/logic/text", `"new"`)
	c.ask("text", "new")
	s.mustAPI("PATCH", routes+"/0/handle/0/logic", `{"module": "reply", "template": "{ws.message} to {ws.client_ip}"}`)
	c.ask("tom", "tom to 127.0.0.1")

	s.refused(http.StatusServiceUnavailable, "ws:/ws")
	s.mustAPI("PATCH", routes+"/0/handle/0/max_clients", "2")
	s.dial("ws:/ws").ask("ann", "ann to 127.0.0.1")
	s.mustAPI("DELETE", routes+"/0/handle/0/max_clients", "")
	s.dial("ws:/ws").ask("joe", "joe to 127.0.0.1")

	s.mustAPI("PUT", routes+"/0/handle/0/max_message_size", "3")
	c.ask("tom", "tom to 127.0.0.1")
	c.send("more")
	c.wantClose(gateway.CloseMessageTooBig)
	other.ask("more text", "more text")
	other.ask("text", "old")
	if _, answer := s.api("GET", routes+"/0/handle/0/max_message_size", ""); answer != "3" {
		t.Errorf("the API says that max_message_size is %s", answer)
	}
	if n := websocket.References(defaultGateway); n != 1 {
		t.Errorf("%d configurations hold the gateway, want 1", n)
	}
}

// Tenants come and go by API calls: the one that goes is told, the others must
// not notice.
func TestRouteComesAndGoesOverTheAPI(t *testing.T) {
	s := newJSON(t, `{}`, route("/a", probeOld))
	a := s.dial("ws:/a")
	a.ask("text", "old")
	s.mustAPI("POST", routes, route("/b", `"logic": {"module": "probe", "text": "b"}`))
	s.mustAPI("POST", routes+"/...", "["+route("/c", `"logic": {"module": "probe", "text": "c"}`)+"]")
	b, c := s.dial("ws:/b"), s.dial("ws:/c")
	b.ask("text", "b")
	c.ask("text", "c")

	gone := make(chan struct{})
	go func() { // the answer waits for their goodbyes
		defer close(gone)
		b.wantClose(gateway.CloseGoingAway)
	}()
	s.mustAPI("DELETE", routes+"/1", "")
	<-gone
	s.log.wait(t, "client gone", "endpoint", "/b", "code", 1001.0, "reason", "endpoint was removed")
	a.ask("text", "old")
	c.ask("text", "c")
	if resp, _ := s.refused(http.StatusOK, "ws:/b"); resp.ContentLength != 0 {
		t.Errorf("the route that is gone answers with %d bytes", resp.ContentLength)
	}

	// It comes back in front of the others.
	s.mustAPI("PUT", routes+"/0", route("/b", `"logic": {"module": "probe", "text": "again"}`))
	s.dial("ws:/b").ask("text", "again")
	a.ask("text", "old")
	c.ask("text", "c")
}

// With @id a script needs not know where in the configuration something stands.
// The mark is no option: it must neither be refused nor make two of one endpoint.
func TestPartsWithAnIDChangeOverTheAPI(t *testing.T) {
	s := newJSON(t, `{}`, `{"@id": "site", "match": [{"path": ["/ws"]}], "handle": [
			{"@id": "chat", "handler": "websocket", "name": "chat", "logic": {"@id": "logic", "module": "probe", "text": "old"}}]},
		{"match": [{"path": ["/also"]}], "handle": [
			{"handler": "websocket", "name": "chat", "logic": {"module": "probe", "text": "old"}, "@id": "chat2"}]}`)
	c := s.dial("ws:/ws")
	c.ask("text", "old")

	// Both belong to one endpoint: only one cannot change.
	if status, answer := s.api("PATCH", "/id/logic/text", `"new"`); status == http.StatusOK || !strings.Contains(answer, `endpoint \"chat\"`) {
		t.Errorf("half of an endpoint was changed: %d %s", status, answer)
	}
	c.ask("text", "old")
	s.mustAPI("DELETE", "/id/chat2", "")
	s.mustAPI("PATCH", "/id/logic/text", `"new"`)
	c.ask("text", "new")
	s.mustAPI("PUT", "/id/chat/max_clients", "1")
	s.refused(http.StatusServiceUnavailable, "ws:/ws")
	if status, _ := s.api("PUT", "/id/chat/max_clients", "2"); status != http.StatusConflict {
		t.Errorf("PUT over what is there: %d, want 409", status)
	}
	s.mustAPI("PUT", "/id/site/handle/0", `{"handler": "headers", "response": {"set": {"X-Before": ["yes"]}}}`)
	s.mustAPI("DELETE", "/id/chat/max_clients", "")
	if got := s.dial("ws:/ws").resp.Header.Get("X-Before"); got != "yes" {
		t.Errorf("the handler that was put before is not there: %q", got)
	}
	c.ask("text", "new")
}

// A mistake in an API call is answered with what is wrong, and costs nothing: not
// a socket, not the configuration that it was to change.
func TestRefusedAPICallChangesNothing(t *testing.T) {
	s := newJSON(t, `{"close_rate": 10}`, route("/ws", `"max_clients": 1, `+probeOld))
	c := s.dial("ws:/ws")
	_, before := s.api("GET", "/config/", "")
	for _, tt := range []struct{ name, method, path, text, err string }{
		{"unknown logic", "PATCH", routes + "/0/handle/0/logic/module", `"nobody"`, "websocket.logic.nobody"},
		{"unknown option", "PUT", routes + "/0/handle/0/max_client", "1", "max_client"},
		{"type", "PATCH", routes + "/0/handle/0/max_clients", `"many"`, "max_clients"},
		{"number", "PATCH", routes + "/0/handle/0/max_clients", "-1", "max clients is negative"},
		{"another endpoint of the name", "POST", routes, route("/ws", `"max_clients": 2`), `endpoint \"/ws\" of gateway \"default\" is configured twice, differently`},
		{"logic beside a backend", "PUT", routes + "/0/handle/0/reverse_proxy", `{"handler": "reverse_proxy", "upstreams": [{"dial": "127.0.0.1:1"}]}`, "option logic has no meaning with reverse_proxy"},
		{"a backend that is none", "PATCH", routes + "/0/handle/0", `{"handler": "websocket", "reverse_proxy": {"handler": "static_response"}}`, "allowed is reverse_proxy"},
		{"close_rate", "PATCH", "/config/apps/websocket/close_rate", "-1", "close_rate -1: allowed are positive numbers"},
		{"close_rate as text", "PATCH", "/config/apps/websocket/close_rate", `"fast"`, "close_rate"},
		{"what is not there", "PATCH", "/config/apps/websocket/drain_timeout", `"1s"`, "does not exist"},
		{"no JSON", "PATCH", routes + "/0/handle/0", `{"handler": "websocket"`, "decoding request body"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			status, answer := s.api(tt.method, tt.path, tt.text)
			if status < 400 || !strings.Contains(answer, tt.err) {
				t.Errorf("answered with %d %s, want an error with %s", status, answer, tt.err)
			}
			var object struct{ Error string }
			if err := json.Unmarshal([]byte(answer), &object); err != nil || object.Error == "" {
				t.Errorf("the answer is no JSON with an error: %v", err)
			}
			c.ask("text", "old")
			s.refused(http.StatusServiceUnavailable, "ws:/ws")
			if _, after := s.api("GET", "/config/", ""); after != before {
				t.Errorf("the configuration is now %s, was %s", after, before)
			}
			if n := websocket.References(defaultGateway); n != 1 {
				t.Errorf("%d configurations hold the gateway, want 1", n)
			}
		})
	}
	s.mustAPI("PATCH", routes+"/0/handle/0/logic/text", `"new"`)
	c.ask("text", "new")
}

// The pace at which clients are told to go can be raised when it turns out too
// slow, for those that are connected already.
func TestCloseRateChangesOverTheAPI(t *testing.T) {
	// At the first rate this would take longer than the test waits.
	const many = 50
	s := newJSON(t, `{"close_rate": 1, "drain_timeout": "1h"}`, route("/a", probeOld)+","+route("/b", probeOld))
	b := s.dial("ws:/b")
	var clients []*client
	for range many {
		clients = append(clients, s.dial("ws:/a"))
	}
	s.mustAPI("PATCH", "/config/apps/websocket/close_rate", "100000")
	begun, done := time.Now(), make(chan struct{})
	go func() {
		defer close(done)
		for _, c := range clients {
			c.wantClose(gateway.CloseGoingAway)
			_ = c.Close()
		}
	}()
	s.mustAPI("DELETE", routes+"/0", "")
	<-done
	if took := time.Since(begun); took > wait {
		t.Errorf("%d clients were closed in %s", many, took)
	}
	b.ask("text", "old")
}

// Large sites keep an endpoint in a file of its own, next to others: a change in
// one reaches live clients, and a mistake is shown where it stands.
func TestImportedFilesAndSnippetsAreReloaded(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("snippets.conf", "(chat) {\n\twebsocket {args[0]} {\n\t\tlogic probe {args[1]}\n\t\t{block}\n\t}\n}\n")
	write("a.site", "import chat /a old\n")
	write("b.site", "import chat /b b {\n\tmax_clients 1\n}\n")
	sites := "import " + dir + "/snippets.conf\nHTTP {\n import " + dir + "/*.site\n}\n"
	s := start(t, sites)
	a, b := s.dial("ws:/a"), s.dial("ws:/b")
	a.ask("text", "old")
	b.ask("text", "b")
	s.refused(http.StatusServiceUnavailable, "ws:/b")

	write("a.site", "import chat /a new\n")
	s.mustLoad("", sites)
	a.ask("text", "new")
	b.ask("text", "b")

	for _, tt := range []struct {
		name, file, text string
		err              []string
	}{
		{"an option in a file", "c.site", "# ours\nwebsocket /c {\n\tmax_client 1\n}\n", []string{`unknown option "max_client"`, "c.site:3"}},
		{"an argument of a snippet", "c.site", "import chat /c x {\n\tmax_clients many\n}\n", []string{`max_clients "many"`}},
		{"the same name in two files", "c.site", "websocket /a {\n\tlogic echo\n}\n", []string{"configured twice, differently", "c.site:1", "snippets.conf:2"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			write(tt.file, tt.text)
			err := s.load("", sites)
			for _, want := range tt.err {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("loading: %v, want an error with %q", err, want)
				}
			}
			a.ask("text", "new")
		})
	}
	write("c.site", "import chat /c c\n")
	s.mustLoad("", sites)
	s.dial("ws:/c").ask("text", "c")
	a.ask("text", "new")
}

// logFile is a log of the handler's own, in a file. Caddy leaves out of its
// default log what such a log includes.
type logFile struct{ path string }

func (f logFile) option(level string) string {
	return "log clients {\n output file " + f.path + "\n include http.handlers.websocket\n level " + level + "\n}\n"
}

// find is lines.find for the file.
func (f logFile) find(t *testing.T, msg string, attrs ...any) []map[string]any {
	t.Helper()
	b, err := os.ReadFile(f.path)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	l := new(lines)
	_, _ = l.Write(b)
	return l.find(msg, attrs...)
}

// A log is moved, made quieter or turned off by a reload. For somebody who has
// been connected since before, the line of the goodbye goes where the log is now:
// not to a file that is closed, and not to one that is rotated away.
func TestReloadMovesTheLogOfLiveClients(t *testing.T) {
	dir := t.TempDir()
	first, second, third := logFile{filepath.Join(dir, "1")}, logFile{filepath.Join(dir, "2")}, logFile{filepath.Join(dir, "3")}
	site := "HTTP {\n websocket /ws {\n user {query.u}\n logic echo\n}\n}\n"
	s := startWith(t, first.option("INFO"), site)
	inDefault := func() int { return len(s.log.find("client gone")) }
	in := func(f logFile) func() int { return func() int { return len(f.find(t, "client gone")) } }

	steps := []struct {
		name   string
		reload func()
		where  string // first, second, default, third: how many lines are there then
		there  func() int
	}{
		{"as it was", func() {}, "1 0 0 0", in(first)},
		{"another file", func() { s.mustLoad(second.option("INFO"), site) }, "1 1 0 0", in(second)},
		{"quieter", func() { s.mustLoad(second.option("ERROR"), site) }, "1 1 0 0", nil},
		{"no log of its own", func() { s.mustLoad("", site) }, "1 1 1 0", inDefault},
		{"off", func() { s.mustAPI("PUT", "/config/logging/logs/default/exclude", `["http.handlers.websocket"]`) }, "1 1 1 0", nil},
		{"a third file", func() { s.mustLoad(third.option("INFO"), site) }, "1 1 1 1", in(third)},
	}
	var clients []*client
	for i := range steps {
		c := s.dial(fmt.Sprintf("ws:/ws?u=%d", i))
		c.ask("x", "x")
		clients = append(clients, c)
	}
	for i, step := range steps {
		step.reload()
		clients[i].ask("still here", "still here")
		clients[i].leave(1000, "")
		s.waitFor("client to be gone", func() bool { return countClients(t) == len(steps)-i-1 })
		if step.there != nil {
			before := strings.Count(step.where, "1") // one line each
			s.waitFor("the line: "+step.name, func() bool { return in(first)()+in(second)()+inDefault()+in(third)() >= before && step.there() == 1 })
		}
		if got := fmt.Sprint(in(first)(), in(second)(), inDefault(), in(third)()); got != step.where {
			t.Errorf("%s: %s lines in the first, second, default and third log, want %s", step.name, got, step.where)
		}
	}
	for i, f := range map[int]logFile{0: first, 1: second, 5: third} {
		if len(f.find(t, "client gone", "user", fmt.Sprint(i))) != 1 {
			t.Errorf("%s is not about client %d", f.path, i)
		}
	}
	s.log.wait(t, "client gone", "user", "3")
}

// countClients returns how many clients there are.
func countClients(t *testing.T) int {
	t.Helper()
	g, err := gatewayOf(caddy.ActiveContext())
	if err != nil {
		t.Fatal(err)
	}
	list, err := g.Clients(t.Context(), gateway.Query{})
	if err != nil {
		t.Fatal(err)
	}
	return len(list.Clients)
}

// A removed endpoint is in no configuration any more, and its clients' goodbyes
// must still be in a log.
func TestGoodbyeOfARemovedEndpointIsLogged(t *testing.T) {
	dir := t.TempDir()
	first, second := logFile{filepath.Join(dir, "1")}, logFile{filepath.Join(dir, "2")}
	s := startWith(t, first.option("INFO"), "HTTP {\n websocket /ws {\n logic echo\n}\n}\n")
	c := s.dial("ws:/ws")
	c.ask("x", "x")
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		c.wantClose(gateway.CloseGoingAway)
	}()
	s.mustLoad(second.option("INFO"), "HTTP {\n websocket /other\n}\n")
	<-gone
	attrs := []any{"endpoint", "/ws", "code", 1001.0, "reason", "endpoint was removed"}
	s.waitFor("its line", func() bool {
		return len(first.find(t, "client gone", attrs...))+len(second.find(t, "client gone", attrs...)) == 1
	})
}

// Metrics that are switched on by a reload count requests from then on. A socket
// from before is no request, and must not make their gauge wrong.
func TestMetricsAreSwitchedOnUnderALiveSocket(t *testing.T) {
	const site = "HTTP {\n websocket /ws {\n logic echo\n}\n}\n"
	const metric = "caddy_http_request_duration_seconds_count"
	s := start(t, site)
	before := s.dial("ws:/ws")
	before.ask("x", "x")
	if got := s.metric(metric); got != "0" {
		t.Errorf("metrics are off and count %s requests", got)
	}
	reload := func(globals string, n int) {
		s.mustLoad(globals, site)
		s.waitFor("the old API to end", func() bool { return len(s.log.find("stopped previous server", "address", "unix/"+s.admin)) == n })
	}
	reload("metrics", 1)
	s.dial("ws:/ws").ask("x", "x")
	s.waitFor("the metric of code 101", func() bool { return s.metric(metric, `code="101"`) == "1" })
	before.ask("still here", "still here")
	before.leave(1000, "")
	s.log.wait(t, "client gone")
	if got := s.metric("caddy_http_requests_in_flight"); got != "0" {
		t.Errorf("%s requests are in flight, want none", got)
	}
	reload("", 2)
	s.dial("ws:/ws").ask("x", "x")
	if got := s.metric(metric); got != "0" {
		t.Errorf("metrics are off and count %s requests", got)
	}
}
