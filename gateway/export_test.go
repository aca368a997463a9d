package gateway

import "net/http"

// AcceptDeflate is acceptDeflate, for tests.
func AcceptDeflate(h http.Header) string {
	return acceptDeflate(h)
}
