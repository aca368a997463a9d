package httpapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
)

// Codes of errors. They are stable: programs may tell errors apart by them.
const (
	CodeMalformed        = "malformed"          // 400: the body is not the JSON that the call takes
	CodeUnknownField     = "unknown_field"      // 400: the body has a field that the call does not know
	CodeInvalidQuery     = "invalid_query"      // 400: a query parameter is unknown or its value not allowed
	CodeInvalidTarget    = "invalid_target"     // 400: "to" names nobody, or contradicts itself
	CodeInvalidMessage   = "invalid_message"    // 400: not exactly one of text, binary and json
	CodeInvalidCommand   = "invalid_command"    // 400: what is asked for cannot be done to any client
	CodeTooMany          = "too_many"           // 400: more commands or names than allowed
	CodeInvalidKey       = "invalid_key"        // 400: an Idempotency-Key that cannot be heeded
	CodeUnauthorized     = "unauthorized"       // 401: from who stands in front and lets callers in, not from here
	CodeUnknownCall      = "unknown_call"       // 404
	CodeUnknownClient    = "unknown_client"     // 404
	CodeUnknownNode      = "unknown_node"       // 404: in "to" or a parameter; nothing was done
	CodeMethodNotAllowed = "method_not_allowed" // 405
	CodeKeyInUse         = "key_in_use"         // 409: the first request with this Idempotency-Key is being answered
	CodeLimitExceeded    = "limit_exceeded"     // 409: for a client of the target it would have been too much
	CodeTooLarge         = "too_large"          // 413: the body
	CodeUnsupportedMedia = "unsupported_media"  // 415: the body is not declared as JSON
	CodeKeyReused        = "key_reused"         // 422: the Idempotency-Key belongs to another request
	CodeTooManyRequests  = "too_many_requests"  // 429: as many tails as there may be
	CodeInternal         = "internal"           // 500: a bug, here
	CodeShutdown         = "shutdown"           // 503: the gateway has ended
	CodeNoAnswer         = "no_answer"          // 504: from the node that knows
)

// Error is what an answer says about a refusal.
type Error struct {
	Code    string `json:"code"`
	Message string `json:"message"`
}

// Result is the answer to a command: how many clients it reached, or why none;
// both with CodeLimitExceeded.
type Result struct {
	// Clients is how many: of this node, or with wait of all that have answered.
	Clients *int `json:"clients,omitempty"`

	// Missing are nodes that did not answer in time, sorted. Whether they did the command,
	// or what they have, is not known.
	Missing []string `json:"missing,omitempty"`

	// LocalOnly is set if other nodes are meant, and could not be told or asked: the broker
	// cannot be reached, or takes no more. Those that are Missing did nothing, then.
	LocalOnly bool `json:"local_only,omitempty"`

	Error *Error `json:"error,omitempty"`
}

// Results is the answer to a batch.
type Results struct {
	Results []Result `json:"results"`
}

// failure is an error with its status.
type failure struct {
	status  int
	code    string
	message string
}

func (f *failure) Error() string { return f.message }

func failed(status int, code, format string, args ...any) *failure {
	return &failure{status, code, fmt.Sprintf(format, args...)}
}

// invalid is what is wrong with a request.
func invalid(code, format string, args ...any) *failure {
	return failed(http.StatusBadRequest, code, format, args...)
}

// partial is a failure that has changed some clients.
type partial struct {
	*failure
	done Result
}

// result returns an error as it is answered, with its status.
func result(err error) (int, Result) {
	var f *failure
	var r Result
	if p, ok := errors.AsType[*partial](err); ok {
		f, r = p.failure, p.done
	} else if f, ok = errors.AsType[*failure](err); !ok {
		// What the gateway says about a list: a limit that is not allowed.
		f = invalid(CodeInvalidQuery, "%v", err)
	}
	r.Error = &Error{f.code, f.message}
	return f.status, r
}

// refuse answers with an error.
func (h *Handler) refuse(w http.ResponseWriter, r *http.Request, err error) {
	status, body := result(err)
	switch status {
	case http.StatusConflict:
		if body.Error.Code == CodeKeyInUse {
			w.Header().Set("Retry-After", "1")
		}
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		w.Header().Set("Retry-After", "5")
	}
	_ = Answer(w, r, status, body)
}

// Refuse answers with an error in the form of the calls, for who mounts a Handler
// and has something to refuse.
func Refuse(w http.ResponseWriter, r *http.Request, status int, code, message string) {
	_ = Answer(w, r, status, Result{Error: &Error{code, message}}) // it can be encoded
}

// Answer writes JSON as the calls do. It fails only before anything is written.
func Answer(w http.ResponseWriter, r *http.Request, status int, body any) error {
	data, err := encode(body)
	if err != nil {
		return failed(http.StatusInternalServerError, CodeInternal, "encoding the answer: %v", err)
	}
	harden(w.Header())
	write(w, r, status, "application/json", data)
	return nil
}

// encode leaves <, > and & as they are: nobody takes this for HTML.
func encode(body any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(body)
	return b.Bytes(), err
}

func write(w http.ResponseWriter, r *http.Request, status int, contentType string, data []byte) {
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Content-Length", strconv.Itoa(len(data)))
	w.WriteHeader(status)
	if r.Method != http.MethodHead {
		_, _ = w.Write(data) //nolint:gosec // it is JSON or YAML, and said to be; an error means that nobody reads it
	}
}

// harden says that an answer is for the one who asked, and is what it says it is.
func harden(h http.Header) {
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
}
