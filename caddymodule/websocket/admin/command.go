package admin

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"

	"github.com/caddy-websocket/caddy-websocket/gateway/httpapi"
)

func init() {
	caddycmd.RegisterCommand(caddycmd.Command{
		Name:  "websocket",
		Usage: "<command>",
		Short: "Shows and commands the WebSocket clients of a running server",
		Long: `
Shows the WebSocket clients of a running server, sends to them, closes them,
watches them, and empties the server before a restart; and connects to any
WebSocket server, as a client.

All but connect talk to the admin endpoint of the running Caddy, at the default
address unless --address names one, or --config names the configuration file
that has it.

What clients have chosen themselves, like names and messages, is printed with
control characters escaped.

Where a broker joins several servers, the nodes, each command is about the clients
of all of them, whichever is asked; --node narrows. drain and tail are about the
one that is asked.

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 done or shown in part: a node did
not answer, or none but the one that was asked could be reached.`,
		CobraFunc: setUp,
	})
}

const (
	// exitUsage is the exit code for a command line that makes no sense.
	exitUsage = 2

	// exitIncomplete is the exit code for what was done or shown, but not for all nodes.
	exitIncomplete = 3
)

// setUp completes the command `websocket`. Caddy calls it once for each command
// line that it builds.
func setUp(root *cobra.Command) {
	root.Example = `  $ caddy websocket list
  $ caddy websocket send --group room:7 'back in five minutes'
  $ caddy websocket connect wss://example.com/chat`
	root.Args = cobra.ArbitraryArgs
	root.RunE = run(func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return cmd.Help()
		}
		return usage("unknown command %q: there are %s", args[0], strings.Join(commandNames(cmd), ", "))
	})
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error { return finish(cmd, usage("%w", err)) })
	root.AddCommand(listCommand(), showCommand(), statsCommand(), nodesCommand(), sendCommand(), closeCommand(),
		tailCommand(), drainCommand(), connectCommand())
}

func commandNames(cmd *cobra.Command) (names []string) {
	for _, c := range cmd.Commands() {
		if c.IsAvailableCommand() && c.Name() != "help" && c.Name() != "completion" {
			names = append(names, c.Name())
		}
	}
	return names
}

// usageError is about the command line, not about what it asks for.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

func usage(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// run makes an error of what a command does one line on the standard error, and an
// exit code.
func run(do func(cmd *cobra.Command, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error { return finish(cmd, do(cmd, args)) }
}

func finish(cmd *cobra.Command, err error) error {
	if err == nil {
		return nil
	}
	cmd.SilenceErrors = true
	fmt.Fprintf(cmd.ErrOrStderr(), "%s: %s\n", cmd.CommandPath(), safe(err.Error()))
	if _, ok := errors.AsType[incompleteError](err); ok {
		return exit(cmd, exitIncomplete)
	}
	if _, ok := errors.AsType[usageError](err); !ok {
		return err // exit code 1
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "Try: %s --help\n", cmd.CommandPath())
	return exit(cmd, exitUsage)
}

// exit returns what Caddy makes an exit code of.
func exit(cmd *cobra.Command, code int) error {
	return caddycmd.WrapCommandFuncForCobra(func(caddycmd.Flags) (int, error) { return code, nil })(cmd, nil)
}

// flag returns the value of a flag that the command has.
func flag[T any](get func(name string) (T, error), name string) T {
	v, err := get(name)
	if err != nil {
		panic(err) // a mistake of ours
	}
	return v
}

// names returns the values of a flag that narrows, or names somebody. An empty one is an
// error: a variable of a script that is not set must not make everybody of one node.
func names(cmd *cobra.Command, name string) ([]string, error) {
	values := flag(cmd.Flags().GetStringArray, name)
	// pflag makes no value of a single empty one.
	if cmd.Flags().Changed(name) && len(values) == 0 || slices.Contains(values, "") {
		return nil, usage("--%s: the name is empty", name)
	}
	if name == "node" && len(values) > 1 && slices.Contains(values, httpapi.NodeAll) {
		return nil, usage("--node %s stands alone", httpapi.NodeAll)
	}
	return values, nil
}

// interruptible returns a context that ends when the command is told to: Ctrl-C.
func interruptible(cmd *cobra.Command) (context.Context, context.CancelFunc) {
	return signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
}

// noArguments refuses arguments.
func noArguments(args []string) error {
	if len(args) > 0 {
		return usage("unexpected argument %q", args[0])
	}
	return nil
}
