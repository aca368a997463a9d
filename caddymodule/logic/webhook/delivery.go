package webhook

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// delivery is one request, until it is answered or given up.
type delivery struct {
	kind  string
	id    string // made by deliver if empty
	body  []byte
	again bool                // it may be sent again, though the backend may have had it
	use   func(*answer) error // an error says that the answer is no good

	requests context.Context // ends a request
	waits    context.Context // ends waiting: for a slot, and between attempts
}

// failure is how a delivery failed at last.
type failure struct {
	err      error
	status   int    // of the answer; 0 if none came
	body     []byte // the beginning of the answer
	header   http.Header
	unsent   bool // the backend has certainly not seen the request
	passing  bool // it may go better next time
	attempts int
}

// deliver sends a request until it is answered, and has the answer used.
func (b *backend) deliver(d *delivery) *failure {
	d.id = cmp.Or(d.id, newID())
	seen := false // by the backend, maybe
	for attempt := 1; ; attempt++ {
		failed := b.attempt(d)
		if failed == nil {
			return nil
		}
		seen = seen || !failed.unsent
		failed.attempts, failed.unsent = attempt, !seen
		if !failed.passing || seen && !d.again || attempt > b.retries {
			return failed
		}
		const first, most = 250 * time.Millisecond, 10 * time.Second
		select {
		case <-time.After(min(first<<(attempt-1), most)):
		case <-d.waits.Done():
			return failed
		}
	}
}

// attempt sends a request once, when there is a slot, and keeps the slot until the
// answer has been used.
func (b *backend) attempt(d *delivery) *failure {
	select {
	case b.slots <- struct{}{}:
	case <-d.waits.Done():
		return &failure{err: fmt.Errorf("waiting for one of %d requests in flight to end: %w", cap(b.slots), d.waits.Err()), unsent: true}
	}
	defer func() { <-b.slots }()
	ctx, cancel := context.WithTimeout(d.requests, b.timeout)
	defer cancel()
	result := b.post(ctx, d)
	if result.err != nil {
		if ctx.Err() != nil && d.requests.Err() == nil {
			result.err = fmt.Errorf("no answer within %s", b.timeout)
		}
		return result
	}
	a, err := parseAnswer(result.body)
	if err == nil {
		err = d.use(a)
	}
	if err != nil {
		result.err = err
		return result
	}
	return nil
}

// post is one HTTP request. The result has no error if the answer is a 2xx.
func (b *backend) post(ctx context.Context, d *delivery) (result *failure) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, b.url.String(), bytes.NewReader(d.body))
	if err != nil {
		return &failure{err: err, unsent: true}
	}
	now := time.Now().Unix()
	req.Header = b.header.Clone()
	req.Host = req.Header.Get("Host")
	if req.Header.Get("User-Agent") == "" {
		req.Header.Set("User-Agent", "caddy-websocket")
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Webhook-Id", d.id)
	req.Header.Set("Webhook-Timestamp", strconv.FormatInt(now, 10))
	if b.key != nil {
		req.Header.Set("Webhook-Signature", sign(b.key, d.id, now, d.body))
	}
	res, err := b.client.Do(req)
	if err != nil {
		if wrapped, ok := errors.AsType[*url.Error](err); ok {
			err = wrapped.Err // without the URL
		}
		dialing, ok := errors.AsType[*net.OpError](err)
		return &failure{err: err, unsent: ok && dialing.Op == "dial", passing: true}
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer+1))
	result = &failure{status: res.StatusCode, body: body, header: res.Header}
	switch {
	case err != nil:
		result.err, result.passing = fmt.Errorf("reading the answer: %w", err), true
	case len(body) > maxAnswer:
		result.err = fmt.Errorf("answer has more than %d bytes", maxAnswer)
	case res.StatusCode >= 200 && res.StatusCode <= 299:
	case res.StatusCode >= 300 && res.StatusCode <= 399:
		result.err = errors.New("redirects are not followed: configure the URL that it leads to")
	default:
		result.err = errors.New("the backend answered " + res.Status)
		result.passing = res.StatusCode >= 500 || d.kind == eventClose &&
			(res.StatusCode == http.StatusTooManyRequests || res.StatusCode == http.StatusRequestTimeout)
	}
	return result
}

// deliberate tells whether the backend has refused a handshake in so many words.
func (f *failure) deliberate() bool {
	switch f.status {
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusTooManyRequests:
		return true
	}
	return false
}

// refusal is what a handshake is answered with after the failure.
func (f *failure) refusal() error {
	switch {
	case f.deliberate():
		return refusal(f.status, f.header, f.err)
	case f.status >= 400 && f.status <= 499:
		return refusal(http.StatusForbidden, nil, f.err)
	case f.status >= 200 && f.status <= 399: // a mistake of the backend's
		return refusal(http.StatusBadGateway, nil, f.err)
	}
	return refusal(http.StatusServiceUnavailable, f.header, f.err)
}
