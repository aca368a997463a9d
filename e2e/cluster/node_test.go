package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/caddy-websocket/caddy-websocket/e2e/internal/e2etest"
	"github.com/caddy-websocket/caddy-websocket/gateway/httpapi"
)

const token = "a-token-of-the-test"

// node is one of the Caddys, through all its processes.
type node struct {
	t     *testing.T
	name  string
	site  string // host and port
	nats  string // URL
	http  *http.Client
	caddy *e2etest.Caddy
	id    string // of the process
	up    bool

	// ending is set while it is all right that its clients' connections end.
	ending atomic.Bool
}

func newNode(t *testing.T, i int, nats string) *node {
	t.Helper()
	transport := &http.Transport{MaxIdleConnsPerHost: 16}
	t.Cleanup(transport.CloseIdleConnections)
	n := &node{
		t: t, name: fmt.Sprint("node-", i), nats: nats,
		site: fmt.Sprintf("127.0.0.1:%d", e2etest.ReservePort(t)),
		http: &http.Client{Transport: transport, Timeout: patience},
	}
	n.ending.Store(true)
	return n
}

func (n *node) String() string { return n.name }

// caddyfile is the configuration. Patience with NATS is short, so that phases are.
func (n *node) caddyfile() string {
	return fmt.Sprintf(`{
	auto_https off
	websocket {
		broker nats %s {
			name %s
			connect_timeout 1s
			reconnect_wait 200ms
			ping_interval 1s
			required
		}
	}
}
http://%s {
	bind 127.0.0.1
	websocket /ws {
		user {query.user}
		join {query.group} {query.hall}
		logic reply "id {ws.client_id}"
	}
	websocket_api /push/* {
		token %s
	}
}
`, n.nats, n.name, n.site, token)
}

// start starts a process and learns its id.
func (n *node) start() {
	n.t.Helper()
	n.caddy = e2etest.StartCaddy(n.t, n.t.TempDir(), n.caddyfile())
	var known httpapi.Nodes
	if err := n.get("/nodes", &known); err != nil {
		n.t.Fatalf("%s: %v", n, err)
	}
	n.id, n.up = known.Nodes[0].ID, true
	n.ending.Store(false)
}

// end ends the process with a signal, and returns when it has.
func (n *node) end(sig syscall.Signal) {
	n.t.Helper()
	n.ending.Store(true)
	n.up = false
	n.caddy.Signal(sig)
	n.caddy.Ended()
}

// get is a list of the push API.
func (n *node) get(path string, answer any) error {
	return n.call(http.MethodGet, path, "", nil, answer)
}

// post is a command of the push API, which is done once for its key: a request that a reload
// interrupts is made again.
func (n *node) post(path, key string, body, answer any) error {
	data, err := json.Marshal(body)
	if err != nil {
		return err
	}
	return n.call(http.MethodPost, path, key, data, answer)
}

func (n *node) call(method, path, key string, body []byte, answer any) error {
	for tries := 1; ; tries++ {
		status, data, err := n.ask(method, path, key, body)
		switch {
		case err != nil && tries < 5 && !n.ending.Load():
			continue
		case err != nil:
			return err
		case status != http.StatusOK:
			return fmt.Errorf("%s %s: %d %s", method, path, status, data)
		}
		return json.Unmarshal(data, answer)
	}
}

func (n *node) ask(method, path, key string, body []byte) (status int, data []byte, err error) {
	req, err := http.NewRequestWithContext(context.Background(), method, "http://"+n.site+"/push"+path, bytes.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("Content-Type", "application/json")
	if key != "" {
		req.Header.Set("Idempotency-Key", key)
	}
	res, err := n.http.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer res.Body.Close()
	data, err = io.ReadAll(res.Body)
	return res.StatusCode, data, err
}

// awaitLine waits until the log has a line about another node, for the nth time, and returns
// how long that was after a moment.
func (n *node) awaitLine(line, about string, since time.Time) time.Duration {
	n.t.Helper()
	n.caddy.WaitLog(func(entry map[string]any) bool {
		text, _ := entry["msg"].(string)
		stamp, _ := entry["ts"].(float64)
		return strings.HasPrefix(text, line) && entry["node"] == about && int64(stamp*1000) >= since.UnixMilli()
	})
	return time.Since(since)
}

// command runs `caddy websocket` at the node, and returns what it printed.
func (n *node) command(args ...string) string {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(n.t.Context(), patience)
	defer cancel()
	cmd := n.caddy.Command(ctx, append([]string{"websocket"}, args...)...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		n.t.Errorf("%s: caddy websocket %s: %v: %s", n, strings.Join(args, " "), err, errors.Join(errors.New(out.String()), errors.New(errs.String())))
	}
	return out.String()
}
