package webhook

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/caddy-websocket/caddy-websocket/gateway"
)

// The kinds of events.
const (
	eventConnect = "connect"
	eventMessage = "message"
	eventClose   = "close"
)

var kinds = []string{eventConnect, eventMessage, eventClose}

// event is something that happened to a client. Exactly one of Connect, Message
// and Close is set.
type event struct {
	Event   string   `json:"event"`
	Time    string   `json:"time"`
	Client  client   `json:"client"`
	Connect *connect `json:"connect,omitempty"`
	Message *message `json:"message,omitempty"`
	Close   *closed  `json:"close,omitempty"`
}

// client has no entry that is left out if empty: scripts need not ask.
type client struct {
	ID          string           `json:"id"`
	Endpoint    string           `json:"endpoint"`
	RealIP      string           `json:"client_ip"`
	User        string           `json:"user"`
	Groups      []string         `json:"groups"`
	Session     *gateway.Session `json:"session"`
	Subprotocol string           `json:"subprotocol"`
	ConnectedAt string           `json:"connected_at"`
}

// connect is the request of the handshake.
type connect struct {
	Method  string            `json:"method"`
	URI     string            `json:"uri"`
	Host    string            `json:"host"`
	Query   url.Values        `json:"query"`
	Headers http.Header       `json:"headers"`
	Cookies map[string]string `json:"cookies"`
}

// message has the one or the other.
type message struct {
	Text   *string `json:"text,omitempty"`
	Binary *[]byte `json:"binary,omitempty"` // base64
}

type closed struct {
	Code   int    `json:"code"`
	Reason string `json:"reason"`
	ByPeer bool   `json:"by_peer"`
}

func newEvent(kind string, c *gateway.Client) *event {
	groups := c.Groups()
	if groups == nil {
		groups = []string{}
	}
	return &event{
		Event: kind,
		Time:  timeOf(time.Now()),
		Client: client{
			ID: c.ID(), Endpoint: c.Endpoint(), RealIP: c.RealIP(), User: c.User(), Groups: groups,
			Session: c.Session(), Subprotocol: c.Subprotocol(), ConnectedAt: timeOf(c.ConnectedAt()),
		},
	}
}

func timeOf(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z07:00") }

func connectEvent(c *gateway.Client, r *http.Request) *event {
	e := newEvent(eventConnect, c)
	e.Connect = &connect{
		Method: r.Method, URI: r.RequestURI, Host: r.Host,
		Query: r.URL.Query(), Headers: endToEnd(r.Header), Cookies: make(map[string]string),
	}
	for _, cookie := range r.Cookies() {
		if _, twice := e.Connect.Cookies[cookie.Name]; !twice {
			e.Connect.Cookies[cookie.Name] = cookie.Value // the first is that of the longest path (RFC 6265 section 5.4)
		}
	}
	return e
}

// endToEnd returns the header without what is about the connection (RFC 9110
// section 7.6.1) or makes up the handshake.
func endToEnd(header http.Header) http.Header {
	h := header.Clone()
	if h == nil {
		h = make(http.Header)
	}
	delete(h, ":protocol") // of an extended CONNECT, where it is no field
	for _, list := range header.Values("Connection") {
		for name := range strings.SplitSeq(list, ",") {
			h.Del(strings.TrimSpace(name))
		}
	}
	for _, name := range []string{
		"Connection", "Keep-Alive", "Proxy-Connection", "Proxy-Authorization", "Te", "Trailer", "Transfer-Encoding", "Upgrade",
		"Sec-Websocket-Key", "Sec-Websocket-Version", "Sec-Websocket-Extensions",
	} {
		h.Del(name)
	}
	return h
}

func messageEvent(c *gateway.Client, m gateway.Message) *event {
	e := newEvent(eventMessage, c)
	e.Message = new(message)
	if m.Type == gateway.TextMessage {
		text := m.String()
		e.Message.Text = &text
	} else {
		data := m.Data
		if data == nil {
			data = []byte{} // in JSON "", not null
		}
		e.Message.Binary = &data
	}
	return e
}

func closeEvent(c *gateway.Client, reason gateway.CloseReason) *event {
	e := newEvent(eventClose, c)
	e.Close = &closed{Code: reason.Code, Reason: reason.Reason, ByPeer: reason.ByPeer}
	return e
}

// newRequest returns the body for one event.
func newRequest(e *event) ([]byte, error) {
	raw, err := encode(e)
	if err != nil {
		return nil, err
	}
	return joinEvents([]json.RawMessage{raw}), nil
}

func encode(e *event) (json.RawMessage, error) {
	raw, err := json.Marshal(e)
	if err != nil {
		return nil, fmt.Errorf("encoding the event %s: %w", e.Event, err)
	}
	return raw, nil
}

// joinEvents returns the body for events that are encoded. connect and message come
// alone, close events together.
func joinEvents(events []json.RawMessage) []byte {
	size := len(`{"events":[]}`)
	for _, e := range events {
		size += len(e) + 1
	}
	body := append(make([]byte, 0, size), `{"events":[`...)
	for i, e := range events {
		if i > 0 {
			body = append(body, ',')
		}
		body = append(body, e...)
	}
	return append(body, "]}"...)
}
