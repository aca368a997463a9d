package gateway

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"maps"
	"net/http"
	"slices"
	"strings"
)

// extendedConnect returns the :protocol of an extended CONNECT. net/http has it
// among the header fields, where no client can put it since its name is none of a
// field; quic-go puts it where other requests have their version.
func extendedConnect(r *http.Request) (protocol string, ok bool) {
	switch {
	case r.Method != http.MethodConnect:
		return "", false
	case r.ProtoMajor == 2:
		values := r.Header[":protocol"]
		if len(values) != 1 {
			return "", false
		}
		return values[0], true
	case r.ProtoMajor == 3:
		return r.Proto, !strings.HasPrefix(r.Proto, "HTTP/")
	}
	return "", false
}

// isStream tells whether a request is a handshake over HTTP/2 or HTTP/3.
func isStream(r *http.Request) bool {
	protocol, ok := extendedConnect(r)
	return ok && strings.EqualFold(protocol, "websocket")
}

// proto returns the version of HTTP of a request.
func proto(r *http.Request) string {
	switch r.ProtoMajor {
	case 1:
		return "HTTP/1.1" // no handshake is older
	case 2:
		return "HTTP/2.0"
	}
	return "HTTP/3.0"
}

// checkConnect tells whether an extended CONNECT is a handshake as RFC 8441 section
// 5 wants it: there is no key, since a client that can say :protocol knows what it
// does, and no 426, since nothing can be upgraded to.
func checkConnect(r *http.Request) error {
	switch {
	case !hasToken(r.Header, "Sec-Websocket-Version", "13"):
		return refuse(http.StatusBadRequest, errors.New("the WebSocket version is not 13"), "Sec-WebSocket-Version", "13")
	case r.ContentLength > 0:
		return refuse(http.StatusBadRequest, errors.New("the request has a body of a known length"))
	case r.TLS != nil && !r.TLS.HandshakeComplete:
		// Who recorded it could send it again, with the messages that follow (RFC 8470).
		return refuse(http.StatusTooEarly, errors.New("the handshake came as early data"))
	}
	return nil
}

// upgradeFields are what an answer has over HTTP/1.1 only.
var upgradeFields = []string{"Connection", "Upgrade", "Sec-WebSocket-Accept"}

// asUpgrade returns the HTTP/1.1 handshake that asks a backend for what an extended
// CONNECT asks for.
func (f *forwardWriter) asUpgrade(r *http.Request) *http.Request {
	var nonce [16]byte
	_, _ = rand.Read(nonce[:]) // never fails
	f.key = base64.StdEncoding.EncodeToString(nonce[:])
	shallow := *r
	shallow.Method, shallow.Proto, shallow.ProtoMajor, shallow.ProtoMinor = http.MethodGet, "HTTP/1.1", 1, 1
	shallow.Body, shallow.ContentLength = http.NoBody, 0
	shallow.Header = r.Header.Clone()
	maps.DeleteFunc(shallow.Header, func(name string, _ []string) bool { return strings.HasPrefix(name, ":") })
	shallow.Header.Set("Connection", "Upgrade")
	shallow.Header.Set("Upgrade", "websocket")
	shallow.Header.Set("Sec-WebSocket-Key", f.key)
	return &shallow
}

// streamStatus returns what a client over HTTP/2 or HTTP/3 is answered for a
// backend's status. Any 2xx would tell it that the socket is open.
func (f *forwardWriter) streamStatus(status int) int {
	h := f.Header()
	accepted := headerInAnyCase(h, "Sec-WebSocket-Accept")
	if status == http.StatusSwitchingProtocols || status >= http.StatusOK {
		maps.DeleteFunc(h, func(name string, _ []string) bool {
			return slices.ContainsFunc(upgradeFields, func(field string) bool { return strings.EqualFold(name, field) })
		})
	}
	switch {
	case status == http.StatusSwitchingProtocols && accepted == acceptKey(f.key):
		return http.StatusOK
	case status == http.StatusSwitchingProtocols, status >= http.StatusOK && status < http.StatusMultipleChoices:
		return http.StatusBadGateway
	}
	return status
}
