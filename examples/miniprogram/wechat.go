package miniprogram

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/caddy-websocket/caddy-websocket/gateway"
)

// code2Session is where WeChat tells whose a code is.
const code2Session = "https://api.weixin.qq.com/sns/jscode2session"

// maxCode and maxAnswer bound in bytes what is passed on and what is read.
const (
	maxCode   = 256
	maxAnswer = 64 << 10
)

// Error codes of code2Session that are about the code. All others are about us,
// or about WeChat.
const (
	invalidCode = 40029
	blockedUser = 40226
	usedCode    = 40163
)

// wechat asks whose a code is.
type wechat struct {
	endpoint *url.URL
	timeout  time.Duration
	secrets  map[string]string // by appid
	client   *http.Client
}

func newWeChat(endpoint string, timeout time.Duration, secrets map[string]string) (*wechat, error) {
	u, err := url.Parse(endpoint)
	if err != nil {
		return nil, fmt.Errorf("endpoint: %w", err)
	}
	if u.Host == "" || u.Scheme != "https" && (u.Scheme != "http" || !isLoopback(u.Hostname())) {
		return nil, fmt.Errorf("endpoint %q: allowed are https URLs, since the secret is part of the request, and http ones on this machine", endpoint)
	}
	client := &http.Client{
		// A redirect could take the secret elsewhere.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return &wechat{u, timeout, secrets, client}, nil
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// login returns the openid of the user whom WeChat gave the code. app is the appid
// that the request hints at, or "".
func (w *wechat) login(ctx context.Context, app, code string) (openID string, err error) {
	if app == "" && len(w.secrets) == 1 {
		for app = range w.secrets { // no hint, and no choice
		}
	}
	secret, ok := w.secrets[app]
	switch {
	case !ok:
		return "", &gateway.HandshakeError{Status: http.StatusForbidden, Err: fmt.Errorf("mini program %.64q is not listed", app)}
	case code == "" || len(code) > maxCode:
		return "", unauthorized(fmt.Errorf("a code of %d bytes: get one by wx.login and send it as the query's code", len(code)))
	}
	a, err := w.ask(ctx, app, secret, code)
	if err != nil {
		return "", unavailable(err)
	}
	switch a.ErrCode {
	case 0:
		if a.OpenID == "" {
			return "", unavailable(errors.New("WeChat's answer has no openid"))
		}
		return a.OpenID, nil
	case invalidCode, usedCode, blockedUser:
		return "", unauthorized(fmt.Errorf("WeChat: %d %s", a.ErrCode, a.ErrMsg))
	}
	return "", unavailable(fmt.Errorf("WeChat: %d %s", a.ErrCode, a.ErrMsg))
}

// answer is WeChat's. It also has a session_key, with which data of the user's can
// be decrypted: who needs it keeps it in Go (Client.SetValue), not in the
// session, which other programs can read, and never sends it to the client.
type answer struct {
	OpenID  string `json:"openid"`
	ErrCode int    `json:"errcode"`
	ErrMsg  string `json:"errmsg"`
}

func (w *wechat) ask(ctx context.Context, app, secret, code string) (answer, error) {
	ctx, cancel := context.WithTimeout(ctx, w.timeout)
	defer cancel()
	u := *w.endpoint
	query := u.Query()
	query.Set("appid", app)
	query.Set("secret", secret)
	query.Set("js_code", code)
	query.Set("grant_type", "authorization_code")
	u.RawQuery = query.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), http.NoBody)
	if err != nil {
		return answer{}, errors.New("asking WeChat: the request cannot be made") // the error could quote the URL
	}
	resp, err := w.client.Do(req)
	if err != nil {
		if about, ok := errors.AsType[*url.Error](err); ok {
			err = about.Err // the rest is the URL, and with it the secret
		}
		return answer{}, fmt.Errorf("asking WeChat: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return answer{}, fmt.Errorf("asking WeChat: it answers %s", resp.Status)
	}
	var a answer
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxAnswer)).Decode(&a); err != nil {
		return answer{}, fmt.Errorf("asking WeChat: reading the answer: %w", err)
	}
	return a, nil
}

// unauthorized refuses a handshake whose code is no good: another wx.login may help.
func unauthorized(err error) error {
	return &gateway.HandshakeError{
		Status: http.StatusUnauthorized,
		Header: http.Header{"Www-Authenticate": {"WeChat"}}, // RFC 9110 section 11.6.1 wants one
		Err:    err,
	}
}

// unavailable refuses a handshake that nobody can judge now.
func unavailable(err error) error {
	return &gateway.HandshakeError{
		Status: http.StatusServiceUnavailable,
		Header: http.Header{"Retry-After": {"5"}},
		Err:    err,
	}
}
