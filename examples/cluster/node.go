package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"
)

// childVariable tells a process that it is a node.
const childVariable = "CLUSTER_NODE"

// How long a node may take: the first one makes a certificate authority.
const (
	startTimeout = time.Minute
	stopTimeout  = 10 * time.Second
)

// node is a Caddy in a process of its own: this program with arguments.
type node struct {
	number int
	site   string
	admin  string // host:port, or unix/ and the path of a socket
	env    []string
	out    io.Writer

	mu   sync.Mutex
	last *process // guarded by mu; nil before the first start
}

// process is one life of a node.
type process struct {
	cmd   *exec.Cmd
	stdin io.Closer // the process ends when it is closed
	log   tail
	ended chan struct{}
}

func (p *process) running() bool {
	if p == nil {
		return false
	}
	select {
	case <-p.ended:
		return false
	default:
		return true
	}
}

func (n *node) process() *process {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.last
}

func (n *node) running() bool { return n.process().running() }

// start starts the node, and returns when it serves its page.
func (n *node) start(ctx context.Context) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("finding this program: %w", err)
	}
	p := &process{cmd: exec.Command(self, "run", "--config", "Caddyfile"), ended: make(chan struct{})} //nolint:gosec // it is this program
	name := fmt.Sprint("node ", n.number)
	p.cmd.Env = append(os.Environ(), append(n.env,
		childVariable+"=1", "NODE_NAME="+name, "WS_ADDR="+n.site, "WS_ADMIN="+n.admin)...)
	p.cmd.Stdout, p.cmd.Stderr = &p.log, &p.log
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		return fmt.Errorf("starting %s: %w", name, err)
	}
	if err := p.cmd.Start(); err != nil {
		return fmt.Errorf("starting %s: %w", name, err)
	}
	go func() {
		_ = p.cmd.Wait() // what it says is in its log
		close(p.ended)
	}()
	n.mu.Lock()
	n.last = p
	n.mu.Unlock()
	id, err := n.await(ctx, p)
	if err != nil {
		n.stop()
		return fmt.Errorf("starting %s: %w: its last words:\n%s", name, err, p.log.String())
	}
	fmt.Fprintf(n.out, "%s runs: process %d, node %s\n", name, p.cmd.Process.Pid, id)
	return nil
}

// await waits until the node serves, and returns its id.
func (n *node) await(ctx context.Context, p *process) (id string, err error) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	const pause = 100 * time.Millisecond
	for {
		if id, err = n.id(ctx); err == nil {
			if err = n.serves(ctx); err == nil {
				return id, nil
			}
		}
		select {
		case <-time.After(pause):
		case <-p.ended:
			return "", errors.New("it has ended")
		case <-ctx.Done():
			return "", err
		}
	}
}

// serves tells whether the site has its certificate.
func (n *node) serves(ctx context.Context) error {
	dialer := tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true}} //nolint:gosec // it asks whether there is one
	conn, err := dialer.DialContext(ctx, "tcp", n.site)
	if err != nil {
		return err
	}
	return conn.Close()
}

// id returns by what name the other nodes know this one.
func (n *node) id(ctx context.Context) (string, error) {
	body, err := n.ask(ctx, http.MethodGet, "/websocket/")
	if err != nil {
		return "", err
	}
	var all struct{ Gateways []struct{ Node string } }
	if err := json.Unmarshal(body, &all); err != nil {
		return "", fmt.Errorf("asking for the gateways: %w", err)
	}
	if len(all.Gateways) == 0 {
		return "", errors.New("it has no gateway yet")
	}
	return all.Gateways[0].Node, nil
}

// ask makes a call to the admin endpoint.
func (n *node) ask(ctx context.Context, method, path string) ([]byte, error) {
	network, address := "tcp", n.admin
	if socket, ok := strings.CutPrefix(n.admin, "unix/"); ok {
		network, address = "unix", socket
	}
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, address)
		},
	}}
	host := n.admin
	if network == "unix" {
		host = "127.0.0.1"
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://"+host+path, http.NoBody)
	if err != nil {
		return nil, err
	}
	res, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s %s: %s", method, path, res.Status)
	}
	return body, err
}

// stop asks the node to end, as systemd does with `caddy stop` or a signal: its clients are
// told, and the other nodes.
func (n *node) stop() {
	p := n.process()
	if !p.running() {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	// It fails if the node is ending already: a terminal's Ctrl-C is for all processes.
	_, _ = n.ask(ctx, http.MethodPost, "/stop")
	select {
	case <-p.ended:
		_ = p.stdin.Close()
		fmt.Fprintf(n.out, "node %d has stopped\n", n.number)
	case <-ctx.Done():
		n.kill()
	}
}

// kill ends the node without a word to anybody.
func (n *node) kill() {
	p := n.process()
	if !p.running() {
		return
	}
	_ = p.cmd.Process.Kill() // fails if it has just ended
	<-p.ended
	_ = p.stdin.Close()
	fmt.Fprintf(n.out, "node %d is killed\n", n.number)
}

// tail keeps the end of what a process writes.
type tail struct {
	mu   sync.Mutex
	text []byte // guarded by mu
}

// Write is for exec.Cmd.
func (t *tail) Write(p []byte) (int, error) {
	const kept = 4 << 10
	t.mu.Lock()
	defer t.mu.Unlock()
	t.text = append(t.text, p...)
	if len(t.text) > 2*kept {
		t.text = bytes.Clone(t.text[len(t.text)-kept:])
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.text)
}
