package gateway

import "net/http"

// AcceptDeflate is acceptDeflate, for tests.
func AcceptDeflate(h http.Header) string {
	return acceptDeflate(h)
}

// AcceptKey is what a server answers to a key.
var AcceptKey = acceptKey
