package main

import (
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
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// childVariable tells a process that it is a node.
const childVariable = "CLUSTER_NODE"

// How long a node may take: the first one makes a certificate authority.
const (
	startTimeout = time.Minute
	stopTimeout  = 10 * time.Second
	pause        = 100 * time.Millisecond // between two looks
	natsTimeout  = 3 * time.Second        // until it says that it cannot be reached
)

// node is a Caddy in a process of its own: this program with arguments.
type node struct {
	number int
	site   string
	admin  string // host:port, or unix/ and the path of a socket
	push   string // the port of its push API
	log    string // a file, to which each life of the node appends
	env    []string
	out    io.Writer

	mu   sync.Mutex
	last *process // guarded by mu; nil before the first start
}

// process is one life of a node.
type process struct {
	cmd   *exec.Cmd
	stdin io.Closer   // the process ends when it is closed
	began int64       // where its part of the log begins
	asked atomic.Bool // to end
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
	p.cmd.Env = append(os.Environ(), append(slices.Clip(n.env),
		childVariable+"=1", "NODE_NAME="+name, "WS_ADDR="+n.site, "WS_ADMIN="+n.admin, "PUSH_PORT="+n.push)...)
	log, err := os.OpenFile(n.log, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("starting %s: %w", name, err)
	}
	defer log.Close() // the process has its own
	if p.began, err = log.Seek(0, io.SeekEnd); err != nil {
		return fmt.Errorf("starting %s: %w", name, err)
	}
	p.cmd.Stdout, p.cmd.Stderr = log, log
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
		const kept = 4 << 10
		words := n.said(p)
		return fmt.Errorf("starting %s: %w: its last words:\n%s", name, err, words[max(0, len(words)-kept):])
	}
	fmt.Fprintf(n.out, "%s runs: process %d, node %s\n", name, p.cmd.Process.Pid, id)
	go n.mourn(ctx, p)
	if !n.joined(ctx) {
		fmt.Fprintf(n.out, "%s is on its own: NATS cannot be reached%s\n", name, n.reason(p))
	}
	return nil
}

// mourn says when a process has ended that nobody has asked to.
func (n *node) mourn(ctx context.Context, p *process) {
	<-p.ended
	if !p.asked.Load() && ctx.Err() == nil { // a terminal's Ctrl-C is for all processes
		fmt.Fprintf(n.out, "node %d has died: %s; its log is %s\n", n.number, p.cmd.ProcessState, n.log)
	}
}

// joined waits until the node has NATS. It would go on trying for ever.
func (n *node) joined(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, natsTimeout)
	defer cancel()
	for ctx.Err() == nil {
		if all, err := n.gateways(ctx); err == nil && all[0].Cluster.Connected {
			return true
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
	}
	return false
}

// said returns what a process has logged.
func (n *node) said(p *process) string {
	text, err := os.ReadFile(n.log)
	if err != nil || int64(len(text)) < p.began {
		return "" // somebody has taken the file away
	}
	return string(text[p.began:])
}

// reason returns why the last attempt to connect to NATS has failed.
func (n *node) reason(p *process) string {
	why := ""
	for line := range strings.Lines(n.said(p)) {
		var entry struct{ Msg, Error string }
		if json.Unmarshal([]byte(line), &entry) == nil && strings.HasPrefix(entry.Msg, "connecting to NATS failed") {
			why = ": " + entry.Error
		}
	}
	return why
}

// await waits until the node serves, and returns its id.
func (n *node) await(ctx context.Context, p *process) (id string, err error) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
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
	all, err := n.gateways(ctx)
	if err != nil {
		return "", err
	}
	return all[0].Node, nil
}

// gatewayState is what the admin endpoint says of a gateway.
type gatewayState struct {
	Node    string
	Cluster struct{ Connected bool }
}

// gateways returns those of the node, of which there is one at least.
func (n *node) gateways(ctx context.Context) ([]gatewayState, error) {
	body, err := n.ask(ctx, http.MethodGet, "/websocket/")
	if err != nil {
		return nil, err
	}
	var all struct{ Gateways []gatewayState }
	if err := json.Unmarshal(body, &all); err != nil {
		return nil, fmt.Errorf("asking for the gateways: %w", err)
	}
	if len(all.Gateways) == 0 {
		return nil, errors.New("it has no gateway yet")
	}
	return all.Gateways, nil
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
	p.asked.Store(true)
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
	p.asked.Store(true)
	_ = p.cmd.Process.Kill() // fails if it has just ended
	<-p.ended
	_ = p.stdin.Close()
	fmt.Fprintf(n.out, "node %d is killed\n", n.number)
}
