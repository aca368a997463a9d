package gateway

import (
	"fmt"
	"unicode/utf8"
)

// Close codes that the gateway sends by itself, each with the meaning that
// RFC 6455 section 7.4.1 and the IANA registry give it. Applications choose
// theirs from 4000 to 4999.
//
// A client should not reconnect by itself after ClosePolicyViolation and after
// an application's code that says so; after all others it should, with growing
// and jittered pauses.
const (
	CloseNormal          = 1000 // the purpose is fulfilled
	CloseGoingAway       = 1001 // shutdown, endpoint removed, idle time-out
	CloseProtocolError   = 1002 // the peer broke RFC 6455
	CloseUnsupportedData = 1003 // a type of message that the endpoint does not take
	CloseNoStatus        = 1005 // only received: the close frame named no code
	CloseAbnormal        = 1006 // never on the wire: the connection was lost
	CloseInvalidPayload  = 1007 // a text message was not UTF-8
	ClosePolicyViolation = 1008 // rate limit, kicked
	CloseMessageTooBig   = 1009 // more than MaxMessageSize
	CloseInternalError   = 1011 // logic failed
	CloseServiceRestart  = 1012 // come back at once
	CloseTryAgainLater   = 1013 // the client is too slow, or the server is full
)

// MaxCloseReason is how many bytes of UTF-8 the reason of a close frame may
// have: a control frame carries 125, the code takes two (RFC 6455 section 5.5).
const MaxCloseReason = 123

// CloseReason says how a connection ended.
type CloseReason struct {
	// Code is what the closing side sent: CloseNoStatus if the peer's close
	// frame was empty, CloseAbnormal if there was none because the connection
	// was lost.
	Code int

	// Reason is the text beside the code, at most MaxCloseReason bytes. For
	// CloseAbnormal it says what was seen here instead.
	Reason string

	// ByPeer is true if the other side began: with a close frame or by
	// vanishing.
	ByPeer bool
}

// String returns for example "1001 going away".
func (r CloseReason) String() string {
	if r.Reason == "" {
		return fmt.Sprint(r.Code)
	}
	return fmt.Sprintf("%d %s", r.Code, r.Reason)
}

// CloseError, returned from a callback, closes the client with this code and
// reason. Like Client.Close it must name a code that may be sent.
type CloseError struct {
	Code   int
	Reason string
}

// Error says which close it asks for.
func (e *CloseError) Error() string {
	return "close " + CloseReason{Code: e.Code, Reason: e.Reason}.String()
}

// checkClose tells whether a close frame may carry code and reason (RFC 6455
// sections 5.5, 7.4.1 and 7.4.2).
func checkClose(code int, reason string) error {
	switch {
	case code >= 3000 && code <= 4999:
	case code >= 1000 && code <= 1014 && code != 1004 && code != CloseNoStatus && code != CloseAbnormal:
	default:
		return fmt.Errorf("close code %d may not be sent: allowed are 1000-1003, 1007-1014 and 3000-4999", code)
	}
	if len(reason) > MaxCloseReason {
		return fmt.Errorf("close reason has %d bytes: allowed are %d", len(reason), MaxCloseReason)
	}
	if !utf8.ValidString(reason) {
		return fmt.Errorf("close reason %q: %w", reason, ErrNotUTF8)
	}
	return nil
}

// closeReason cuts a text of our own to what fits a close frame.
func closeReason(s string) string {
	for len(s) > MaxCloseReason {
		_, size := utf8.DecodeLastRuneInString(s)
		s = s[:len(s)-size]
	}
	return s
}
