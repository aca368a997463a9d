package admin

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/caddy-websocket/caddy-websocket/gateway"
	"github.com/caddy-websocket/caddy-websocket/gateway/httpapi"
)

func tailCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "tail",
		Short: "Shows what happens, as it happens",
		Long: `
Prints a line for each client that connects or goes, on all nodes unless --node names
some, and with --messages for each message: its type and length. What is in messages is
shown with --payload, if the global option "admin_tail payload" of the configuration
allows it, for clients of the node that is asked.

Ctrl-C ends it. A reload interrupts it for some milliseconds, after which it goes
on by itself.`,
		Example: `  $ caddy websocket tail
  $ caddy websocket tail --endpoint /chat --messages
  $ caddy websocket tail --client "$id" --payload 200
  $ caddy websocket tail --json | jq 'select(.type == "close" and .code != 1000)'`,
		RunE: run(tail),
	}
	adminFlags(cmd)
	f := cmd.Flags()
	f.String("client", "", "Only this client")
	f.String("endpoint", "", "Only clients of this endpoint")
	f.Bool("messages", false, "Messages, too")
	nodeFlag(cmd, "Only clients of this node")
	f.Int("payload", 0, "So many bytes of each message, if the server allows it; implies --messages")
	return cmd
}

// tailSilence is how long the server may be silent: it says every 15 seconds that it
// lives.
const tailSilence = 45 * time.Second

func tail(cmd *cobra.Command, args []string) error {
	if err := noArguments(args); err != nil {
		return err
	}
	f := cmd.Flags()
	query, err := nodeQuery(cmd)
	if err != nil {
		return err
	}
	for _, name := range []string{"client", "endpoint"} {
		if f.Changed(name) {
			query.Set(name, flag(f.GetString, name))
		}
	}
	payload := flag(f.GetInt, "payload")
	if payload < 0 {
		return usage("--payload %d: allowed are positive numbers", payload)
	}
	if payload > 0 {
		query.Set("payload", strconv.Itoa(payload))
	}
	if payload > 0 || flag(f.GetBool, "messages") {
		query.Set("messages", "true")
	}
	c, err := newCaller(cmd)
	if err != nil {
		return err
	}
	ctx, stop := interruptible(cmd)
	defer stop()
	err = c.tail(ctx, cmd, query)
	if ctx.Err() != nil {
		return nil
	}
	if r, ok := errors.AsType[*refusal](err); ok && payload > 0 && r.code == httpapi.CodeInvalidQuery && strings.HasPrefix(r.message, "payload") {
		return fmt.Errorf("%w: the global option websocket { admin_tail payload %d } would allow it", err, payload)
	}
	return err
}

// tail follows from one connection to the next. It returns an error if there is no
// point in going on, and at the first connection if there is none.
func (c *caller) tail(ctx context.Context, cmd *cobra.Command, query url.Values) error {
	stderr := cmd.ErrOrStderr()
	const least, most = 10 * time.Millisecond, 2 * time.Second
	pause, connected, gone := least, false, false
	for {
		err := c.follow(ctx, cmd, query, func() {
			switch {
			case !connected:
				fmt.Fprintln(stderr, "Ctrl-C ends this.")
			default:
				fmt.Fprintln(stderr, "Connected again. What happened in between is not shown.")
			}
			pause, connected, gone = least, true, false
		})
		if !connected || ctx.Err() != nil || isFinal(err) {
			return err
		}
		if err != nil && !gone {
			gone = true // is said once
			fmt.Fprintf(stderr, "%s; trying again\n", safe(err.Error()))
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil
		}
		pause = min(2*pause, most)
	}
}

// isFinal tells whether there is no point in trying again.
func isFinal(err error) bool {
	if r, ok := errors.AsType[*refusal](err); ok {
		return r.status != http.StatusServiceUnavailable
	}
	_, ok := errors.AsType[outputError](err)
	return ok
}

// outputError is about what was printed, or to be printed.
type outputError struct{ error }

func (e outputError) Unwrap() error { return e.error }

// tailLine is a line of the answer.
type tailLine struct {
	gateway.Event
	httpapi.Heard
	Missed    int64           `json:"missed"`
	Heartbeat json.RawMessage `json:"heartbeat"`
}

// follow prints what happens until the connection ends, which is no error.
func (c *caller) follow(ctx context.Context, cmd *cobra.Command, query url.Values, begun func()) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	silence := time.AfterFunc(tailSilence, cancel)
	defer silence.Stop()
	res, err := c.begin(ctx, http.MethodGet, "/tail", query, nil)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	begun()
	lines := bufio.NewReader(res.Body)
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			return nil //nolint:nilerr // as good as any end
		}
		silence.Reset(tailSilence)
		if err := printEvent(cmd.OutOrStdout(), cmd.ErrOrStderr(), line, flag(cmd.Flags().GetBool, "json")); err != nil {
			return outputError{err}
		}
	}
}

func printEvent(out, stderr io.Writer, line []byte, asJSON bool) error {
	var e tailLine
	if err := json.Unmarshal(line, &e); err != nil {
		return fmt.Errorf("reading what the admin endpoint sends: %w", err)
	}
	var err error
	switch {
	case e.Heartbeat != nil:
	case asJSON:
		_, err = fmt.Fprintf(out, "%s\n", strings.TrimSpace(string(safeJSON(line))))
	case e.Type == "" && e.Missed == 0:
		fmt.Fprintln(stderr, heardText(&e.Heard))
	case e.Type == "":
		fmt.Fprintf(stderr, "%s more, faster than they could be shown\n", count(int(e.Missed), "event", "events"))
	default:
		_, err = fmt.Fprintln(out, eventText(&e.Event))
	}
	return err
}

// heardText says which nodes are heard from now on, or no more.
func heardText(h *httpapi.Heard) string {
	var parts []string
	if len(h.Joined) > 0 {
		parts = append(parts, "heard from now on: "+safe(strings.Join(h.Joined, ", ")))
	}
	if len(h.Missing) > 0 {
		parts = append(parts, "no longer heard: "+safe(strings.Join(h.Missing, ", ")))
	}
	switch {
	case h.LocalOnly:
		parts = append(parts, "the broker cannot be reached: only clients of the node that answers are shown")
	case len(parts) == 0:
		parts = append(parts, "the broker can be reached again")
	}
	return strings.Join(parts, "; ")
}

// eventText writes an event as one line.
func eventText(e *gateway.Event) string {
	parts := []string{e.Time.Local().Format("15:04:05.000"), fmt.Sprintf("%-7s", safe(string(e.Type))), safe(e.Endpoint), safe(e.Client), safe(e.RealIP)}
	if e.User != "" {
		parts = append(parts, "user "+safe(e.User))
	}
	switch e.Type {
	case gateway.EventMessage, gateway.EventSend:
		parts = append(parts, fmt.Sprintf("%s, %s", safe(e.Message), count(int(e.Size), "byte", "bytes")))
		if n := int64(len(e.Payload)); n > 0 {
			text := safe(string(e.Payload))
			if n < e.Size {
				text += "..."
			}
			parts = append(parts, text)
		}
	case gateway.EventClose:
		text := strconv.Itoa(e.Code)
		if e.Reason != "" {
			text += " " + strconv.QuoteToGraphic(e.Reason)
		}
		if e.ByPeer {
			text += " by the client"
		}
		parts = append(parts, text)
	case gateway.EventConnect:
	}
	return strings.Join(parts, "  ")
}
