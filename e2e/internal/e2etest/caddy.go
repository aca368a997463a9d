package e2etest

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/gorilla/websocket"
)

// How long Caddy and its commands may take: long enough for a busy machine and the
// race detector, and in each case many times what it takes.
const (
	startTimeout  = 30 * time.Second
	certTimeout   = 10 * time.Second
	reloadTimeout = 30 * time.Second
	logTimeout    = 15 * time.Second
	stopTimeout   = 15 * time.Second
)

// shownLines is how many lines of the log a failed test shows.
const shownLines = 100

// Caddy is a running caddy command. Its methods may be called concurrently.
//
// It ends with its test. A data race or a panic in it, or an exit that nobody asked
// for, fails the test; a test that fails shows the end of the log.
type Caddy struct {
	t       testing.TB
	cmd     *exec.Cmd
	env     []string
	private string // home, configuration, admin socket; data is in it too
	dir     string
	admin   string
	exited  chan struct{}
	exitErr error // written before exited is closed

	stopOnce sync.Once
	log      lineLog
}

// StartCaddy runs Binary with the Caddyfile in the folder dir, and returns when the
// configuration is loaded and the sites have their certificates. (A site that only a
// reload adds may get its certificate after Reload has returned.)
//
// Caddy gets a home and a data folder of its own, and a Unix socket in it as its admin
// endpoint: CADDY_ADMIN, which Caddy itself knows, and WS_ADMIN, which Caddyfile.example
// has in its admin option, name it. Another Caddyfile should not set admin. Each of env
// is NAME=value.
func StartCaddy(t testing.TB, dir, caddyfile string, env ...string) *Caddy {
	t.Helper()
	return StartProgram(t, Binary(t), dir, caddyfile, env...)
}

// StartProgram is StartCaddy for another Caddy than Binary, like those of Program and
// XCaddy.
func StartProgram(t testing.TB, bin, dir, caddyfile string, env ...string) *Caddy {
	t.Helper()
	private, err := os.MkdirTemp("", "caddy") //nolint:usetesting // with a test name in it, the path of the socket may be too long
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(private) })

	c := &Caddy{
		t:       t,
		private: private,
		dir:     dir,
		admin:   filepath.Join(private, "admin.sock"),
		exited:  make(chan struct{}),
	}
	c.env = append(os.Environ(),
		"HOME="+private,
		"XDG_DATA_HOME="+filepath.Join(private, "data"),
		"XDG_CONFIG_HOME="+filepath.Join(private, "config"),
		"XDG_CACHE_HOME="+filepath.Join(private, "cache"),
		"CADDY_ADMIN=unix/"+c.admin,
		"WS_ADMIN=unix/"+c.admin,
		// finish looks whose race it was; and a process that slept a second at its exit,
		// which is the default, would be slow for a reason that users do not have.
		"GORACE=exitcode=0 atexit_sleep_ms=10",
	)
	c.env = append(c.env, env...)
	c.writeConfig(caddyfile)

	c.cmd = exec.Command(bin, "run", "--config", c.configPath(), "--adapter", "caddyfile")
	c.cmd.Dir = dir
	c.cmd.Env = c.env
	c.cmd.Stdout = &c.log
	c.cmd.Stderr = &c.log
	if err := c.cmd.Start(); err != nil {
		t.Fatalf("starting caddy: %v", err)
	}
	go func() {
		c.exitErr = c.cmd.Wait()
		close(c.exited)
	}()
	t.Cleanup(c.finish)

	if err := c.waitReady(); err != nil {
		t.Fatalf("starting caddy: %v", err)
	}
	c.waitCertificates()
	return c
}

// Log returns what Caddy has logged so far. Lines that are not JSON are left out.
func (c *Caddy) Log() []map[string]any {
	lines, _ := c.log.since(0)
	return parseLines(lines)
}

// WaitLog returns the first entry, of those logged already or from now on, that match
// is true for. The test fails if none comes within 15 s, or if Caddy ends before.
func (c *Caddy) WaitLog(match func(map[string]any) bool) map[string]any {
	c.t.Helper()
	deadline := time.After(logTimeout)
	for seen := 0; ; {
		lines, more := c.log.since(seen)
		for _, entry := range parseLines(lines) {
			if match(entry) {
				return entry
			}
		}
		seen += len(lines)
		if len(lines) > 0 {
			continue
		}
		select {
		case <-more:
		case <-c.exited:
			if rest, _ := c.log.since(seen); len(rest) > 0 {
				continue
			}
			c.t.Fatal("caddy ended without the awaited log entry")
		case <-deadline:
			c.t.Fatalf("no such log entry within %v", logTimeout)
		}
	}
}

// Reload runs caddy reload with another Caddyfile. The error has what it printed.
func (c *Caddy) Reload(caddyfile string) error {
	c.t.Helper()
	c.writeConfig(caddyfile)
	ctx, cancel := context.WithTimeout(context.Background(), reloadTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, c.cmd.Path, "reload",
		"--config", c.configPath(), "--adapter", "caddyfile", "--address", "unix/"+c.admin)
	cmd.Dir = c.dir
	cmd.Env = c.env
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("caddy reload: %w\n%s", err, out)
	}
	return nil
}

// Stop sends SIGTERM and returns when Caddy has ended; after 15 s it kills it, which
// fails the test. Further calls do nothing.
func (c *Caddy) Stop() {
	c.t.Helper()
	c.stopOnce.Do(func() {
		select {
		case <-c.exited:
			c.t.Errorf("caddy had ended before it was told to: %v", c.exitErr)
			return
		default:
		}
		// An error means that it is gone already, which exited is about to tell.
		_ = c.cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-c.exited:
			if c.exitErr != nil {
				c.t.Errorf("caddy, told to stop: %v", c.exitErr)
			}
		case <-time.After(stopTimeout):
			c.t.Errorf("caddy did not stop within %v of SIGTERM: killing it", stopTimeout)
			_ = c.cmd.Process.Kill()
			<-c.exited
		}
	})
}

// CertPool returns a pool with the root certificate of Caddy's internal authority,
// which exists once a site with an internal certificate has been started.
func (c *Caddy) CertPool() *x509.CertPool {
	c.t.Helper()
	pem, err := os.ReadFile(filepath.Join(c.private, "data", "caddy", "pki", "authorities", "local", "root.crt"))
	if err != nil {
		c.t.Fatal(err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		c.t.Fatal("the internal authority's root.crt has no certificate")
	}
	return pool
}

// AwaitTLS waits until Caddy answers TLS handshakes for host:port. It says in its log that
// it has a certificate a moment before it serves it.
func (c *Caddy) AwaitTLS(site string) {
	c.t.Helper()
	host, _, err := net.SplitHostPort(site)
	if err != nil {
		c.t.Fatal(err)
	}
	dialer := tls.Dialer{Config: &tls.Config{ServerName: host, RootCAs: c.CertPool(), MinVersion: tls.VersionTLS12}}
	ctx, cancel := context.WithTimeout(c.t.Context(), certTimeout)
	defer cancel()
	for {
		conn, err := dialer.DialContext(ctx, "tcp", site)
		if err == nil {
			conn.Close()
			return
		}
		select {
		case <-ctx.Done():
			c.t.Fatalf("no TLS at %s within %v: %v", site, certTimeout, err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Dial opens a WebSocket that trusts CertPool, and closes it when the test ends.
func (c *Caddy) Dial(url string, header http.Header) *websocket.Conn {
	c.t.Helper()
	dialer := websocket.Dialer{HandshakeTimeout: startTimeout}
	if site, secure := strings.CutPrefix(url, "wss://"); secure {
		site, _, _ = strings.Cut(site, "/")
		c.AwaitTLS(site)
		dialer.TLSClientConfig = &tls.Config{RootCAs: c.CertPool(), MinVersion: tls.VersionTLS12}
	}
	ctx, cancel := context.WithTimeout(c.t.Context(), startTimeout)
	defer cancel()
	ws, res, err := dialer.DialContext(ctx, url, header)
	if err != nil {
		status := "no answer"
		if res != nil {
			status = res.Status
		}
		c.t.Fatalf("dialing %s: %v (%s)", url, err, status)
	}
	c.t.Cleanup(func() { ws.Close() })
	return ws
}

func (c *Caddy) configPath() string { return filepath.Join(c.private, "Caddyfile") }

func (c *Caddy) writeConfig(caddyfile string) {
	c.t.Helper()
	if err := os.WriteFile(c.configPath(), []byte(caddyfile), 0o600); err != nil {
		c.t.Fatal(err)
	}
}

// waitReady waits until the admin endpoint has a configuration to show.
func (c *Caddy) waitReady() error {
	client := &http.Client{
		Timeout: startTimeout,
		Transport: &http.Transport{
			DisableKeepAlives: true,
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return (&net.Dialer{}).DialContext(ctx, "unix", c.admin)
			},
		},
	}
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	for {
		err := getOK(ctx, client, "http://127.0.0.1/config/")
		if err == nil {
			return nil
		}
		select {
		case <-c.exited:
			return fmt.Errorf("it ended: %w", errors.Join(c.exitErr, err))
		case <-ctx.Done():
			return fmt.Errorf("the admin endpoint did not answer within %v: %w", startTimeout, err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// waitCertificates waits until Caddy has the certificates that it manages: it serves
// before, and refuses handshakes. It goes on after 10 s, for the test that wants to see
// an issuer fail.
func (c *Caddy) waitCertificates() {
	c.t.Helper()
	wanted, names := map[any]bool{}, map[string]bool{}
	serving := false
	deadline := time.After(certTimeout)
	for seen := 0; !serving || len(wanted) > 0; {
		lines, more := c.log.since(seen)
		seen += len(lines)
		for _, entry := range parseLines(lines) {
			switch entry["msg"] {
			case "enabling automatic TLS certificate management":
				domains, _ := entry["domains"].([]any)
				for _, domain := range domains {
					wanted[domain] = true
					names[fmt.Sprint(domain)] = true
				}
			case "certificate obtained successfully":
				delete(wanted, entry["identifier"])
			case "serving initial configuration": // all domains have been named
				serving = true
			}
		}
		if len(lines) > 0 {
			continue
		}
		select {
		case <-more:
		case <-c.exited:
			return
		case <-deadline:
			c.t.Logf("no certificate after %v: %v", certTimeout, slices.Collect(maps.Keys(wanted)))
			return
		}
	}
	c.awaitServed(maps.Keys(names))
}

// awaitServed waits until the certificates are served, which is a moment after the log has
// said that they are there: until then handshakes fail with an internal error.
func (c *Caddy) awaitServed(names iter.Seq[string]) {
	ctx, cancel := context.WithTimeout(context.Background(), certTimeout)
	defer cancel()
	for name := range names {
		for _, addr := range c.listeners() {
			dialer := tls.Dialer{Config: &tls.Config{ServerName: name, InsecureSkipVerify: true}} //nolint:gosec // it only asks whether there is a certificate
			for ctx.Err() == nil {
				conn, err := dialer.DialContext(ctx, "tcp", addr)
				if err == nil {
					conn.Close()
				}
				if err == nil || !strings.Contains(err.Error(), "tls: internal error") { // or no TLS there, or not for that name
					break
				}
				time.Sleep(20 * time.Millisecond)
			}
		}
	}
}

// getOK returns nil if the answer is 200 and its body is JSON other than null.
func getOK(ctx context.Context, client *http.Client, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return err
	}
	res, err := client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return errors.New(res.Status)
	}
	var config any
	if err := json.NewDecoder(res.Body).Decode(&config); err != nil {
		return fmt.Errorf("reading the configuration: %w", err)
	}
	if config == nil {
		return errors.New("no configuration yet")
	}
	return nil
}

// ourRaces returns the reports of the race detector with code of this project in them.
// Caddy 2.11.9 has a race of its own when a reload finds a certificate in its storage
// (caddytls.(*TLS).Start), which is not ours to fail for.
func ourRaces(output []byte) [][]byte {
	var ours [][]byte
	for report := range bytes.SplitSeq(output, []byte("==================\n")) {
		if bytes.Contains(report, []byte("WARNING: DATA RACE")) && bytes.Contains(report, []byte(modulePath+"/")) {
			ours = append(ours, report)
		}
	}
	return ours
}

// finish is the end of every Caddy, whatever the test did with it.
func (c *Caddy) finish() {
	c.Stop()
	lines, _ := c.log.since(0)
	for _, line := range lines {
		for _, bad := range []string{"panic: ", "fatal error: "} {
			if bytes.HasPrefix(line, []byte(bad)) {
				c.t.Errorf("caddy printed %q", line)
			}
		}
	}
	for _, race := range ourRaces(bytes.Join(lines, []byte("\n"))) {
		c.t.Errorf("caddy has a data race:\n%s", race)
	}
	if !c.t.Failed() {
		return
	}
	if cut := len(lines) - shownLines; cut > 0 {
		c.t.Logf("caddy's log, without the first %d lines:\n%s", cut, bytes.Join(lines[cut:], []byte("\n")))
		return
	}
	c.t.Logf("caddy's log:\n%s", bytes.Join(lines, []byte("\n")))
}

func parseLines(lines [][]byte) []map[string]any {
	entries := make([]map[string]any, 0, len(lines))
	for _, line := range lines {
		var entry map[string]any
		if json.Unmarshal(line, &entry) == nil && entry != nil {
			entries = append(entries, entry)
		}
	}
	return entries
}
