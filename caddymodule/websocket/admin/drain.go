package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"time"

	"github.com/spf13/cobra"
)

func drainCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "drain",
		Short: "Refuses handshakes and closes all clients, before a restart",
		Long: `
Refuses handshakes with 503 from now on, and closes all clients, spread over time
by close_rate and drain_timeout of the configuration: with 1001, or with 1012 if
--restart says that the server will be back at once. Waits until all are gone, for
--timeout at most; clients that are left then are exit code 1.

The server refuses handshakes until it is restarted or told to --resume, through
reloads, too. All gateways are drained unless --gateway names one, but only on the
node that is asked: --node names others, by id or by host.`,
		Example: `  $ caddy websocket drain --restart && systemctl restart caddy
  $ caddy websocket drain --timeout 2m
  $ caddy websocket drain --node ws2
  $ caddy websocket drain --resume`,
		RunE: run(drain),
	}
	adminFlags(cmd)
	nodeFlag(cmd, "This node, and not the one that is asked")
	f := cmd.Flags()
	f.Bool("restart", false, "Close with 1012, service restart, instead of 1001, going away")
	f.Duration("timeout", 30*time.Second, "How long to wait until all clients are gone, at most 1h")
	f.Bool("resume", false, "Accept handshakes again")
	return cmd
}

// drainRequest is the body of the call.
type drainRequest struct {
	Restart bool   `json:"restart"`
	Timeout string `json:"timeout"`
}

func drain(cmd *cobra.Command, args []string) error {
	if err := noArguments(args); err != nil {
		return err
	}
	f := cmd.Flags()
	resume, restart, timeout := flag(f.GetBool, "resume"), flag(f.GetBool, "restart"), flag(f.GetDuration, "timeout")
	switch {
	case resume && (restart || f.Changed("timeout")):
		return usage("--resume stands alone")
	case timeout <= 0 || timeout > time.Hour:
		return usage("--timeout %s: allowed are durations up to 1h", timeout)
	}
	nodes, err := nodeQuery(cmd)
	if err != nil {
		return err
	}
	c, err := newCaller(cmd)
	if err != nil {
		return err
	}
	ctx, stop := interruptible(cmd)
	defer stop()
	if resume {
		ctx, cancel := context.WithTimeout(ctx, callTimeout)
		defer cancel()
		states, localOnly, err := c.operate(ctx, "/resume", nodes, struct{}{})
		if err != nil {
			return err
		}
		if err := printStates(cmd, states, "accepts handshakes, %s connected"); err != nil {
			return err
		}
		return complete(localOnly, silent(states))
	}
	ctx, cancel := context.WithTimeout(ctx, timeout+callTimeout)
	defer cancel()
	progress := c.progress(cmd, nodes)
	states, localOnly, err := c.operate(ctx, "/drain", nodes, drainRequest{restart, timeout.String()})
	progress()
	if err != nil {
		if cmd.Context().Err() == nil && errors.Is(err, context.Canceled) {
			return fmt.Errorf("%w; the server goes on draining", err)
		}
		return err
	}
	if err := printStates(cmd, states, "refuses handshakes, %s left"); err != nil {
		return err
	}
	left := 0
	for _, s := range states {
		left += s.Clients
	}
	if left > 0 {
		return fmt.Errorf("%s left after %s: they are being closed, and handshakes are refused", count(left, "client is", "clients are"), timeout)
	}
	return complete(localOnly, silent(states))
}

// silent returns the nodes that did not answer.
func silent(states []GatewayState) (nodes []string) {
	for _, s := range states {
		if s.Node != "" && s.Error != nil {
			nodes = append(nodes, s.Node)
		}
	}
	return nodes
}

// operate makes a call that answers with the state of one gateway or all, and whether other
// nodes could not be told.
func (c *caller) operate(ctx context.Context, path string, query url.Values, body any) (states []GatewayState, localOnly bool, err error) {
	var answer struct {
		States
		stateAnswer
	}
	if err := c.callFor(ctx, http.MethodPost, path, maps.Clone(query), body, &answer); err != nil {
		return nil, false, err
	}
	if answer.Gateways != nil {
		return answer.Gateways, answer.LocalOnly, nil
	}
	return answer.states(c.gateway), answer.LocalOnly, nil
}

// progress prints every second how many clients are left, until it is told to stop.
func (c *caller) progress(cmd *cobra.Command, nodes url.Values) (stop func()) {
	ctx, cancel := context.WithCancel(cmd.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
			var now Gateways
			if c.call(ctx, http.MethodGet, "/", maps.Clone(nodes), nil, &now) != nil {
				continue // the call itself will say what is wrong
			}
			left := 0
			for i := range now.Gateways {
				left += now.Gateways[i].Clients
			}
			fmt.Fprintf(cmd.ErrOrStderr(), "%s left\n", count(left, "client is", "clients are"))
		}
	}()
	return func() {
		cancel()
		<-done
	}
}

// printStates prints a line for each gateway.
func printStates(cmd *cobra.Command, states []GatewayState, format string) error {
	for _, s := range states {
		if flag(cmd.Flags().GetBool, "json") {
			line, err := json.Marshal(s)
			if err != nil {
				return fmt.Errorf("encoding the answer: %w", err)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s\n", safeJSON(line))
			continue
		}
		what := "gateway " + safe(s.Gateway)
		if s.Node != "" {
			what += ", node " + safe(s.Node)
		}
		if s.Error != nil {
			fmt.Fprintf(cmd.OutOrStdout(), "%s: %s\n", what, safe(s.Error.Message))
			continue
		}
		fmt.Fprintf(cmd.OutOrStdout(), "%s "+format+"\n", what, count(s.Clients, "client", "clients"))
	}
	return nil
}
