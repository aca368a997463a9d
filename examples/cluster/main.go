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
	external := flag.String("nats", "", "the URL of a NATS server that is there (NATS_USER, NATS_PASSWORD), instead of one of our own")
	flag.Parse()
	if flag.NArg() > 0 {
		fatal(fmt.Errorf("unexpected argument %q", flag.Arg(0)))
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, strings.Split(*sites, ","), strings.Split(*admins, ","), *external); err != nil {
		fatal(err)
	}
}

func fatal(err error) {
	fmt.Fprintln(os.Stderr, "cluster:", err)
	os.Exit(1)
}

// run has a cluster until ctx is done.
func run(ctx context.Context, sites, admins []string, external string) error {
	if len(sites) != len(admins) {
		return fmt.Errorf("there are %d sites and %d admin endpoints: each node has one of both", len(sites), len(admins))
	}
	c := &cluster{out: os.Stdout}
	env := []string{"NATS_URL=" + external}
	if external == "" {
		password := os.Getenv("NATS_PASSWORD")
		if password == "" {
			password = "a" + rand.Text() // nats.conf would take a number for one
		}
		var err error
		if c.nats, err = newNATS(password); err != nil {
			return err
		}
		defer c.nats.stop()
		env = []string{"NATS_URL=" + c.nats.url(), "NATS_USER=node", "NATS_PASSWORD=" + password}
	}
	for i, site := range sites {
		c.nodes = append(c.nodes, &node{number: i + 1, site: site, admin: admins[i], env: env, out: c.out})
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
