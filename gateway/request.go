package gateway

import (
	"encoding/base64"
	"errors"
	"iter"
	"net/http"
	"strings"
)

// IsHandshake tells whether a request asks for the WebSocket protocol: its
// Upgrade header has the token "websocket" (RFC 6455 section 4.1), or over HTTP/2
// (RFC 8441) and HTTP/3 (RFC 9220) it is a CONNECT whose :protocol is that.
func IsHandshake(r *http.Request) bool {
	return r.ProtoMajor == 1 && hasToken(r.Header, "Upgrade", "websocket") || isStream(r)
}

// checkRequest tells whether the request is a handshake as RFC 6455 section
// 4.2.1 wants it.
func checkRequest(r *http.Request) error {
	bad := func(what string) error { return refuse(http.StatusBadRequest, errors.New(what)) }
	if isStream(r) {
		return checkConnect(r)
	}
	switch {
	case !r.ProtoAtLeast(1, 1):
		return bad("the protocol is older than HTTP/1.1")
	case r.Method != http.MethodGet:
		return bad("the method is not GET")
	case !hasToken(r.Header, "Connection", "upgrade"):
		return bad("the Connection header has no token upgrade")
	case !hasToken(r.Header, "Upgrade", "websocket"):
		return bad("the Upgrade header has no token websocket")
	case !hasToken(r.Header, "Sec-Websocket-Version", "13"):
		return refuse(http.StatusUpgradeRequired, errors.New("the WebSocket version is not 13"),
			"Sec-WebSocket-Version", "13", "Upgrade", "websocket", "Connection", "Upgrade")
	case len(r.Header.Values("Sec-Websocket-Key")) != 1 || !isKey(r.Header.Get("Sec-Websocket-Key")):
		return bad("the Sec-WebSocket-Key is not 16 bytes in base64")
	case r.ContentLength != 0:
		// net/http would go on reading the body from a connection that is ours.
		return bad("the request has a body")
	}
	return nil
}

// isKey tells whether s is 16 bytes in base64.
func isKey(s string) bool {
	var in [24]byte // what 16 bytes make
	var out [18]byte
	if len(s) != len(in) {
		return false
	}
	copy(in[:], s)
	n, err := base64.StdEncoding.Decode(out[:], in[:])
	return err == nil && n == 16
}

// listItems returns the items of a header that is a list, on one line or several
// (RFC 9110 section 5.6.1).
func listItems(h http.Header, name string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for _, line := range h.Values(name) {
			for item := range strings.SplitSeq(line, ",") {
				if !yield(strings.TrimSpace(item)) {
					return
				}
			}
		}
	}
}

// hasToken tells whether a header that is a list of tokens has this one, in any
// case.
func hasToken(h http.Header, name, token string) bool {
	for item := range listItems(h, name) {
		if strings.EqualFold(item, token) {
			return true
		}
	}
	return false
}

// isToken tells whether s is a token of RFC 9110 section 5.6.2.
func isToken(s string) bool {
	const special = "!#$%&'*+-.^_`|~"
	for i := range len(s) {
		b := s[i]
		alnum := '0' <= b && b <= '9' || 'a' <= b && b <= 'z' || 'A' <= b && b <= 'Z'
		if !alnum && strings.IndexByte(special, b) < 0 {
			return false
		}
	}
	return s != ""
}
