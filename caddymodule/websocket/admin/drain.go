package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
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
reloads, too. All gateways are drained unless --gateway names one.`,
		Example: `  $ caddy websocket drain --restart && systemctl restart caddy
  $ caddy websocket drain --timeout 2m
  $ caddy websocket drain --resume`,
		RunE: run(drain),
	}
	adminFlags(cmd)
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
	c, err := newCaller(cmd)
	if err != nil {
		return err
	}
	ctx, stop := interruptible(cmd)
	defer stop()
	if resume {
		ctx, cancel := context.WithTimeout(ctx, callTimeout)
		defer cancel()
		states, err := c.operate(ctx, "/resume", struct{}{})
		if err != nil {
			return err
		}
		return printStates(cmd, states, "accepts handshakes, %s connected")
	}
	ctx, cancel := context.WithTimeout(ctx, timeout+callTimeout)
	defer cancel()
	progress := c.progress(cmd)
	states, err := c.operate(ctx, "/drain", drainRequest{restart, timeout.String()})
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
	return nil
}

// operate makes a call that answers with the state of one gateway or all.
func (c *caller) operate(ctx context.Context, path string, body any) ([]GatewayState, error) {
	var answer struct {
		States
		GatewayState
	}
	if err := c.callFor(ctx, http.MethodPost, path, nil, body, &answer); err != nil {
		return nil, err
	}
	if answer.Gateways != nil {
		return answer.Gateways, nil
	}
	answer.Gateway = c.gateway
	return []GatewayState{answer.GatewayState}, nil
}

// progress prints every second how many clients are left, until it is told to stop.
func (c *caller) progress(cmd *cobra.Command) (stop func()) {
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
			if c.call(ctx, http.MethodGet, "/", nil, nil, &now) != nil {
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
		if s.Error != nil {
			fmt.Fprintf(cmd.OutOrStdout(), "gateway %s: %s\n", safe(s.Gateway), safe(s.Error.Message))
			continue
		}
		fmt.Fprintf(cmd.OutOrStdout(), "gateway %s "+format+"\n", safe(s.Gateway), count(s.Clients, "client", "clients"))
	}
	return nil
}
