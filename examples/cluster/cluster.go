package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
)

// cluster is the nodes and what joins them.
type cluster struct {
	nodes []*node
	nats  *natsServer // nil if it is not ours
	token string      // of the push API
	out   io.Writer
}

// start starts all nodes: the first one alone, which makes the certificate authority that
// the others find in the storage.
func (c *cluster) start(ctx context.Context) error {
	if err := c.nodes[0].start(ctx); err != nil {
		return err
	}
	errs := make(chan error)
	for _, n := range c.nodes[1:] {
		go func() { errs <- n.start(ctx) }()
	}
	var failed error
	for range c.nodes[1:] {
		if err := <-errs; err != nil {
			failed = err
		}
	}
	return failed
}

// stop stops all nodes at once.
func (c *cluster) stop() {
	var ending sync.WaitGroup
	for _, n := range c.nodes {
		ending.Go(n.stop)
	}
	ending.Wait()
}

func (c *cluster) help() {
	for _, n := range c.nodes {
		fmt.Fprintf(c.out, "node %d  https://%s/  push API http://127.0.0.1:%s\n", n.number, n.site, n.push)
	}
	fmt.Fprintf(c.out, "\nlogs    %s\ntoken   export PUSH_TOKEN=%s\n", filepath.Join(filepath.Dir(c.nodes[0].log), "node-*.log"), c.token)
	fmt.Fprintln(c.out, `
Open two of them, and talk. Then type here, and Enter:

  2         stop node 2, as for an update; again: start it
  kill 2    kill node 2, as when its machine dies: the others notice after 5 s`)
	if c.nats != nil {
		fmt.Fprintln(c.out, "  nats      stop the NATS server: each node goes on alone; again: start it")
	}
	fmt.Fprintln(c.out, "\nCtrl-C ends all.")
}

// do does what was typed.
func (c *cluster) do(ctx context.Context, line string) {
	words := strings.Fields(line)
	kill := len(words) == 2 && words[0] == "kill"
	if kill {
		words = words[1:]
	}
	switch {
	case len(words) == 0 || words[0] == "help":
		c.help()
		return
	case len(words) > 1:
		c.misunderstood(line)
		return
	case words[0] == "nats" && !kill:
		if c.nats == nil {
			fmt.Fprintln(c.out, "the NATS server is not ours: stop it where it runs")
			return
		}
		c.nats.toggle(c.out)
		return
	}
	number, err := strconv.Atoi(words[0])
	if err != nil {
		c.misunderstood(line)
		return
	}
	if number < 1 || number > len(c.nodes) {
		fmt.Fprintf(c.out, "there is no node %d: there are 1 to %d\n", number, len(c.nodes))
		return
	}
	n := c.nodes[number-1]
	switch {
	case kill && !n.running():
		fmt.Fprintf(c.out, "node %d does not run\n", number)
	case kill:
		n.kill()
	case n.running():
		n.stop()
	default:
		if err := n.start(ctx); err != nil {
			fmt.Fprintln(c.out, err)
		}
	}
}

func (c *cluster) misunderstood(line string) {
	fmt.Fprintf(c.out, "%q is not understood: type a node's number, kill and a number, nats, or help\n", line)
}

// read gives the lines that are typed, until there are none any more.
func read(in io.Reader, lines chan<- string) {
	for s := bufio.NewScanner(in); s.Scan(); {
		lines <- s.Text()
	}
}
