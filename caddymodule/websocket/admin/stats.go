package admin

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/caddy-websocket/caddy-websocket/gateway"
	"github.com/caddy-websocket/caddy-websocket/gateway/httpapi"
)

func statsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "stats",
		Short: "Shows what the gateways have counted",
		Long: `
Shows how many clients, users and groups there are, and what each endpoint has
counted since the process was started: handshakes by their HTTP status (101 are
those that became clients), messages, and closes by code. All gateways are
shown unless --gateway names one, and all nodes unless --node does.`,
		Example: `  $ caddy websocket stats
  $ caddy websocket stats --node self
  $ caddy websocket stats --json | jq .clients`,
		RunE: run(stats),
	}
	adminFlags(cmd)
	nodeFlag(cmd, "Only this node")
	return cmd
}

func stats(cmd *cobra.Command, args []string) error {
	if err := noArguments(args); err != nil {
		return err
	}
	query, err := nodeQuery(cmd)
	if err != nil {
		return err
	}
	if len(query["node"]) == 0 {
		query.Set("node", httpapi.NodeAll)
	}
	c, err := newCaller(cmd)
	if err != nil {
		return err
	}
	var answer struct {
		Gateways  []json.RawMessage `json:"gateways"`
		Missing   []string          `json:"missing"`
		LocalOnly bool              `json:"local_only"`
	}
	if err := c.call(cmd.Context(), http.MethodGet, "/", query, nil, &answer); err != nil {
		return err
	}
	out := cmd.OutOrStdout()
	asJSON := flag(cmd.Flags().GetBool, "json")
	for i, raw := range answer.Gateways {
		if asJSON {
			if _, err := fmt.Fprintf(out, "%s\n", safeJSON(raw)); err != nil {
				return err
			}
			continue
		}
		var s gateway.Stats
		if err := json.Unmarshal(raw, &s); err != nil {
			return fmt.Errorf("reading the answer of the admin endpoint: %w", err)
		}
		if i > 0 {
			fmt.Fprintln(out)
		}
		if err := printStats(out, &s); err != nil {
			return err
		}
	}
	if len(answer.Gateways)+len(answer.Missing) == 0 {
		fmt.Fprintln(cmd.ErrOrStderr(), noGateway)
	}
	return complete(answer.LocalOnly, answer.Missing)
}

const noGateway = "There is no gateway: no websocket is configured."

func printStats(out io.Writer, s *gateway.Stats) error {
	fmt.Fprintf(out, "gateway %s, node %s: %s, %s, %s\n", safe(s.Gateway), safe(s.Node), count(s.Clients, "client", "clients"),
		count(s.Users, "user", "users"), count(s.Groups, "group", "groups"))
	if s.Draining {
		undo := "caddy websocket drain --resume"
		if s.Cluster != nil { // it may be another node than the one that answers
			undo += " --node " + safe(s.Node)
		}
		fmt.Fprintf(out, "draining: handshakes are refused with 503 until `%s`\n", undo)
	}
	if s.Cluster != nil && !s.Cluster.Connected {
		fmt.Fprintln(out, "on its own: the broker cannot be reached")
	}
	if s.SweeperLag > 1 {
		fmt.Fprintf(out, "time-outs come %.1f s late: the machine is overloaded\n", s.SweeperLag)
	}
	t := newTable(out, "ENDPOINT", "CLIENTS", "IN", "OUT", "BYTES IN", "BYTES OUT", "DROPPED", "UNSENT", "HANDSHAKES", "CLOSES")
	for _, e := range s.Endpoints {
		number := func(n int64) string { return strconv.FormatInt(n, 10) }
		t.row(e.Endpoint, strconv.Itoa(e.Clients), number(e.MessagesIn), number(e.MessagesOut), bytesText(e.BytesIn), bytesText(e.BytesOut),
			number(e.Dropped), number(e.Unsent), handshakes(e.Handshakes), closes(e.Closes))
	}
	return t.flush()
}

// handshakes writes for example "101: 20, 403: 1".
func handshakes(byStatus map[int]int64) string {
	all := make([]string, 0, len(byStatus))
	for _, status := range slices.Sorted(maps.Keys(byStatus)) {
		all = append(all, fmt.Sprintf("%d: %d", status, byStatus[status]))
	}
	return strings.Join(all, ", ")
}

// closes writes for example "1000: 5 by the client, 1013: 1".
func closes(counts []gateway.CloseCount) string {
	all := make([]string, 0, len(counts))
	for _, c := range slices.SortedStableFunc(slices.Values(counts), func(a, b gateway.CloseCount) int { return cmp.Compare(a.Code, b.Code) }) {
		text := fmt.Sprintf("%s: %d", c.Code, c.Count)
		if c.ByPeer {
			text += " by the client"
		}
		all = append(all, text)
	}
	return strings.Join(all, ", ")
}
