package soak

import (
	"bytes"
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/caddy-websocket/caddy-websocket/e2e/internal/e2etest"
)

// nginx is one that was started by the test, in a folder of its own.
type nginx struct {
	program string
	dir     string
	addr    string
	backend string
	roots   *x509.CertPool
	cmd     *exec.Cmd
	said    bytes.Buffer // to be read when it has ended
}

// startNginx skips the test if there is none.
func startNginx(t *testing.T, backend string) *nginx {
	t.Helper()
	program, err := exec.LookPath("nginx")
	if err != nil {
		if program, err = exec.LookPath("/usr/sbin/nginx"); err != nil {
			t.Skip("left out: there is no nginx in PATH or in /usr/sbin")
		}
	}
	dir, err := os.MkdirTemp("", "nginx") //nolint:usetesting // its workers, who may be somebody else, must get in
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	authority := e2etest.NewAuthority(t)
	authority.WriteFiles(dir, "localhost")
	n := &nginx{
		program: program, dir: dir, backend: backend, roots: authority.Roots(),
		addr: fmt.Sprintf("localhost:%d", e2etest.FreePort(t)),
	}
	n.configure(t, "start", "")
	n.cmd = exec.Command(program, "-p", dir, "-c", "nginx.conf", "-e", "stderr")
	n.cmd.Stderr = &n.said
	if err := n.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	exited := make(chan struct{})
	go func() {
		_ = n.cmd.Wait() // it is told to end
		close(exited)
	}()
	t.Cleanup(func() {
		_ = n.cmd.Process.Signal(syscall.SIGTERM) // the master passes it on to all workers
		select {
		case <-exited:
		case <-time.After(patience):
			t.Errorf("nginx did not end within %s of SIGTERM", patience)
			_ = n.cmd.Process.Kill()
			<-exited
		}
		if t.Failed() {
			t.Logf("nginx said:\n%s", &n.said)
		}
	})
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		conn, err := net.Dial("tcp", n.addr)
		if err == nil {
			conn.Close()
			return n
		}
		if time.Now().After(deadline) {
			t.Fatalf("nginx did not listen within %s: %v", patience, err)
		}
	}
}

func (n *nginx) configure(t *testing.T, tag, rest string) {
	t.Helper()
	_, port, _ := net.SplitHostPort(n.addr)
	config := fmt.Sprintf(`daemon off;
pid nginx.pid;
error_log stderr;
worker_processes auto;
worker_rlimit_nofile 20000;
events {
	worker_connections 8192;
}
http {
	access_log off;
	client_body_temp_path body;
	proxy_temp_path proxy;
	fastcgi_temp_path fastcgi;
	uwsgi_temp_path uwsgi;
	scgi_temp_path scgi;
	server {
		listen 127.0.0.1:%s ssl;
		server_name localhost;
		ssl_certificate server.pem;
		ssl_certificate_key server.key;
		location / {
			proxy_pass http://%s;
			proxy_http_version 1.1;
			proxy_set_header Upgrade $http_upgrade;
			proxy_set_header Connection "upgrade";
			proxy_set_header Host $host;
			proxy_set_header X-Tag %s;
			proxy_read_timeout 1h;
		}
	}
}
%s
`, port, n.backend, tag, rest)
	if err := os.WriteFile(filepath.Join(n.dir, "nginx.conf"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
}

// reload is the n-th. nginx reads the configuration before it tells the master, which
// then works on its own: how long that takes cannot be seen here.
func (n *nginx) reload(t *testing.T, nth int) {
	t.Helper()
	rest := ""
	if broken(nth) {
		rest = "nothing_of_that_name;"
	}
	n.configure(t, fmt.Sprintf("tag-%d", nth), rest)
	out, err := exec.Command(n.program, "-p", n.dir, "-c", "nginx.conf", "-e", "stderr", "-s", "reload").CombinedOutput()
	if (err != nil) != broken(nth) {
		t.Errorf("nginx -s reload with %q at the end of its configuration: %v\n%s", rest, err, out)
	}
}

func (n *nginx) sample() sample {
	master := n.cmd.Process.Pid
	s := sample{processes: 1, pss: pss(master)}
	for _, pid := range children(master) {
		s.processes++
		s.pss += pss(pid)
		if title, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)); err == nil && strings.Contains(string(title), "shutting down") {
			s.old++
		}
	}
	return s
}

// version returns for example "nginx/1.22.1".
func (n *nginx) version() string {
	out, _ := exec.Command(n.program, "-v").CombinedOutput() // without a version it is still nginx
	_, version, found := strings.Cut(strings.TrimSpace(string(out)), ": ")
	if !found {
		return "nginx"
	}
	return version
}
