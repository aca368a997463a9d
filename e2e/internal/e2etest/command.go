package e2etest

import (
	"context"
	"os/exec"
)

// Command prepares another command of the same binary, like "websocket", "list", in the
// same folder and with the same environment, in which CADDY_ADMIN names the running one. It
// is killed when ctx ends.
func (c *Caddy) Command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, c.cmd.Path, args...)
	cmd.Dir = c.dir
	cmd.Env = c.env
	return cmd
}
