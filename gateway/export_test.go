package gateway

import "net/http"

// AcceptDeflate is acceptDeflate, for tests.
func AcceptDeflate(h http.Header) string {
	answer, _ := acceptDeflate(h)
	return answer
}
