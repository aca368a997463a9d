package websocket_test

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-websocket/caddy-websocket/caddymodule/websocket"
)

// once sends a message with a key, and tells whether the answer was a remembered one.
func (c *caller) once(key, text string) (replayed bool) {
	c.t.Helper()
	a := c.ask("POST", "/send", `{"to": {"users": ["tom"]}, "text": "`+text+`"}`, "Idempotency-Key: "+key)
	if a.body != "{\"clients\":1}\n" {
		c.t.Errorf("%s with key %s is answered with %s %s", text, key, a.resp.Status, a.body)
	}
	return a.resp.Header.Get("Idempotency-Replayed") == "true"
}

// A program that got no answer since the configuration was just being replaced sends
// again, perhaps with the new token: the message must not arrive twice.
func TestReloadKeepsIdempotencyKeys(t *testing.T) {
	s := start(t, pushSite("token "+pushToken))
	tom := s.dial("ws:/chat?user=tom")
	api := s.caller(t, "http:/push", pushToken)
	if api.once("order-1", "one") {
		t.Error("the first request is answered from memory")
	}
	tom.want("one")
	s.mustLoad("", pushSite("token "+otherToken+"\n\t\tmax_body 1MiB"))
	api.refused(api.ask("GET", "/count", ""), http.StatusUnauthorized, "unauthorized")
	api.token = otherToken
	api.admitted()
	for range 2 {
		if !api.once("order-1", "one") {
			t.Error("after a reload the key is forgotten")
		}
	}
	api.refused(api.ask("POST", "/send", `{"to": {"users": ["tom"]}, "text": "another"}`, "Idempotency-Key: order-1"), http.StatusUnprocessableEntity, "key_reused")

	// A configuration that fails takes nothing along.
	if err := s.load("", pushSite("token "+otherToken)+"\nhttp://x.test:"+fmt.Sprint(s.http.Port())+" {\n\tbroken\n}"); err == nil {
		t.Fatal("the broken configuration was loaded")
	}
	if !api.once("order-1", "one") {
		t.Error("after a reload that failed the key is forgotten")
	}

	// With the last API of the gateway the memory goes, too: nothing holds it any more.
	s.mustLoad("", strings.Replace(pushSite("token "+pushToken), "websocket_api /push/*", "websocket_api /elsewhere/*", 1))
	s.mustLoad("", strings.Split(pushSite(""), "\twebsocket_api")[0]+"}")
	s.mustLoad("", pushSite("token "+otherToken))
	api.admitted()
	if api.once("order-1", "again") {
		t.Error("the key is remembered by an API that was gone")
	}
	tom.want("again") // and nothing twice before
	if n := websocket.References("default"); n != 1 {
		t.Errorf("%d configurations hold the gateway, want 1", n)
	}
}

// Keys are made up by each program for itself: two mounts with other rights or other
// gateways know nothing of each other's, and two instances of one line are one.
func TestMountsKeepIdempotencyKeysApart(t *testing.T) {
	s := start(t, `HTTP {
	websocket /chat {
		user tom
		logic probe x
	}
	websocket_api /push/* {
		token `+pushToken+`
	}
	websocket_api /narrow/* {
		token `+pushToken+`
		endpoints /chat
	}
	handle_path /same/* {
		websocket_api {
			token `+otherToken+`
			endpoints /chat
			prefix /narrow
		}
	}
}`)
	tom := s.dial("ws:/chat")
	wide, narrow, same := s.caller(t, "http:/push", pushToken), s.caller(t, "http:/narrow", pushToken), s.caller(t, "http:/same/narrow", otherToken)
	for i, c := range []*caller{wide, narrow} {
		if c.once("1", fmt.Sprint("by ", i)) {
			t.Errorf("%s is answered from another mount's memory", c.base)
		}
		tom.want(fmt.Sprint("by ", i))
	}
	if !same.once("1", "by 1") {
		t.Error("a mount like another does not know what that has answered")
	}
	// Even the same request is not the same at another mount.
	if wide.ask("POST", "/send", `{"to": {"users": ["tom"]}, "text": "by 1"}`, "Idempotency-Key: 1").resp.StatusCode != http.StatusUnprocessableEntity {
		t.Error("a key of one mount is known at another")
	}
}

// Deploying a configuration must not lose the push that is under way.
func TestReloadLetsACallInFlightFinish(t *testing.T) {
	s := start(t, pushSite("token "+pushToken))
	tom := s.dial("ws:/chat?user=tom")
	conn, err := net.Dial("tcp", s.http.String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(wait))
	const first, second = `{"to": {"users": ["tom"]}, `, `"text": "half before, half after"}`
	head := fmt.Sprintf("POST /push/send HTTP/1.1\r\nHost: 127.0.0.1\r\nExpect: 100-continue\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n",
		pushToken, len(first)+len(second))
	if _, err := conn.Write([]byte(head)); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(conn)
	if line, err := r.ReadString('\n'); err != nil || !strings.Contains(line, "100 Continue") { // the body is being read
		t.Fatalf("the head is answered with %q %v", line, err)
	}
	if _, err := r.ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write([]byte(first)); err != nil {
		t.Fatal(err)
	}
	config, err := adapt(t, s.caddyfile("", pushSite("token "+otherToken)))
	if err != nil {
		t.Fatal(err)
	}
	s.reloaded = true
	loaded := make(chan error, 1)
	go func() { loaded <- caddy.Load(config, true) }()
	next := s.caller(t, "http:/push", otherToken)
	s.waitFor("the new configuration", func() bool { return next.ask("GET", "/count", "").resp.StatusCode == http.StatusOK })
	if _, err := conn.Write([]byte(second)); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Errorf("answered with %s", resp.Status)
	}
	tom.want("half before, half after")
	if err := <-loaded; err != nil {
		t.Error(err)
	}
}

// An allow-list with a typo is an API that reaches nobody, and says 200 to everything.
func TestAllowedEndpointThatDoesNotExistIsNamedInTheLog(t *testing.T) {
	const msg = "the push API allows an endpoint that no directive websocket has: names are those of its matcher as written, like /chat, or of its option name"
	s := start(t, pushSite("token "+pushToken+"\n\t\tendpoints /chat chat"))
	line := s.log.wait(t, msg, "endpoint", "chat")
	if got := fmt.Sprint(line["there_are"]); line["level"] != "warn" || got != "[/chat]" {
		t.Errorf("the line is %v", line)
	}
	// After a reload, what is in force then counts.
	s.mustLoad("", pushSite("token "+pushToken+"\n\t\tendpoints /chat /news /typo")+`
http://news.test:`+fmt.Sprint(s.http.Port())+` {
	websocket /news
}`)
	s.log.wait(t, msg, "endpoint", "/typo")
	for _, there := range []string{"/chat", "/news"} {
		if s.log.find(msg, "endpoint", there) != nil {
			t.Errorf("%s is said not to exist", there)
		}
	}
}

// So is one for a gateway with a typo.
func TestPushAPIForAGatewayThatNobodyHasIsNamedInTheLog(t *testing.T) {
	const msg = "the push API is for a gateway that no directive websocket has: its calls reach nobody here"
	s := start(t, pushSite("token "+pushToken+"\n\t\tgateway shopp"))
	line := s.log.wait(t, msg, "gateway", "shopp")
	if got := fmt.Sprint(line["there_are"]); line["level"] != "warn" || got != "[default]" {
		t.Errorf("the line is %v", line)
	}
	// What comes with the same configuration is there.
	s.mustLoad("", pushSite("token "+pushToken+"\n\t\tgateway shop")+`
http://shop.test:`+fmt.Sprint(s.http.Port())+` {
	websocket /shop {
		gateway shop
	}
	websocket_api /other/* {
		token `+pushToken+`
		gateway typo
	}
}`)
	s.log.wait(t, msg, "gateway", "typo")
	for _, there := range []string{"default", "shop"} {
		if s.log.find(msg, "gateway", there) != nil {
			t.Errorf("%s is said not to exist", there)
		}
	}
}
