package admin

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/caddy-websocket/caddy-websocket/gateway/httpapi"
)

func nodesCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "nodes",
		Short: "Lists the processes that serve clients together",
		Long: `
Lists the nodes of the gateways: the one that answers (SELF), and those that a
broker joins it with. A process that was restarted is another node, and each of its
gateways has one. Other commands take their names with --node, or that of a host,
which is all nodes on it; a node's name begins the ids of its clients. SINCE is for
how long the node that answers has known it, DRAINING whether it refuses handshakes.

All gateways are shown unless --gateway names one.`,
		Example: `  $ caddy websocket nodes
  $ caddy websocket nodes --json | jq -c 'select(.host == "ws2")'`,
		RunE: run(nodes),
	}
	adminFlags(cmd)
	return cmd
}

// nodeLine is a node as it is printed in JSON.
type nodeLine struct {
	Gateway string `json:"gateway"`
	httpapi.Node
}

func nodes(cmd *cobra.Command, args []string) error {
	if err := noArguments(args); err != nil {
		return err
	}
	c, err := newCaller(cmd)
	if err != nil {
		return err
	}
	var gateways Gateways
	if err := c.call(cmd.Context(), http.MethodGet, "/", nil, nil, &gateways); err != nil {
		return err
	}
	if len(gateways.Gateways) == 0 {
		fmt.Fprintln(cmd.ErrOrStderr(), noGateway)
		return nil
	}
	var lines []nodeLine
	connected := true
	for _, g := range gateways.Gateways {
		var answer httpapi.Nodes
		of := *c
		of.gateway = g.Gateway
		if err := of.call(cmd.Context(), http.MethodGet, "/nodes", nil, nil, &answer); err != nil {
			return err
		}
		connected = connected && (answer.Connected == nil || *answer.Connected)
		for _, n := range answer.Nodes {
			lines = append(lines, nodeLine{g.Gateway, n})
		}
	}
	if err := printNodes(cmd, lines, len(gateways.Gateways) > 1); err != nil {
		return err
	}
	if !connected {
		return incompleteError{errors.New("the broker cannot be reached: other nodes are those that were known before")}
	}
	return nil
}

func printNodes(cmd *cobra.Command, lines []nodeLine, several bool) error {
	out := cmd.OutOrStdout()
	if flag(cmd.Flags().GetBool, "json") {
		for _, n := range lines {
			line, err := json.Marshal(n)
			if err != nil {
				return fmt.Errorf("encoding the answer: %w", err)
			}
			if _, err := fmt.Fprintf(out, "%s\n", safeJSON(line)); err != nil {
				return err
			}
		}
		return nil
	}
	gateway := func(name string, cells ...string) []string {
		if several {
			return append([]string{name}, cells...)
		}
		return cells
	}
	t := newTable(out, gateway("GATEWAY", "NODE", "HOST", "CLIENTS", "SINCE", "SELF", "DRAINING")...)
	for _, n := range lines {
		clients, self, draining := "", "", ""
		if n.Clients != nil {
			clients = strconv.Itoa(*n.Clients)
		}
		if n.Self {
			self = "yes"
		}
		if n.Draining {
			draining = "yes"
		}
		t.row(gateway(n.Gateway, n.ID, n.Host, clients, lasting(time.Since(n.Since)), self, draining)...)
	}
	return t.flush()
}

// nodeFlag gives a command the flag --node.
func nodeFlag(cmd *cobra.Command, help string) {
	cmd.Flags().StringArray("node", nil, help+": its id, self for the one that answers, a host's name for those on it (may be repeated), or all")
}

// nodeQuery returns the parameters for --node.
func nodeQuery(cmd *cobra.Command) (url.Values, error) {
	nodes, err := names(cmd, "node")
	return url.Values{"node": nodes}, err
}

// incompleteError says that something was done, but not on all nodes, or that a list
// may not be all.
type incompleteError struct{ error }

func (e incompleteError) Unwrap() error { return e.error }

// complete returns an error that says which nodes did not answer, and whether that is since
// they could not be asked; nil if all did.
func complete(localOnly bool, missing []string) error {
	names := strings.Join(missing, ", ")
	switch {
	case localOnly && names == "":
		return incompleteError{errors.New("the broker cannot be reached: other nodes were not asked")}
	case localOnly:
		return incompleteError{fmt.Errorf("the broker cannot be reached: other nodes were not asked: %s", names)}
	case names != "":
		return incompleteError{fmt.Errorf("no answer from: %s", names)}
	}
	return nil
}
