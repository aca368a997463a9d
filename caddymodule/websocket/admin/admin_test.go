package admin_test

import (
	"bufio"
	"crypto/rand"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-websocket/caddy-websocket/caddymodule/websocket/admin"
)

// An operator asks before anything is configured, too, and must learn that, and not
// find a broken endpoint.
func TestAdminWorksWithoutAnyGateway(t *testing.T) {
	s := start(t, "respond hello")
	if res, body := s.ask(http.MethodGet, "/websocket/", ""); res.StatusCode != http.StatusOK || strings.TrimSpace(body) != `{"gateways":[]}` {
		t.Errorf("the list is %d %s", res.StatusCode, body)
	}
	for _, path := range []string{"/websocket/clients", "/websocket/tail", "/websocket/no-such-call"} {
		if res, body := s.ask(http.MethodGet, path, ""); res.StatusCode != http.StatusNotFound || !strings.Contains(body, "no websocket is configured") {
			t.Errorf("GET %s: %d %s", path, res.StatusCode, body)
		}
	}
	if res, body := s.ask(http.MethodPost, "/websocket/drain", ""); res.StatusCode != http.StatusNotFound {
		t.Errorf("drain: %d %s", res.StatusCode, body)
	}
}

// Which gateway a call is for decides who is closed: it is named, or the default,
// and never guessed.
func TestCallsAreForTheGatewayThatIsNamed(t *testing.T) {
	s := start(t, twoGateways)
	s.dial("/echo?user=ann")
	other := s.dial("/other")
	for path, want := range map[string]string{
		"/websocket/count":                   `{"clients":1}`,
		"/websocket/count?user=ann":          `{"clients":1}`,
		"/websocket/count?gateway=default":   `{"clients":1}`,
		"/websocket/users?gateway=other":     `{"names":[]}`,
		"/websocket/users?prefix=an":         `{"names":[{"name":"ann","clients":1}]}`,
		"/websocket/count?gateway=%6fther":   `{"clients":1}`,
		"/websocket/count?x&gateway=other":   `unknown parameter`,
		"/websocket/count?gateway=":          `the value is empty`,
		"/websocket/count?gateway=a&gateway": `given 2 times`,
		"/websocket/count?gateway=%zz":       `gateway: invalid URL escape`,
		"/websocket/count?gateway=else":      `"code":"unknown_gateway","message":"there is no gateway \"else\": there are default, other"`,
		"/websocket/?gateway=else":           `there are default, other`,
		"/websocket/?gatway=other":           `unknown parameter: allowed are gateway, node`,
		"/websocket/?node=x":                 `"code":"unknown_node","message":"no node \"x\" is known: there are `,
		"/websocket/?node=all&node=self":     `node: all stands alone`,
		"/websocket/count?node=x":            `"code":"unknown_node"`,
		"/websocket/nodes?gateway=other":     `"clients":1,"self":true`,
		"/websocket/no-such-call":            `"code":"unknown_call"`,
	} {
		if _, body := s.ask(http.MethodGet, path, ""); !strings.Contains(body, want) {
			t.Errorf("GET %s: %s, want %s", path, body, want)
		}
	}
	if res, body := s.ask(http.MethodPost, "/websocket/", "{}"); res.StatusCode != http.StatusMethodNotAllowed || res.Header.Get("Allow") != "GET, HEAD" {
		t.Errorf("POST /websocket/: %d %s", res.StatusCode, body)
	}
	if _, body := s.ask(http.MethodPost, "/websocket/send?gateway=other", `{"to":{"all":true},"text":"to other"}`); strings.TrimSpace(body) != `{"clients":1}` {
		t.Errorf("send: %s", body)
	}
	other.want("to other")

	_, body := s.ask(http.MethodGet, "/websocket/", "")
	var all admin.Gateways
	if err := json.Unmarshal([]byte(body), &all); err != nil || len(all.Gateways) != 2 {
		t.Fatalf("the list is %s (%v)", body, err)
	}
	for i, want := range []struct {
		gateway, endpoint string
		users             int
	}{{"default", "/echo", 1}, {"other", "/other", 0}} {
		if got := all.Gateways[i]; got.Gateway != want.gateway || got.Users != want.users || got.Clients != 1 || got.Endpoints[0].Endpoint != want.endpoint {
			t.Errorf("gateway %d is %+v", i, got)
		}
	}
	if _, body := s.ask(http.MethodGet, "/websocket/?gateway=other", ""); strings.Contains(body, `"default"`) || !strings.Contains(body, `"other"`) {
		t.Errorf("the list of one is %s", body)
	}
}

// Before a restart nobody wants to look up how many gateways there are.
func TestDrainWithoutAGatewayIsForAll(t *testing.T) {
	s := start(t, twoGateways)
	one, two := s.dial("/echo"), s.dial("/other")
	closed := make(chan struct{}, 2)
	for _, c := range []*client{one, two} {
		go func() { // drain waits until they are gone, and they go when they have answered
			c.wantClose(1012, "server is restarting")
			closed <- struct{}{}
		}()
	}
	_, body := s.ask(http.MethodPost, "/websocket/drain", `{"restart":true}`)
	if want := `{"gateways":[{"gateway":"default","draining":true,"clients":0},{"gateway":"other","draining":true,"clients":0}]}`; strings.TrimSpace(body) != want {
		t.Errorf("drain: %s, want %s", body, want)
	}
	<-closed
	<-closed
	for _, path := range []string{"/echo", "/other"} {
		if _, res, err := s.tryDial(path); err == nil || res == nil || res.StatusCode != http.StatusServiceUnavailable {
			t.Errorf("a handshake at %s while drained: %v", path, err)
		}
	}
	if _, body := s.ask(http.MethodPost, "/websocket/resume?gateway=other", ""); strings.TrimSpace(body) != `{"draining":false,"clients":0}` {
		t.Errorf("resume of one: %s", body)
	}
	s.dial("/other")
	if err := s.load("close_rate 100", twoGateways); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.tryDial("/echo"); err == nil {
		t.Error("a reload ended the drain")
	}
	if _, body := s.ask(http.MethodPost, "/websocket/resume", ""); !strings.Contains(body, `{"gateway":"default","draining":false,"clients":0}`) {
		t.Errorf("resume: %s", body)
	}
	s.dial("/echo")
}

// What is wrong for all is answered once, as the call for one gateway answers it.
func TestDrainForAllRefusesWhatIsWrong(t *testing.T) {
	s := start(t, twoGateways)
	for body, status := range map[string]int{
		`{"timeout":"never"}`:           http.StatusBadRequest,
		`{"restart":1}`:                 http.StatusBadRequest,
		strings.Repeat(" ", 65<<10):     http.StatusBadRequest,
		`{"restart":true,"nobody":"x"}`: http.StatusBadRequest,
	} {
		res, text := s.ask(http.MethodPost, "/websocket/drain", body)
		if res.StatusCode != status || !strings.HasPrefix(text, `{"error":{"code":"`) {
			t.Errorf("drain %.40s: %d %s", body, res.StatusCode, text)
		}
	}
	if res, body := s.ask(http.MethodGet, "/websocket/drain", ""); res.StatusCode != http.StatusMethodNotAllowed || res.Header.Get("Allow") == "" {
		t.Errorf("GET drain: %d %s", res.StatusCode, body)
	}
	s.dial("/echo")
}

// A program that repeats a command because a reload has cut its connection must not
// send twice.
func TestIdempotencyKeyHoldsThroughAReload(t *testing.T) {
	s := start(t, twoGateways)
	c := s.dial("/echo")
	key := rand.Text()
	send := func() *http.Response {
		res, body := s.ask(http.MethodPost, "/websocket/send", `{"to":{"all":true},"text":"once"}`, "Idempotency-Key: "+key)
		if strings.TrimSpace(body) != `{"clients":1}` {
			t.Errorf("send: %s", body)
		}
		return res
	}
	send()
	c.want("once")
	if err := s.load("close_rate 100", twoGateways); err != nil {
		t.Fatal(err)
	}
	if again := send().Header.Get("Idempotency-Replayed"); again != "true" {
		t.Error("after a reload the command was done again")
	}
}

// lines reads an answer's lines, without heartbeats, as objects.
func lines(t testing.TB, body io.ReadCloser) <-chan map[string]any {
	all := make(chan map[string]any, 100)
	done := make(chan struct{})
	t.Cleanup(func() {
		body.Close()
		<-done
	})
	go func() {
		defer close(done)
		defer close(all)
		for scanner := bufio.NewScanner(body); scanner.Scan(); {
			var line map[string]any
			if json.Unmarshal(scanner.Bytes(), &line) == nil && line["heartbeat"] == nil {
				all <- line
			}
		}
	}()
	return all
}

// await returns the next line, nil if the answer has ended.
func await(t testing.TB, all <-chan map[string]any) map[string]any {
	t.Helper()
	select {
	case line := <-all:
		return line
	case <-time.After(wait):
		t.Fatal("no event and no end")
		return nil
	}
}

// Caddy replaces its admin server at each reload and waits ten seconds for what the
// old one still serves, and then logs an error: a tail must not be that.
func TestTailEndsWithItsAdminServer(t *testing.T) {
	s := start(t, twoGateways)
	for _, reload := range []struct {
		name    string
		options string
		fails   bool
	}{{"that succeeds", "close_rate 100", false}, {"that fails", "", true}, {"after one that failed", "close_rate 200", false}} {
		res := s.open(t.Context(), http.MethodGet, "/websocket/tail", "")
		events := lines(t, res.Body)
		c := s.dial("/echo")
		if e := await(t, events); e["type"] != "connect" || e["client_ip"] != "192.0.2.1" || e["endpoint"] != "/echo" {
			t.Errorf("the event is %v", e)
		}
		load := func() error { return s.load(reload.options, twoGateways) }
		if reload.fails {
			load = func() error { return s.loadFailing(twoGateways) }
		}
		err := load()
		if (err != nil) != reload.fails {
			t.Fatalf("the reload %s: %v", reload.name, err)
		}
		begun := time.Now()
		if e := await(t, events); e != nil {
			t.Errorf("a reload %s: the tail goes on with %v", reload.name, e)
		}
		if took := time.Since(begun); took > 5*time.Second {
			t.Errorf("a reload %s: the tail ended after %s", reload.name, took)
		}
		_ = c.Close()
		waitFor(t, "the client to be gone", func() bool {
			_, body := s.ask(http.MethodGet, "/websocket/count", "")
			return strings.TrimSpace(body) == `{"clients":0}`
		})
	}
}

// serveAPI serves the calls from a server of the test's own, which no reload replaces.
func serveAPI(t testing.TB, readTimeout time.Duration) (url string) {
	t.Helper()
	var api admin.API
	if err := api.Provision(caddy.Context{}); err != nil {
		t.Fatal(err)
	}
	handler := api.Routes()[0].Handler
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := handler.ServeHTTP(w, r); err != nil {
			t.Error(err)
		}
	}))
	server.Config.ReadTimeout = readTimeout
	server.Start()
	t.Cleanup(server.Close)
	return server.URL
}

// tailOf begins a tail.
func tailOf(t testing.TB, url string) <-chan map[string]any {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	return lines(t, res.Body)
}

// The admin server allows ten seconds for reading a request. A tail, which is silent
// for hours, must not end with that: net/http sees to it.
func TestTailOutlivesTheReadTimeout(t *testing.T) {
	s := start(t, twoGateways)
	const timeout = 50 * time.Millisecond
	events := tailOf(t, serveAPI(t, timeout)+"/websocket/tail")
	time.Sleep(5 * timeout) // no event tells that it is over
	s.dial("/echo")
	if e := await(t, events); e["type"] != "connect" {
		t.Errorf("the event is %v, want that the client connected", e)
	}
}

// Who may read the log may not read what people write to each other, unless the
// configuration says so, and only as long as it does.
func TestTailShowsPayloadOnlyWhileTheConfigurationAllowsIt(t *testing.T) {
	s := start(t, twoGateways)
	refused := func(path string) {
		t.Helper()
		if res, body := s.ask(http.MethodGet, path, ""); res.StatusCode != http.StatusBadRequest || !strings.Contains(body, "payload") {
			t.Errorf("GET %s: %d %s", path, res.StatusCode, body)
		}
	}
	const tail = "/websocket/tail?messages=true&payload=3"
	refused(tail)
	if err := s.load("admin_tail payload 4", twoGateways); err != nil {
		t.Fatal(err)
	}
	refused("/websocket/tail?messages=true&payload=5")
	// A tail that has found the new admin server while the old configuration still was in
	// force does not end with that server.
	events := tailOf(t, serveAPI(t, 0)+tail)
	s.dial("/echo") // says hello
	await(t, events)
	if e := await(t, events); e["type"] != "message" || e["size"] != 5.0 || e["payload"] != "aGVs" {
		t.Errorf("the event is %v, want the first three bytes of hello", e)
	}
	await(t, events) // the echo
	if err := s.load("", twoGateways); err != nil {
		t.Fatal(err)
	}
	if e := await(t, events); e != nil {
		t.Errorf("the tail goes on with %v", e)
	}
	refused(tail)
}
