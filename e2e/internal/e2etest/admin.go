package e2etest

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
)

// PID returns the number of Caddy's process, for what the system knows of it.
func (c *Caddy) PID() int { return c.cmd.Process.Pid }

// Load gives Caddy another Caddyfile through its admin endpoint, which spares the
// process that Reload starts. The error has Caddy's answer.
func (c *Caddy) Load(caddyfile string) error {
	_, err := c.ask(http.MethodPost, "/load", "text/caddyfile", caddyfile)
	return err
}

// AdminGet returns what the admin endpoint has under path: /config/, /metrics,
// /debug/pprof/goroutine?debug=1.
func (c *Caddy) AdminGet(path string) (string, error) {
	return c.ask(http.MethodGet, path, "", "")
}

// ask is one request on a connection of its own, so that nothing of it stays in Caddy.
func (c *Caddy) ask(method, path, contentType, body string) (string, error) {
	client := &http.Client{
		Timeout: reloadTimeout,
		Transport: &http.Transport{
			DisableKeepAlives: true,
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return (&net.Dialer{}).DialContext(ctx, "unix", c.admin)
			},
		},
	}
	req, err := http.NewRequestWithContext(context.Background(), method, "http://127.0.0.1"+path, strings.NewReader(body))
	if err != nil {
		return "", err
	}
	req.Header.Set("Content-Type", contentType)
	res, err := client.Do(req)
	if err != nil {
		return "", fmt.Errorf("%s %s: %w", method, path, err)
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	if err != nil {
		return "", fmt.Errorf("%s %s: reading the answer: %w", method, path, err)
	}
	if res.StatusCode != http.StatusOK {
		return "", fmt.Errorf("%s %s: %s: %s", method, path, res.Status, answer)
	}
	return string(answer), nil
}
