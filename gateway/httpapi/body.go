package httpapi

import (
	"errors"
	"io"
	"mime"
	"net/http"
	"strings"
)

// readBody returns the body, which must be declared as JSON. With optional, it may
// be missing altogether.
func (h *Handler) readBody(w http.ResponseWriter, r *http.Request, optional bool) ([]byte, error) {
	if optional && r.ContentLength == 0 {
		return nil, nil
	}
	if err := checkMedia(r); err != nil {
		return nil, err
	}
	tooLarge := func(most int64) error {
		return failed(http.StatusRequestEntityTooLarge, CodeTooLarge, "the body is too large: allowed are %d bytes", most)
	}
	if r.ContentLength > h.o.MaxBody {
		return nil, tooLarge(h.o.MaxBody)
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, h.o.MaxBody))
	if most, ok := errors.AsType[*http.MaxBytesError](err); ok { // the limit may be another handler's
		return nil, tooLarge(most.Limit)
	}
	if err != nil {
		return nil, invalid(CodeMalformed, "the body ended early: %v", err)
	}
	return body, nil
}

// checkMedia also keeps pages of foreign origins out, whose forms cannot send this
// type.
func checkMedia(r *http.Request) error {
	const want = "Content-Type: application/json belongs there"
	given := r.Header.Get("Content-Type")
	media, params, err := mime.ParseMediaType(given)
	unsupported := func(format string, args ...any) error {
		return failed(http.StatusUnsupportedMediaType, CodeUnsupportedMedia, format, args...)
	}
	switch charset := params["charset"]; {
	case given == "":
		return unsupported("the body has no type: " + want)
	case err != nil || media != "application/json":
		return unsupported("the body is declared as %.100q: "+want, given)
	case charset != "" && !strings.EqualFold(charset, "utf-8"):
		return unsupported("charset %.50q: allowed is utf-8", charset)
	}
	if coding := r.Header.Get("Content-Encoding"); coding != "" && !strings.EqualFold(coding, "identity") {
		return unsupported("Content-Encoding %.50q: send the body as it is", coding)
	}
	return nil
}
