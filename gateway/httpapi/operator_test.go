package httpapi_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-websocket/caddy-websocket/gateway"
	"github.com/caddy-websocket/caddy-websocket/gateway/gatewaytest"
	"github.com/caddy-websocket/caddy-websocket/gateway/httpapi"
)

// tail is GET /tail over a connection in memory.
type tail struct {
	t     testing.TB
	lines *bufio.Reader
	hang  func() // hangs up
}

// overHTTP serves the API, for what a recorder cannot show.
func (tn *town) overHTTP() *http.Client { return tn.overHTTPCounted(new(atomic.Int64)) }

// overHTTPCounted counts the connections that were made.
func (tn *town) overHTTPCounted(conns *atomic.Int64) *http.Client {
	s := gatewaytest.ServeHandler(tn.t, tn.api)
	transport := &http.Transport{DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
		conns.Add(1)
		return s.DialContext(ctx, network, addr)
	}}
	tn.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

func (tn *town) tail(c *http.Client, query string) (*tail, *http.Response) {
	tn.t.Helper()
	ctx, cancel := context.WithCancel(tn.t.Context())
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://api.test/tail"+tn.fill(query), http.NoBody)
	if err != nil {
		tn.t.Fatal(err)
	}
	resp, err := c.Do(r)
	if err != nil {
		tn.t.Fatal(err)
	}
	hang := func() {
		cancel()
		_ = resp.Body.Close()
	}
	tn.t.Cleanup(hang)
	return &tail{t: tn.t, lines: bufio.NewReader(resp.Body), hang: hang}, resp
}

// next returns the next line.
func (l *tail) next() map[string]any {
	l.t.Helper()
	line, err := l.lines.ReadString('\n')
	if err != nil {
		l.t.Fatalf("the tail ended: %v", err)
	}
	var v map[string]any
	if err := json.Unmarshal([]byte(line), &v); err != nil {
		l.t.Fatalf("the line %q: %v", line, err)
	}
	d, err := document()
	if err != nil {
		l.t.Fatal(err)
	}
	wantSchema(l.t, line, under(l.t, d, "components", "schemas", "TailLine"), "GET /tail")
	return v
}

func (l *tail) want(want string) {
	l.t.Helper()
	v := l.next()
	got := fmt.Sprintln(v["type"], v["endpoint"], v["message"], v["size"], v["payload"], v["code"], v["by_peer"])
	if got != want+"\n" {
		l.t.Fatalf("the next line is %s, want %s", got, want)
	}
}

// An operator sees what happens when it happens.
func TestTailShowsWhatHappens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tn := newTown(t, httpapi.Options{Operator: true, Payload: 4})
		c := tn.overHTTP()
		synctest.Wait()
		all, resp := tn.tail(c, "")
		if got := resp.Header.Get("Content-Type"); resp.StatusCode != http.StatusOK || got != "application/x-ndjson" {
			t.Fatalf("answered %s %s", resp.Status, got)
		}
		messages, _ := tn.tail(c, "?messages=true&payload=4&endpoint=chat")
		onlyAnn, _ := tn.tail(c, "?messages=true&client={ann}")
		tn.conns["ann"].Send("hello")
		messages.want("message chat text 5 aGVsbA== <nil> <nil>")
		onlyAnn.want("message chat text 5 <nil> <nil> <nil>")
		tn.ask(http.MethodPost, "/send", `{"to": {"all": true}, "binary": "AA=="}`)
		for range 3 {
			messages.want("send chat binary 1 AA== <nil> <nil>")
		}
		onlyAnn.want("send chat binary 1 <nil> <nil> <nil>")
		tn.connect("/other?as=new")
		all.want("connect other <nil> <nil> <nil> <nil> <nil>")
		tn.ask(http.MethodPost, "/close", `{"to": {"users": ["7"]}, "code": 4000}`)
		tn.conns["ann"].Want("\x00")
		tn.conns["ann"].WantClose(4000)
		_ = tn.conns["ann"].Net.Close()
		all.want("close chat <nil> <nil> <nil> 4000 <nil>")
		onlyAnn.want("close chat <nil> <nil> <nil> 4000 <nil>")
	})
}

// A tail of a quiet gateway says that it lives, so that one that is dead is noticed
// at both ends.
func TestQuietTailHasAHeartbeat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tn := newTown(t, httpapi.Options{Operator: true})
		synctest.Wait()
		l, _ := tn.tail(tn.overHTTP(), "?endpoint=quiet")
		start := time.Now()
		for i := range 3 {
			if v := l.next(); v["heartbeat"] == nil {
				t.Fatalf("the line is %v, want a heartbeat", v)
			}
			if since := time.Since(start); since != time.Duration(i+1)*15*time.Second {
				t.Errorf("heartbeat %d comes after %s", i, since)
			}
		}
	})
}

// Nobody waits for a reader who stands still; what he missed he is told, and one
// who never reads on is given up.
func TestTailThatStandsStillHoldsUpNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tn := newTown(t, httpapi.Options{Operator: true})
		synctest.Wait()
		c := tn.overHTTP()
		l, _ := tn.tail(c, "?messages=true")
		const bursts, each = 40, 100
		burst := func() {
			t.Helper()
			for range each {
				tn.ask(http.MethodPost, "/send", `{"to": {"users": ["7"]}, "text": "x"}`)
			}
			tn.times()
		}
		for range bursts {
			burst()
		}
		events, missed := 0, 0
		for missed == 0 {
			v := l.next()
			if n, ok := v["missed"].(float64); ok {
				missed += int(n)
				continue
			}
			events++
		}
		if most := bursts * (each + 4); events+missed > most || events == 0 {
			t.Errorf("%d events and %d missed, there were %d", events, missed, most)
		}
		for range bursts { // and now he has fallen asleep
			burst()
		}
		time.Sleep(11 * time.Second)
		synctest.Wait()
		for range 16 { // as many as there may be: his place is free
			if _, resp := tn.tail(c, "?endpoint=none"); resp.StatusCode != http.StatusOK {
				t.Fatalf("answered %s", resp.Status)
			}
		}
	})
}

// Forgotten tails must not pile up.
func TestTailsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tn := newTown(t, httpapi.Options{Operator: true})
		c := tn.overHTTP()
		var last *tail
		for range 16 {
			l, resp := tn.tail(c, "")
			if resp.StatusCode != http.StatusOK {
				t.Fatalf("answered %s", resp.Status)
			}
			last = l
		}
		got := tn.ask(http.MethodGet, "/tail", "")
		tn.refused(got, http.StatusTooManyRequests, httpapi.CodeTooManyRequests, "16 tails")
		if got.header.Get("Retry-After") == "" {
			t.Error("there is no Retry-After")
		}
		last.hang()
		synctest.Wait()
		if _, resp := tn.tail(c, ""); resp.StatusCode != http.StatusOK {
			t.Errorf("after one has hung up: %s", resp.Status)
		}
	})
}

// Who is allowed one endpoint sees the events of that one.
func TestTailShowsNobodyOfAnotherEndpoint(t *testing.T) {
	for _, allowed := range [][]string{{"chat"}, {"chat", "third"}} {
		synctest.Test(t, func(t *testing.T) {
			tn := newTown(t, httpapi.Options{Operator: true, Endpoints: allowed, Payload: 100})
			c := tn.overHTTP()
			synctest.Wait()
			var tails []*tail
			for _, query := range []string{"?messages=true&payload=100", "?endpoint=other&messages=true", "?client={eve}&messages=true"} {
				l, _ := tn.tail(c, query)
				tails = append(tails, l)
			}
			tn.conns["eve"].Send("secret")
			if _, err := tn.Gateway.Send(gateway.All(), gateway.Text("x")); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			for range 3 {
				if v := tails[0].next(); v["endpoint"] != "chat" || v["type"] != "send" {
					t.Errorf("it shows %v", v)
				}
			}
			for _, l := range tails { // then nothing, for so long
				if v := l.next(); v["heartbeat"] == nil {
					t.Errorf("it shows %v", v)
				}
			}
		})
	}
}

// A machine is taken out of service, and back, by two calls.
func TestDrainAndResume(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tn := newTown(t, httpapi.Options{Operator: true})
		synctest.Wait()
		done := make(chan reply)
		go func() { done <- ask(tn.api, http.MethodPost, "/drain", `{"restart": true, "timeout": "20s"}`) }()
		for _, who := range []string{"ann", "bob1", "bob2", "eve"} {
			tn.conns[who].WantClose(gateway.CloseServiceRestart)
			_ = tn.conns[who].Net.Close()
		}
		if got := <-done; got.body != "{\"draining\":true,\"clients\":0}\n" {
			t.Errorf("drained: %d %s", got.status, got.body)
		}
		tn.Refused(http.StatusServiceUnavailable, "/chat?as=late")
		tn.want(http.MethodPost, "/resume", "", `{"draining": false, "clients": 0}`)
		tn.connect("/chat?as=late")
	})
}

// Who hangs up while a machine is drained has not said that half of the clients
// should stay; and a drain does not wait for ever.
func TestDrainGoesOnWithoutItsCallerAndEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tn := newTown(t, httpapi.Options{Operator: true})
		synctest.Wait()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		r, err := http.NewRequestWithContext(ctx, http.MethodPost, "/drain", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		done := make(chan struct{})
		go func() {
			defer close(done)
			tn.api.ServeHTTP(discard{}, r)
		}()
		tn.conns["ann"].WantClose(gateway.CloseGoingAway) // the others do not answer their close frames
		<-done
		if took := time.Since(start); took < time.Second || took > 30*time.Second {
			t.Errorf("it took %s", took)
		}
	})
}

type discard struct{}

func (discard) Header() http.Header         { return http.Header{} }
func (discard) WriteHeader(int)             {}
func (discard) Write(p []byte) (int, error) { return len(p), errors.New("hung up") }

// At a shutdown a tail shows the last close and ends: it must not hold up the
// server that waits for its requests.
func TestTailEndsWithTheGateway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tn := newTown(t, httpapi.Options{Operator: true})
		synctest.Wait()
		var conns atomic.Int64
		overHTTP := tn.overHTTPCounted(&conns)
		l, _ := tn.tail(overHTTP, "")
		for _, c := range tn.conns {
			go func() {
				for {
					if _, _, err := c.Conn.ReadMessage(); err != nil {
						return
					}
				}
			}()
		}
		if err := tn.Gateway.Shutdown(t.Context()); err != nil {
			t.Fatal(err)
		}
		for range 4 {
			if v := l.next(); v["type"] != "close" || v["code"] != 1001.0 {
				t.Errorf("the line is %v, want a close", v)
			}
		}
		if line, err := l.lines.ReadString('\n'); err == nil {
			t.Errorf("there follows %q", line)
		}
		time.Sleep(time.Minute) // no deadline is left on its connection, which serves on
		resp, err := overHTTP.Get("http://api.test/count")
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if n := conns.Load(); n != 1 {
			t.Errorf("there are %d connections, want 1", n)
		}
	})
}

// Without Operator there is nothing of that.
func TestOperatorsCallsAreForOperators(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tn := newTown(t, httpapi.Options{})
		for _, line := range [][2]string{{http.MethodGet, "/tail"}, {http.MethodPost, "/drain"}, {http.MethodPost, "/resume"}} {
			tn.refused(tn.ask(line[0], line[1], ""), http.StatusNotFound, httpapi.CodeUnknownCall, "no such call")
		}
		tn.listed("/clients", "ann", "bob1", "bob2", "eve")
	})
}

// leave waits for clients to be closed with a code, and answers.
func (tn *town) leave(code int, who ...string) {
	tn.t.Helper()
	for _, w := range who {
		tn.conns[w].WantClose(code)
		_ = tn.conns[w].Net.Close()
	}
}

// One machine is emptied from another; all of them only by who says all.
func TestNodesAreDrainedFromAnywhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ts := newTowns(t, httpapi.Options{Operator: true})
		done := make(chan reply)
		drain := func(query, body string) {
			go func() { done <- ask(ts.west.api, http.MethodPost, "/drain"+ts.west.fill(query), body) }()
		}
		state := func(node string, draining bool, clients int) string {
			return fmt.Sprintf(`{"node": %q, "draining": %t, "clients": %d}`, ts.west.id(node), draining, clients)
		}
		want := func(got reply, want string) {
			t.Helper()
			if got.status != http.StatusOK || !sameJSON(t, got.body, want) {
				t.Errorf("answered %d %s, want %s", got.status, got.body, want)
			}
		}
		both := func(draining bool, west, east int) string {
			first, second := state("west", draining, west), state("east", draining, east)
			if ts.west.id("east") < ts.west.id("west") {
				first, second = second, first
			}
			return `{"nodes": [` + first + `, ` + second + `]}`
		}
		drain("?node={east}", `{"restart": true}`)
		ts.east.leave(gateway.CloseServiceRestart, "cyd", "dan")
		want(<-done, `{"nodes": [`+state("east", true, 0)+`]}`)
		ts.east.Refused(http.StatusServiceUnavailable, "/chat?as=late")
		if ts.west.Gateway.Draining() {
			t.Error("the node that was asked is drained, too")
		}
		want(ts.west.ask(http.MethodPost, "/resume?node={east}", ""), `{"nodes": [`+state("east", false, 0)+`]}`)
		ts.east.connect("/chat?as=late")

		drain("?node=all", "")
		ts.west.leave(gateway.CloseGoingAway, "ann", "bob1", "bob2", "eve")
		ts.east.leave(gateway.CloseGoingAway, "late")
		want(<-done, both(true, 0, 0))
		want(ts.west.ask(http.MethodPost, "/resume?node=all", ""), both(false, 0, 0))

		// Who does not leave is in the answer.
		ts.west.connect("/chat?as=stays")
		drain("?node=self&node={east}&node={west}", `{"timeout": "100ms"}`)
		want(<-done, both(true, 1, 0))
		want(ts.west.ask(http.MethodPost, "/resume", ""), `{"draining": false, "clients": 1}`)
		if !ts.east.Gateway.Draining() {
			t.Error("without a node, others are resumed")
		}

		// And so is a node that says nothing.
		ts.broker.Cut(ts.east.Gateway.Node())
		got := ts.west.ask(http.MethodPost, "/resume?node={east}&node=self", "")
		var states httpapi.NodeStates
		if err := json.Unmarshal([]byte(got.body), &states); err != nil || len(states.Nodes) != 2 {
			t.Fatalf("answered %d %s (%v)", got.status, got.body, err)
		}
		for _, s := range states.Nodes {
			if silent := s.Node == ts.west.id("east"); silent != (s.Error != nil) || silent && s.Error.Code != httpapi.CodeNoAnswer {
				t.Errorf("of node %s it says %+v", s.Node, s.Error)
			}
		}
	})
}
