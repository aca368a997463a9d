package webhook

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
)

// setDefaults fills in what is not given.
func (w *Webhook) setDefaults() {
	if len(w.Events) == 0 {
		w.Events = slices.Clone(kinds)
	}
	if w.Timeout == 0 {
		w.Timeout = caddy.Duration(DefaultTimeout)
	}
	if w.Retries == nil {
		w.Retries = new(int)
		*w.Retries = DefaultRetries
	}
	if w.MaxConcurrent == 0 {
		w.MaxConcurrent = DefaultMaxConcurrent
	}
	if w.CloseBatch == nil {
		w.CloseBatch = new(CloseBatch)
	}
	if w.CloseBatch.Size == 0 {
		w.CloseBatch.Size = DefaultBatchSize
	}
	if w.CloseBatch.Interval == 0 {
		w.CloseBatch.Interval = caddy.Duration(DefaultBatchInterval)
	}
	if w.OnError == "" {
		w.OnError = onErrorIgnore
	}
}

// check tells whether the options could be used, as far as that is known before
// placeholders are resolved.
func (w *Webhook) check() error {
	if err := checkURL(w.URL); err != nil {
		return err
	}
	for i, kind := range w.Events {
		if !slices.Contains(kinds, kind) {
			return fmt.Errorf("events: unknown event %q: allowed are connect, message, close", kind)
		}
		if slices.Contains(w.Events[:i], kind) {
			return fmt.Errorf("events: %s is given twice", kind)
		}
	}
	if w.Timeout < 0 {
		return fmt.Errorf("timeout %s: allowed are positive durations", time.Duration(w.Timeout))
	}
	if r := w.Retries; r != nil && (*r < 0 || *r > maxRetries) {
		return fmt.Errorf("retries %d: allowed are 0 to %d", *r, maxRetries)
	}
	if w.MaxConcurrent < 0 || w.MaxConcurrent > maxMaxConcurrent {
		return fmt.Errorf("max_concurrent %d: allowed are 1 to %d", w.MaxConcurrent, maxMaxConcurrent)
	}
	if b := w.CloseBatch; b != nil {
		if b.Size < 0 || b.Size > maxBatchSize {
			return fmt.Errorf("close_batch %d: allowed are 1 to %d events", b.Size, maxBatchSize)
		}
		if b.Interval < 0 || b.Interval > caddy.Duration(maxBatchInterval) {
			return fmt.Errorf("close_batch: interval %s: allowed are positive durations up to %s", time.Duration(b.Interval), maxBatchInterval)
		}
	}
	if !slices.Contains([]string{"", onErrorIgnore, onErrorClose}, w.OnError) {
		return fmt.Errorf("on_error %q: allowed are %s, %s", w.OnError, onErrorIgnore, onErrorClose)
	}
	return checkHeaders(w.Headers)
}

// What OnError may be.
const (
	onErrorIgnore = "ignore"
	onErrorClose  = "close"
)

// Bounds of the options.
const (
	maxRetries       = 10
	maxMaxConcurrent = 10000
	maxBatchSize     = 1000
	maxBatchInterval = time.Minute
)

// checkURL looks at what the configuration has, which may have placeholders.
func checkURL(text string) error {
	if strings.Contains(text, "{") {
		return nil
	}
	_, err := parseURL(text)
	return err
}

func parseURL(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	if err != nil {
		return nil, errors.New("url: not understood: write it like http://127.0.0.1:8000/chat.php") // the error has the text, and in it maybe a password
	}
	if u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.Fragment != "" {
		return nil, fmt.Errorf("url %s: allowed are http:// and https:// with a host, and no fragment", u.Redacted())
	}
	return u, nil
}

// reserved are headers that say what only this package knows. (With Idempotency-Key
// net/http itself would send a request again.)
var reserved = []string{
	"Content-Type", "Content-Length", "Transfer-Encoding", "Connection", "Idempotency-Key", "X-Idempotency-Key",
	"Webhook-Id", "Webhook-Timestamp", "Webhook-Signature",
}

func checkHeaders(headers map[string][]string) error {
	for name, values := range headers {
		if name == "" || strings.Trim(name, tokenBytes) != "" {
			return fmt.Errorf("header %q: allowed are letters, digits and dashes", name)
		}
		if slices.Contains(reserved, http.CanonicalHeaderKey(name)) {
			return fmt.Errorf("header %s cannot be chosen", name)
		}
		for _, value := range values {
			if strings.ContainsFunc(value, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }) {
				return fmt.Errorf("header %s: a value has control characters", name)
			}
		}
	}
	return nil
}

const tokenBytes = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!#$%&'*+-.^_`|~" // RFC 9110 section 5.6.2
