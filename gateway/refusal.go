package gateway

import (
	"errors"
	"fmt"
	"net/http"
)

// retryAfter is what a handshake that is refused for now is told to wait, in
// seconds.
const retryAfter = "5"

// HandshakeError refuses a handshake. From OnConnect it chooses the answer.
type HandshakeError struct {
	// Status is the HTTP status, 400 to 599. Zero means 403.
	Status int

	// Header is added to the answer's.
	Header http.Header

	// Err is the cause, for logs. It is not sent to the client.
	Err error
}

// Error says the status and the cause.
func (e *HandshakeError) Error() string {
	text := fmt.Sprintf("handshake refused with %d", e.status())
	if e.Err != nil {
		text += ": " + e.Err.Error()
	}
	return text
}

// Unwrap returns the cause.
func (e *HandshakeError) Unwrap() error { return e.Err }

func (e *HandshakeError) status() int {
	if e.Status < 400 || e.Status > 599 {
		return http.StatusForbidden
	}
	return e.Status
}

// refuse returns a HandshakeError with optional header fields, name and value in
// turn.
func refuse(status int, cause error, header ...string) *HandshakeError {
	h := make(http.Header, len(header)/2)
	for i := 0; i+1 < len(header); i += 2 {
		h.Set(header[i], header[i+1])
	}
	return &HandshakeError{Status: status, Header: h, Err: cause}
}

// unavailable returns a refusal for now: 503, and when to try again.
func unavailable(why error) *HandshakeError {
	return refuse(http.StatusServiceUnavailable, why, "Retry-After", retryAfter)
}

// RefuseOther returns the refusal of a request that is no handshake, for servers
// where nobody else answers it: 426, in HTTP/1.1 with the protocol to upgrade to,
// or 501 for an extended CONNECT with another protocol (RFC 9220 section 3).
func RefuseOther(r *http.Request) error {
	cause := errors.New("not a WebSocket handshake")
	if protocol, ok := extendedConnect(r); ok {
		return refuse(http.StatusNotImplemented, fmt.Errorf("%w: the protocol is %q", cause, protocol))
	}
	if r.ProtoMajor != 1 { // RFC 9113 section 8.2.2 forbids the fields
		return refuse(http.StatusUpgradeRequired, cause)
	}
	return refuse(http.StatusUpgradeRequired, cause, "Upgrade", "websocket", "Connection", "Upgrade")
}

// refusedBy turns what OnConnect returned into the refusal of the handshake.
func refusedBy(err error) error {
	refused, ok := errors.AsType[*HandshakeError](err)
	switch {
	case ok:
		return &HandshakeError{Status: refused.status(), Header: refused.Header, Err: err}
	case errors.Is(err, errPanic):
		return refuse(http.StatusInternalServerError, err)
	}
	return refuse(http.StatusForbidden, err)
}
