package admin

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"

	"github.com/spf13/cobra"

	"github.com/caddy-websocket/caddy-websocket/gateway"
	"github.com/caddy-websocket/caddy-websocket/gateway/httpapi"
)

// targetFlags gives a command the flags of target.
func targetFlags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.Bool("all", false, "All clients of the gateway")
	f.StringArray("client", nil, "The client with this id (may be repeated, as all that follow)")
	f.StringArray("user", nil, "All clients of this user")
	f.StringArray("group", nil, "All members of this group")
	f.StringArray("endpoint", nil, "Of those, only clients of this endpoint")
	nodeFlag(cmd, "Of those, only clients of this node")
	f.StringArray("except-client", nil, "But not the client with this id")
	f.StringArray("except-user", nil, "But no client of this user")
}

// target returns whom the flags name.
func target(cmd *cobra.Command) (gateway.Target, error) {
	to := gateway.Target{All: flag(cmd.Flags().GetBool, "all")}
	for _, list := range []struct {
		name string
		into *[]string
	}{
		{"client", &to.Clients},
		{"user", &to.Users},
		{"group", &to.Groups},
		{"endpoint", &to.Endpoints},
		{"node", &to.Nodes},
		{"except-client", &to.Except.Clients},
		{"except-user", &to.Except.Users},
	} {
		var err error
		if *list.into, err = names(cmd, list.name); err != nil {
			return to, err
		}
	}
	switch err := to.Validate(); {
	case errors.Is(err, gateway.ErrEmptyTarget):
		return to, usage("nobody is named: use --all, or --client, --user, --group")
	case err != nil:
		return to, usage("%w", err)
	}
	return to, nil
}

// commandWait is how long other nodes may take to say how many clients they reached.
const commandWait = "2s"

// command sends a command, and prints how many clients it reached on all nodes. Nobody is
// an error: scripts ask for it.
func command(cmd *cobra.Command, path string, body any) error {
	c, err := newCaller(cmd)
	if err != nil {
		return err
	}
	var answer httpapi.Result
	if err := c.call(cmd.Context(), http.MethodPost, path, url.Values{"wait": {commandWait}}, body, &answer); err != nil {
		return err
	}
	if answer.Clients == nil {
		return errors.New("the answer of the admin endpoint does not say how many clients were reached")
	}
	n := *answer.Clients
	if flag(cmd.Flags().GetBool, "json") {
		line, err := json.Marshal(answer)
		if err != nil {
			return fmt.Errorf("encoding the answer: %w", err)
		}
		fmt.Fprintf(cmd.OutOrStdout(), "%s\n", safeJSON(line))
	} else if n > 0 || answer.LocalOnly || len(answer.Missing) > 0 {
		fmt.Fprintf(cmd.OutOrStdout(), "%s reached\n", count(n, "client", "clients"))
	}
	if err := complete(answer.LocalOnly, answer.Missing); err != nil {
		return err
	}
	if n == 0 {
		return errors.New("nobody was reached: no connected client is meant, or none can be sent to")
	}
	return nil
}
