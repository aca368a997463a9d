package admin

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/caddy-websocket/caddy-websocket/gateway"
)

func showCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "show <client id>",
		Short: "Shows one client with all that is known of it",
		Example: `  $ caddy websocket show kq3v7x2a-ltm4zr2hfq6ck7wbn5xv3yj2ea
  $ caddy websocket show --json kq3v7x2a-ltm4zr2hfq6ck7wbn5xv3yj2ea | jq .session`,
		RunE: run(show),
	}
	adminFlags(cmd)
	return cmd
}

func show(cmd *cobra.Command, args []string) error {
	if len(args) != 1 {
		return usage("show needs one client id: caddy websocket list has them")
	}
	c, err := newCaller(cmd)
	if err != nil {
		return err
	}
	var raw json.RawMessage
	if err := c.call(cmd.Context(), http.MethodGet, "/clients/"+url.PathEscape(args[0]), nil, nil, &raw); err != nil {
		return err
	}
	if flag(cmd.Flags().GetBool, "json") {
		_, err := fmt.Fprintf(cmd.OutOrStdout(), "%s\n", safeJSON(raw))
		return err
	}
	var info gateway.ClientInfo
	var session struct {
		Session json.RawMessage `json:"session"`
	}
	if err := cmp.Or(json.Unmarshal(raw, &info), json.Unmarshal(raw, &session)); err != nil {
		return fmt.Errorf("reading the answer of the admin endpoint: %w", err)
	}
	ping := "not answered yet"
	if info.PingMS > 0 {
		ping = fmt.Sprintf("answered in %.1f ms", info.PingMS)
	}
	if info.Forwarded {
		ping = "passed on"
	}
	t := newTable(cmd.OutOrStdout(), "id", info.ID)
	t.row("endpoint", info.Endpoint)
	t.row("client_ip", info.RealIP)
	t.row("user", info.User)
	t.row("groups", strings.Join(info.Groups, ", "))
	t.row("subprotocol", info.Subprotocol)
	t.row("proto", info.Proto)
	t.row("connected", fmt.Sprintf("%s, for %s", info.ConnectedAt.Local().Format(time.DateTime), lasting(time.Since(info.ConnectedAt))))
	if info.Forwarded {
		t.row("backend", "yes: it cannot be sent to")
	}
	t.row("received", fmt.Sprintf("%s in %s", count(int(info.MessagesIn), "message", "messages"), bytesText(info.BytesIn)))
	t.row("sent", fmt.Sprintf("%s in %s", count(int(info.MessagesOut), "message", "messages"), bytesText(info.BytesOut)))
	t.row("waiting", bytesText(info.Queued))
	t.row("dropped", strconv.FormatInt(info.Dropped, 10))
	t.row("ping", ping)
	t.row("session", string(session.Session))
	return t.flush()
}
