package httpapi_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/caddy-websocket/caddy-websocket/gateway"
	"github.com/caddy-websocket/caddy-websocket/gateway/gatewaytest"
	"github.com/caddy-websocket/caddy-websocket/gateway/httpapi"
)

// town is a gateway with two endpoints and clients of known names, and its API.
type town struct {
	*gatewaytest.Server
	t     testing.TB
	api   http.Handler
	conns map[string]*gatewaytest.Client
	ends  int

	mu  sync.Mutex
	ids map[string]string // guarded by mu
}

// newTown connects ann (user 7) and bob (user 8; twice, as bob1 and bob2) to
// /chat and eve to /other; ann, bob1 and eve are in room:1, bob2 in room:2, and
// eve in secret, too.
func newTown(t testing.TB, o httpapi.Options) *town {
	tn := emptyTown(t, gateway.Options{Logger: gatewaytest.Logger(t)}, o)
	tn.populate()
	return tn
}

func (tn *town) populate() {
	tn.connect("/chat?as=ann&user=7&group=room:1")
	tn.connect("/chat?as=bob1&user=8&group=room:1")
	tn.connect("/chat?as=bob2&user=8&group=room:2")
	tn.connect("/other?as=eve&user=eve&group=room:1&group=secret", "From-IP: 2001:db8::1")
}

// emptyTown has nobody in it.
func emptyTown(t testing.TB, of gateway.Options, o httpapi.Options) *town {
	tn := &town{t: t, conns: make(map[string]*gatewaytest.Client), ids: make(map[string]string)}
	logic := &gatewaytest.Recorder{Connect: func(c *gateway.Client, r *http.Request) error {
		q := r.URL.Query()
		tn.mu.Lock()
		tn.ids[q.Get("as")] = c.ID()
		tn.mu.Unlock()
		if err := c.Session().Set("as", q.Get("as")); err != nil {
			return err
		}
		if user := q.Get("user"); user != "" {
			if err := c.Bind(user); err != nil {
				return err
			}
		}
		return c.Join(q["group"]...)
	}}
	tn.Server = gatewaytest.ServeOptions(t, of,
		gatewaytest.Endpoint(t, "chat", gateway.EndpointOptions{Logic: logic}),
		gatewaytest.Endpoint(t, "other", gateway.EndpointOptions{Logic: logic}))
	tn.api = httpapi.New(tn.Gateway, o)
	return tn
}

func (tn *town) connect(path string, header ...string) {
	tn.t.Helper()
	_, as, _ := strings.Cut(path, "as=")
	as, _, _ = strings.Cut(as, "&")
	tn.conns[as] = tn.Dial(path, header...)
}

func (tn *town) id(who string) string {
	tn.mu.Lock()
	defer tn.mu.Unlock()
	return tn.ids[who]
}

// client returns the gateway's end of a client, which must be connected.
func (tn *town) client(who string) *gateway.Client {
	tn.t.Helper()
	c := tn.Gateway.Client(tn.id(who))
	if c == nil {
		tn.t.Fatalf("%s is not connected any more", who)
	}
	return c
}

// fill replaces {ann} by ann's client id.
func (tn *town) fill(text string) string {
	tn.mu.Lock()
	defer tn.mu.Unlock()
	for who, id := range tn.ids {
		text = strings.ReplaceAll(text, "{"+who+"}", id)
	}
	return text
}

// received returns what each of the clients that are connected has received since
// the last time.
func (tn *town) received() map[string][]string {
	tn.t.Helper()
	tn.ends++
	end := fmt.Sprint("end ", tn.ends)
	got := make(map[string][]string)
	for who, conn := range tn.conns {
		c := tn.Gateway.Client(tn.id(who))
		if c == nil {
			continue
		}
		if err := c.Send(gateway.Text(end)); err != nil {
			tn.t.Fatal(err)
		}
		for m := conn.Receive(); m != end; m = conn.Receive() {
			got[who] = append(got[who], m)
		}
	}
	return got
}

// wantReceived fails unless exactly these clients have received this, once.
func (tn *town) wantReceived(message string, who ...string) {
	tn.t.Helper()
	want := make(map[string][]string)
	for _, w := range who {
		want[w] = []string{message}
	}
	if got := tn.received(); !reflect.DeepEqual(got, want) {
		tn.t.Errorf("received %q, want %q", got, want)
	}
}

// reply is an answer of the API.
type reply struct {
	status int
	header http.Header
	body   string
}

// ask sends a request with a body of JSON, if there is one. Header fields come as
// "Name: value"; those with no value are left out.
func ask(api http.Handler, method, path, body string, header ...string) reply {
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for _, line := range header {
		name, value, _ := strings.Cut(line, ": ")
		if value == "" {
			r.Header.Del(name)
			continue
		}
		r.Header.Add(name, value)
		if name == "Content-Type" {
			r.Header.Set(name, value)
		}
	}
	w := httptest.NewRecorder()
	api.ServeHTTP(w, r)
	return reply{w.Code, w.Header(), w.Body.String()}
}

func (tn *town) ask(method, path, body string, header ...string) reply {
	return ask(tn.api, method, tn.fill(path), tn.fill(body), header...)
}

// want fails unless the answer is 200 and this JSON.
func (tn *town) want(method, path, body, want string) {
	tn.t.Helper()
	got := tn.ask(method, path, body)
	if got.status != http.StatusOK || !sameJSON(tn.t, got.body, tn.fill(want)) {
		tn.t.Errorf("%s %s %s: %d %s, want %s", method, path, body, got.status, got.body, tn.fill(want))
	}
}

// refused fails unless the answer is an error with this status and code, whose
// message has this in it.
func (tn *town) refused(got reply, status int, code, message string) {
	tn.t.Helper()
	var body httpapi.Result
	if err := json.Unmarshal([]byte(got.body), &body); err != nil || body.Error == nil {
		tn.t.Errorf("answered %d %q, want an error", got.status, got.body)
		return
	}
	if got.status != status || body.Error.Code != code || !strings.Contains(body.Error.Message, message) {
		tn.t.Errorf("answered %d %s %q, want %d %s with %q", got.status, body.Error.Code, body.Error.Message, status, code, message)
	}
}

func sameJSON(t testing.TB, a, b string) bool {
	t.Helper()
	var x, y any
	if err := json.Unmarshal([]byte(a), &x); err != nil {
		t.Fatalf("%q: %v", a, err)
	}
	if err := json.Unmarshal([]byte(b), &y); err != nil {
		t.Fatalf("the test's own JSON %q: %v", b, err)
	}
	return reflect.DeepEqual(x, y)
}

// idsOf returns the ids of the clients that a list names, and its next cursor.
func idsOf(t testing.TB, got reply) (ids []string, next string) {
	t.Helper()
	var list gateway.ClientList
	if err := json.Unmarshal([]byte(got.body), &list); err != nil || got.status != http.StatusOK {
		t.Fatalf("answered %d %q (%v), want a list of clients", got.status, got.body, err)
	}
	for _, c := range list.Clients {
		ids = append(ids, c.ID)
	}
	return ids, list.Next
}

// listed fails unless a list names exactly these clients.
func (tn *town) listed(path string, who ...string) {
	tn.t.Helper()
	ids, _ := idsOf(tn.t, tn.ask(http.MethodGet, path, ""))
	var want []string
	for _, w := range who {
		want = append(want, tn.id(w))
	}
	slices.Sort(want)
	if !slices.Equal(ids, want) {
		tn.t.Errorf("%s lists %q, want %q", path, ids, who)
	}
}
