package admin

import (
	"errors"
	"fmt"
	"net/http"

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
	f.StringArray("except-client", nil, "But not the client with this id")
	f.StringArray("except-user", nil, "But no client of this user")
}

// target returns whom the flags name.
func target(cmd *cobra.Command) (gateway.Target, error) {
	names := func(name string) []string { return flag(cmd.Flags().GetStringArray, name) }
	to := gateway.Target{
		All:     flag(cmd.Flags().GetBool, "all"),
		Clients: names("client"), Users: names("user"), Groups: names("group"),
		Endpoints: names("endpoint"),
		Except:    gateway.Except{Clients: names("except-client"), Users: names("except-user")},
	}
	err := to.Validate()
	switch {
	case errors.Is(err, gateway.ErrEmptyTarget):
		return to, usage("nobody is named: use --all, or --client, --user, --group")
	case err != nil:
		return to, usage("%w", err)
	}
	return to, nil
}

// command sends a command, and prints how many clients it reached. Nobody is an
// error: scripts ask for it.
func command(cmd *cobra.Command, path string, body any) error {
	c, err := newCaller(cmd)
	if err != nil {
		return err
	}
	var answer httpapi.Result
	if err := c.call(cmd.Context(), http.MethodPost, path, nil, body, &answer); err != nil {
		return err
	}
	if answer.Clients == nil {
		return errors.New("the answer of the admin endpoint does not say how many clients were reached")
	}
	n := *answer.Clients
	if flag(cmd.Flags().GetBool, "json") {
		fmt.Fprintf(cmd.OutOrStdout(), "{\"clients\":%d}\n", n)
	} else if n > 0 {
		fmt.Fprintf(cmd.OutOrStdout(), "%s reached\n", count(n, "client", "clients"))
	}
	if n == 0 {
		return errors.New("nobody was reached: no connected client is meant, or none can be sent to")
	}
	return nil
}
