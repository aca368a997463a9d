package httpapi

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"net/url"
)

// maxKey is how many bytes an Idempotency-Key may have.
const maxKey = 255

// command answers a command, the same as before if its key is known.
func (h *Handler) command(w http.ResponseWriter, r *http.Request, request [sha256.Size]byte, run func() (any, error)) error {
	key, err := h.key(r)
	if err != nil {
		return err
	}
	if key == "" {
		answer, err := run()
		if err != nil {
			return err
		}
		return Answer(w, r, http.StatusOK, answer)
	}
	known, begun := h.o.Replay.begin(replayKey{h.o.Scope, h.g.Name(), key}, request)
	switch {
	case begun != nil:
		return h.first(w, r, begun, run)
	case known.request != request:
		return failed(http.StatusUnprocessableEntity, CodeKeyReused, "Idempotency-Key %.50q belongs to another request", key)
	case !known.answered:
		return failed(http.StatusConflict, CodeKeyInUse, "the first request with Idempotency-Key %.50q is still being answered", key)
	}
	w.Header().Set("Idempotency-Replayed", "true")
	write(w, r, known.status, "application/json", known.body)
	return nil
}

// first does a command and remembers the answer, unless nothing was done.
func (h *Handler) first(w http.ResponseWriter, r *http.Request, begun *remembered, run func() (any, error)) error {
	remember := false
	defer func() {
		if !remember { // also after a panic
			h.o.Replay.forget(begun)
		}
	}()
	status := http.StatusOK
	answer, err := run()
	if err != nil {
		if _, changed := errors.AsType[*partial](err); !changed {
			return err
		}
		status, answer = result(err)
	}
	data, err := encode(answer)
	if err != nil {
		return err
	}
	remember = true
	h.o.Replay.finish(begun, status, data)
	write(w, r, status, "application/json", data)
	return nil
}

// key returns the Idempotency-Key, or "" if there is none.
func (h *Handler) key(r *http.Request) (string, error) {
	keys := r.Header.Values("Idempotency-Key")
	if len(keys) == 0 {
		return "", nil
	}
	key := keys[0]
	switch {
	case h.o.Replay == nil:
		return "", invalid(CodeInvalidKey, "Idempotency-Key: answers are not remembered here: leave it out")
	case len(keys) > 1:
		return "", invalid(CodeInvalidKey, "Idempotency-Key: given %d times, allowed is once", len(keys))
	case key == "" || len(key) > maxKey:
		return "", invalid(CodeInvalidKey, "Idempotency-Key: has %d bytes, allowed are 1 to %d", len(key), maxKey)
	}
	for i := range len(key) {
		if key[i] < ' ' || key[i] > '~' {
			return "", invalid(CodeInvalidKey, "Idempotency-Key: %.50q has characters that are not printable ASCII", key)
		}
	}
	return key, nil
}

// fingerprint tells requests apart that come with the same key.
func fingerprint(c *call, q query, body []byte) [sha256.Size]byte {
	return sha256.Sum256(fmt.Appendf(nil, "%s %s?%s\n%s", c.method, c.path, url.Values(q).Encode(), body))
}
