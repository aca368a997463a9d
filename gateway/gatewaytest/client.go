package gatewaytest

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
)

// Client is the other side of a connection. A method that waits longer than Wait
// fails the test.
type Client struct {
	// Conn is gorilla's end, for what the methods here do not do.
	Conn *websocket.Conn

	// Net is the connection below, to write broken frames to or to cut.
	Net *Conn

	// Response is the answer to the handshake.
	Response *http.Response

	t testing.TB
}

// Wait bounds how long a test waits for something that is expected.
const Wait = 20 * time.Second

// Dial connects to a path like "/chat?room=a". Header fields for the handshake
// come as "Name: value"; the field "From-IP: 2001:db8::1" chooses the address to
// connect from instead. The test fails if the handshake is refused.
func (s *Server) Dial(path string, header ...string) *Client {
	s.t.Helper()
	c, resp, err := s.dial(path, header) //nolint:bodyclose // gorilla answers with a body that needs no Close
	if err != nil {
		status := "no answer"
		if resp != nil {
			status = resp.Status
		}
		s.t.Fatalf("connecting to %s: %v (%s)", path, err, status)
	}
	s.t.Cleanup(func() { _ = c.Net.Close() })
	return c
}

// Refused connects like Dial, and fails the test unless the handshake is refused
// with this status. It returns the answer, whose body has been read.
func (s *Server) Refused(status int, path string, header ...string) *http.Response {
	s.t.Helper()
	c, resp, err := s.dial(path, header)
	switch {
	case err == nil:
		_ = c.Net.Close()
		s.t.Fatalf("connecting to %s was not refused, want %d", path, status)
	case resp == nil:
		s.t.Fatalf("connecting to %s: no answer: %v, want %d", path, err, status)
	case resp.StatusCode != status:
		s.t.Fatalf("connecting to %s was refused with %s, want %d", path, resp.Status, status)
	}
	return resp
}

func (s *Server) dial(path string, header []string) (*Client, *http.Response, error) {
	c := &Client{t: s.t}
	ip := DefaultIP
	fields := http.Header{}
	for _, line := range header {
		name, value, _ := strings.Cut(line, ": ")
		if name == "From-IP" {
			ip = value
			continue
		}
		fields.Add(name, value)
	}
	dialer := websocket.Dialer{
		HandshakeTimeout: Wait,
		NetDialContext: func(context.Context, string, string) (net.Conn, error) {
			conn, err := s.Connect(ip)
			c.Net = conn
			return conn, err
		},
	}
	conn, resp, err := dialer.Dial("ws://gateway.test"+path, fields)
	if err != nil && c.Net != nil {
		_ = c.Net.Close()
	}
	c.Conn, c.Response = conn, resp
	return c, resp, err
}

// Send sends a text message.
func (c *Client) Send(text string) {
	c.t.Helper()
	if err := c.Conn.WriteMessage(websocket.TextMessage, []byte(text)); err != nil {
		c.t.Fatalf("sending %.100q: %v", text, err)
	}
}

// Write writes bytes below the protocol.
func (c *Client) Write(p []byte) {
	c.t.Helper()
	if _, err := c.Net.Write(p); err != nil {
		c.t.Fatalf("writing %d bytes: %v", len(p), err)
	}
}

// Receive returns the next message.
func (c *Client) Receive() string {
	c.t.Helper()
	_ = c.Conn.SetReadDeadline(time.Now().Add(Wait))
	_, data, err := c.Conn.ReadMessage()
	if err != nil {
		c.t.Fatalf("receiving: %v", err)
	}
	return string(data)
}

// Want fails the test unless the next messages are these.
func (c *Client) Want(messages ...string) {
	c.t.Helper()
	for _, want := range messages {
		if got := c.Receive(); got != want {
			c.t.Fatalf("received %.200q, want %.200q", got, want)
		}
	}
}

// WantJSON fails the test unless the next message is a JSON object that has at
// least the entries of the one given, with equal values. It returns the message.
func (c *Client) WantJSON(object string) map[string]any {
	c.t.Helper()
	var want, got map[string]any
	if err := json.Unmarshal([]byte(object), &want); err != nil {
		c.t.Fatalf("the test's own JSON %s: %v", object, err)
	}
	text := c.Receive()
	if err := json.Unmarshal([]byte(text), &got); err != nil {
		c.t.Fatalf("received %.200q, want JSON: %v", text, err)
	}
	for key, v := range want {
		if !reflect.DeepEqual(got[key], v) {
			c.t.Fatalf("received %s, want %q to be %v", text, key, v)
		}
	}
	return got
}

// WantClose fails the test unless a close frame with this code comes next, or,
// for 1006, the connection ends without one. It returns the reason.
func (c *Client) WantClose(code int) (reason string) {
	c.t.Helper()
	_ = c.Conn.SetReadDeadline(time.Now().Add(Wait))
	_, data, err := c.Conn.ReadMessage()
	if err == nil {
		c.t.Fatalf("received %.200q, want close %d", data, code)
	}
	if closed, ok := errors.AsType[*websocket.CloseError](err); ok {
		if closed.Code != code {
			c.t.Fatalf("closed with %d %q, want %d", closed.Code, closed.Text, code)
		}
		return closed.Text
	}
	if code != websocket.CloseAbnormalClosure {
		c.t.Fatalf("connection ended with %v, want close %d", err, code)
	}
	return ""
}

// Close sends a close frame.
func (c *Client) Close(code int, reason string) {
	c.t.Helper()
	frame := websocket.FormatCloseMessage(code, reason)
	if err := c.Conn.WriteControl(websocket.CloseMessage, frame, time.Now().Add(Wait)); err != nil {
		c.t.Fatalf("sending close %d: %v", code, err)
	}
}

// Cut ends the connection without a word.
func (c *Client) Cut() { _ = c.Net.Close() }
