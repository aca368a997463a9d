package e2etest

import (
	"context"
	"fmt"
	"net/http"
	"os/exec"
	"syscall"
	"time"
)

// Signal sends Caddy a signal. The test then waits with Ended.
func (c *Caddy) Signal(sig syscall.Signal) {
	c.t.Helper()
	if err := c.cmd.Process.Signal(sig); err != nil {
		c.t.Fatalf("sending %v to caddy: %v", sig, err)
	}
}

// StopCommand runs caddy stop. The error has what it printed.
func (c *Caddy) StopCommand() error {
	ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, c.cmd.Path, "stop", "--address", "unix/"+c.admin)
	cmd.Dir = c.dir
	cmd.Env = c.env
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("caddy stop: %w\n%s", err, out)
	}
	return nil
}

// AdminPost sends an empty POST to the admin endpoint, as to /stop. The error has Caddy's
// answer.
func (c *Caddy) AdminPost(path string) error {
	_, err := c.ask(http.MethodPost, path, "", "")
	return err
}

// Exited is closed when Caddy has ended, whoever asked for it.
func (c *Caddy) Exited() <-chan struct{} { return c.exited }

// Ended waits until Caddy, which the test has told to, has ended, and returns its exit code.
// After 15 s it kills it, which fails the test.
func (c *Caddy) Ended() (code int) {
	c.t.Helper()
	c.stopOnce.Do(func() { // so that the end is no surprise
		select {
		case <-c.exited:
		case <-time.After(stopTimeout):
			c.t.Errorf("caddy did not end within %v: killing it", stopTimeout)
			_ = c.cmd.Process.Kill()
			<-c.exited
		}
	})
	<-c.exited
	return c.cmd.ProcessState.ExitCode()
}

// Raced tells whether the test and the programs that it builds have the race detector in
// them, with which a machine does a fraction of its work.
func Raced() bool { return raceEnabled }
