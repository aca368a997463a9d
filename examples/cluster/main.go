// Command cluster runs three Caddys and a NATS server on this machine, which serve the
// same clients: go run . in this folder. With arguments it is a Caddy with the lobby, as each
// of the three is: go run . run, go run . websocket list.
package main

import (
	"context"
	"crypto/rand"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	_ "time/tzdata" // log time zones, also where the system has no database of them

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	_ "github.com/caddyserver/caddy/v2/modules/standard"

	_ "github.com/caddy-websocket/caddy-websocket/caddymodule"
	_ "github.com/caddy-websocket/caddy-websocket/examples/cluster/lobby"
)

func main() {
	if len(os.Args) > 1 && !strings.HasPrefix(os.Args[1], "-") {
		if os.Getenv(childVariable) != "" {
			go endWithParent()
		}
		caddycmd.Main()
		return
	}
	sites := flag.String("sites", "localhost:4431,localhost:4432,localhost:4433", "where the nodes are, one for each")
	admins := flag.String("admins", "localhost:2031,localhost:2032,localhost:2033", "their admin endpoints")
	ports := flag.String("push", "4481,4482,4483", "the ports of their push APIs, on 127.0.0.1")
	logs := flag.String("logs", ".", "the folder for their logs, node-1.log and so on")
	external := flag.String("nats", "", "the URL of a NATS server that is there (NATS_USER, NATS_PASSWORD), instead of one of our own")
	flag.Parse()
	if flag.NArg() > 0 {
		fatal(fmt.Errorf("unexpected argument %q", flag.Arg(0)))
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, strings.Split(*sites, ","), strings.Split(*admins, ","), strings.Split(*ports, ","), *logs, *external); err != nil {
		fatal(err)
	}
}

func fatal(err error) {
	fmt.Fprintln(os.Stderr, "cluster:", err)
	os.Exit(1)
}

// run has a cluster until ctx is done.
func run(ctx context.Context, sites, admins, ports []string, logs, external string) error {
	if len(sites) != len(admins) || len(sites) != len(ports) {
		return fmt.Errorf("there are %d sites, %d admin endpoints and %d ports for push: each node has one of each", len(sites), len(admins), len(ports))
	}
	for _, file := range []string{"Caddyfile", "nats.conf", "page"} {
		if _, err := os.Stat(file); err != nil {
			return fmt.Errorf("%w: run it in the folder examples/cluster", err)
		}
	}
	logs, err := filepath.Abs(logs)
	if err != nil {
		return fmt.Errorf("finding the folder for logs: %w", err)
	}
	c := &cluster{out: os.Stdout, token: os.Getenv("PUSH_TOKEN")}
	if c.token == "" {
		c.token = rand.Text()
	}
	password := os.Getenv("NATS_PASSWORD")
	if password == "" {
		// nats.conf would take a number for one. A server that is there and asks for none
		// does not look at it.
		password = "a" + rand.Text()
	}
	env := []string{"PUSH_TOKEN=" + c.token, "NATS_PASSWORD=" + password}
	if external == "" {
		if c.nats, err = newNATS(password); err != nil {
			return err
		}
		defer c.nats.stop()
		env = append(env, "NATS_URL="+c.nats.url(), "NATS_USER=node")
	} else {
		env = append(env, "NATS_URL="+external)
	}
	for i, site := range sites {
		n := &node{number: i + 1, site: site, admin: admins[i], push: ports[i], env: env, out: c.out} //nolint:gosec // there is one for each site
		n.log = filepath.Join(logs, fmt.Sprintf("node-%d.log", n.number))
		if err := os.WriteFile(n.log, nil, 0o600); err != nil { // what an earlier cluster has left
			return fmt.Errorf("making a log: %w", err)
		}
		c.nodes = append(c.nodes, n)
	}
	defer c.stop()
	if err := c.start(ctx); err != nil {
		return err
	}
	c.help()
	lines := make(chan string)
	go read(os.Stdin, lines)
	for {
		select {
		case line := <-lines:
			c.do(ctx, line)
		case <-ctx.Done():
			fmt.Fprintln(c.out, "ending")
			return nil
		}
	}
}

// endWithParent ends a node whose cluster was killed: its standard input ends then.
func endWithParent() {
	_, _ = io.Copy(io.Discard, os.Stdin)
	os.Exit(1)
}
