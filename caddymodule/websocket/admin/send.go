package admin

import (
	"fmt"
	"io"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/caddy-websocket/caddy-websocket/gateway"
)

func sendCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "send <text | ->",
		Short: "Sends a message to clients",
		Long: `
Sends one message, the argument or, for -, what the standard input has, to all
clients that are named, and prints how many have it in their queue. Clients,
users and groups are united; --endpoint narrows, --except-... takes out again.

Clients of reverse_proxy cannot be sent to. Reaching nobody is exit code 1.`,
		Example: `  $ caddy websocket send --all 'back in five minutes'
  $ caddy websocket send --user 7 --user 8 --endpoint /chat '{"type":"hello"}'
  $ jq -c . news.json | caddy websocket send --group news -
  $ caddy websocket send --binary --client "$id" - < picture.jpg`,
		RunE: run(send),
	}
	adminFlags(cmd)
	targetFlags(cmd)
	cmd.Flags().Bool("binary", false, "Send a binary message")
	return cmd
}

func send(cmd *cobra.Command, args []string) error {
	to, err := target(cmd)
	if err != nil {
		return err
	}
	if len(args) != 1 {
		return usage("send needs one message: found %d arguments; quote it, or write - to read it from the standard input", len(args))
	}
	message := []byte(args[0])
	if args[0] == "-" {
		if message, err = io.ReadAll(cmd.InOrStdin()); err != nil {
			return fmt.Errorf("reading the message from the standard input: %w", err)
		}
	}
	what := gateway.SendCommand{To: to}
	switch text := string(message); {
	case flag(cmd.Flags().GetBool, "binary"):
		what.Binary = &message
	case !utf8.ValidString(text):
		return usage("the message is not UTF-8, which a text message must be: use --binary")
	default:
		what.Text = &text
	}
	return command(cmd, "/send", what)
}

func closeCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "close",
		Short: "Closes clients",
		Long: `
Closes all clients that are named, when what waits for them has been sent, and
prints how many. A client should come back by itself unless the code is 1000 or
1008. Reaching nobody is exit code 1.`,
		Example: `  $ caddy websocket close --client kq3v7x2a-ltm4zr2hfq6ck7wbn5xv3yj2ea
  $ caddy websocket close --user 7 --code 1008 --reason 'account locked'`,
		RunE: run(closeClients),
	}
	adminFlags(cmd)
	targetFlags(cmd)
	cmd.Flags().Int("code", gateway.CloseNormal, "Close code: 1000-1003, 1007-1014, 3000-4999")
	cmd.Flags().String("reason", "", "Reason, at most 123 bytes")
	return cmd
}

func closeClients(cmd *cobra.Command, args []string) error {
	if err := noArguments(args); err != nil {
		return err
	}
	to, err := target(cmd)
	if err != nil {
		return err
	}
	code, reason := flag(cmd.Flags().GetInt, "code"), flag(cmd.Flags().GetString, "reason")
	if code == 0 {
		return usage("--code 0: allowed are 1000-1003, 1007-1014 and 3000-4999")
	}
	if !utf8.ValidString(reason) {
		return usage("--reason %q is not UTF-8", reason)
	}
	return command(cmd, "/close", gateway.CloseCommand{To: to, Code: code, Reason: reason})
}
