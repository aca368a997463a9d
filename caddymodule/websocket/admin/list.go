package admin

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"github.com/caddy-websocket/caddy-websocket/gateway"
	"github.com/caddy-websocket/caddy-websocket/gateway/httpapi"
)

func listCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "list [clients | users | groups]",
		Short: "Lists the clients, users or groups of a gateway",
		Long: `
Lists clients in the order of their ids, or users or groups with how many clients
each has. IN and OUT are messages from and to the client, QUEUE is what waits to be
written to it. All conditions must hold; --endpoint and --node may be repeated.
Where there are several nodes, NODE says where a client is.`,
		Example: `  $ caddy websocket list
  $ caddy websocket list --endpoint /chat --group room:7
  $ caddy websocket list --ip 203.0.113.7 --json | jq -r .id
  $ caddy websocket list groups --prefix room:`,
		RunE: run(list),
	}
	adminFlags(cmd)
	f := cmd.Flags()
	f.StringArray("endpoint", nil, "Only clients of this endpoint")
	nodeFlag(cmd, "Only clients of this node")
	f.String("user", "", "Only clients of this user")
	f.String("group", "", "Only members of this group")
	f.String("ip", "", "Only clients with this real IP")
	f.String("prefix", "", "Only users or groups whose names begin so")
	f.Int("limit", 0, "At most so many (default all)")
	return cmd
}

func list(cmd *cobra.Command, args []string) error {
	what := "clients"
	if len(args) > 0 {
		what = args[0]
	}
	if len(args) > 1 || what != "clients" && what != "users" && what != "groups" {
		return usage("list %s: allowed are clients, users, groups", strings.Join(args, " "))
	}
	f := cmd.Flags()
	limit := flag(f.GetInt, "limit")
	if limit < 0 {
		return usage("--limit %d: allowed are positive numbers, or 0 for all", limit)
	}
	query, err := nodeQuery(cmd)
	if err != nil {
		return err
	}
	if query["endpoint"], err = names(cmd, "endpoint"); err != nil {
		return err
	}
	for _, name := range []string{"user", "group", "ip", "prefix"} {
		if !f.Changed(name) {
			continue
		}
		if (what == "clients") == (name == "prefix") {
			return usage("list %s knows no --%s", what, name)
		}
		query.Set(name, flag(f.GetString, name))
	}
	c, err := newCaller(cmd)
	if err != nil {
		return err
	}
	out := bufio.NewWriter(cmd.OutOrStdout())
	p := printer{json: flag(f.GetBool, "json"), out: out}
	if !p.json {
		if p.nodes, err = c.shows(cmd, what, query["node"]); err != nil {
			return err
		}
		columns := columns[what]
		if p.nodes {
			columns = slices.Insert(slices.Clone(columns), 1, "NODE")
		}
		p.table = newTable(out, columns...)
	}
	if err := p.pages(cmd, c, what, query, limit); err != nil {
		return err
	}
	if p.table != nil {
		if err := p.table.flush(); err != nil {
			return err
		}
	}
	if err := out.Flush(); err != nil {
		return err
	}
	return complete(p.localOnly, p.missing)
}

// shows tells whether a list has several nodes' clients.
func (c *caller) shows(cmd *cobra.Command, what string, nodes []string) (bool, error) {
	if what != "clients" {
		return false, nil
	}
	var known httpapi.Nodes
	if err := c.call(cmd.Context(), http.MethodGet, "/nodes", nil, nil, &known); err != nil {
		return false, err
	}
	one := len(nodes) == 1 && (nodes[0] == httpapi.NodeSelf || slices.ContainsFunc(known.Nodes, func(n httpapi.Node) bool { return n.ID == nodes[0] }))
	return len(known.Nodes) > 1 && !one, nil
}

var columns = map[string][]string{
	"clients": {"ID", "ENDPOINT", "IP", "USER", "CONNECTED", "IN", "OUT", "QUEUE"},
	"users":   {"USER", "CLIENTS"},
	"groups":  {"GROUP", "CLIENTS"},
}

// printer prints the entries of lists.
type printer struct {
	json    bool
	out     io.Writer
	table   *table   // nil for JSON
	nodes   bool     // a column says where each client is
	missing []string // nodes that did not answer for a page, sorted

	localOnly bool // other nodes could not be asked for a page
}

// pages prints page after page, up to limit entries if it is not 0.
func (p *printer) pages(cmd *cobra.Command, c *caller, what string, query url.Values, limit int) error {
	for printed := 0; ; {
		size := gateway.MaxPageSize
		if limit > 0 {
			size = min(size, limit-printed)
		}
		query.Set("limit", strconv.Itoa(size))
		var page struct {
			Clients   []json.RawMessage `json:"clients"`
			Names     []json.RawMessage `json:"names"`
			Next      string            `json:"next"`
			Missing   []string          `json:"missing"`
			LocalOnly bool              `json:"local_only"`
		}
		if err := c.call(cmd.Context(), http.MethodGet, "/"+what, query, nil, &page); err != nil {
			return err
		}
		p.localOnly = p.localOnly || page.LocalOnly
		p.missing = slices.Compact(slices.Sorted(slices.Values(append(p.missing, page.Missing...))))
		for _, entry := range append(page.Clients, page.Names...) {
			if err := p.print(entry); err != nil {
				return err
			}
			printed++
		}
		if page.Next == "" {
			return nil
		}
		if limit > 0 && printed >= limit {
			fmt.Fprintf(cmd.ErrOrStderr(), "There are more %s than --limit %d.\n", what, limit)
			return nil
		}
		query.Set("cursor", page.Next)
	}
}

func (p *printer) print(entry json.RawMessage) error {
	if p.json {
		_, err := fmt.Fprintf(p.out, "%s\n", safeJSON(entry))
		return err
	}
	var e struct {
		gateway.ClientInfo
		gateway.NameCount
	}
	if err := json.Unmarshal(entry, &e); err != nil {
		return fmt.Errorf("reading the answer of the admin endpoint: %w", err)
	}
	if e.ID == "" {
		p.table.row(e.Name, strconv.Itoa(e.Clients))
		return nil
	}
	cells := []string{
		e.ID, e.Endpoint, e.RealIP, e.User, lasting(time.Since(e.ConnectedAt)),
		fmt.Sprint(e.MessagesIn), fmt.Sprint(e.MessagesOut), bytesText(e.Queued),
	}
	if p.nodes {
		node, _, _ := strings.Cut(e.ID, "-")
		cells = slices.Insert(cells, 1, node)
	}
	p.table.row(cells...)
	return nil
}

func bytesText(n int64) string { return humanize.IBytes(uint64(max(n, 0))) }
