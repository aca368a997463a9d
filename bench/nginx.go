package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
)

// startNginx returns how to start nginx in front of a backend, configured as its
// documentation says for WebSocket.
func startNginx(kind string) func(*lab, setting) (*server, error) {
	start := startNode
	if kind != "node" {
		start = peer(kind)
	}
	return func(l *lab, s setting) (*server, error) {
		program, err := exec.LookPath("nginx")
		if err != nil {
			if program, err = exec.LookPath("/usr/sbin/nginx"); err != nil {
				return nil, &missingError{"nginx"}
			}
		}
		backend, err := start(l, setting{plain: true, env: s.env})
		if err != nil {
			return nil, err
		}
		front, err := l.nginx(program, backend.addr, s)
		return join(front, backend, err)
	}
}

func (l *lab) nginx(program, backend string, s setting) (*server, error) {
	dir, err := os.MkdirTemp(l.dir, "nginx-*")
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(dir, 0o755); err != nil { //nolint:gosec // its workers, who may be somebody else, must get in
		return nil, err
	}
	addr, err := l.freeAddr()
	if err != nil {
		return nil, err
	}
	_, port, _ := net.SplitHostPort(addr)
	ssl := fmt.Sprintf("ssl;\n\t\tssl_protocols TLSv1.2 TLSv1.3;\n\t\tssl_certificate %s;\n\t\tssl_certificate_key %s", l.cert, l.key)
	secure := l.tls
	if s.plain {
		ssl, secure = "", nil
	}
	config := fmt.Sprintf(`daemon off;
pid nginx.pid;
error_log stderr;
worker_processes auto;
worker_rlimit_nofile 20000;
events {
	worker_connections 16384;
}
http {
	access_log off;
	client_body_temp_path body;
	proxy_temp_path proxy;
	fastcgi_temp_path fastcgi;
	uwsgi_temp_path uwsgi;
	scgi_temp_path scgi;
	server {
		listen 127.0.0.1:%s %s;
		server_name localhost;
		location / {
			proxy_pass http://%s;
			proxy_http_version 1.1;
			proxy_set_header Upgrade $http_upgrade;
			proxy_set_header Connection "upgrade";
			proxy_set_header Host $host;
			proxy_read_timeout 1h;
		}
	}
}
`, port, ssl, backend)
	file := filepath.Join(dir, "nginx.conf")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return nil, err
	}
	p, err := l.start(nil, program, "-p", dir, "-c", "nginx.conf", "-e", "stderr")
	if err != nil {
		return nil, err
	}
	return &server{parts: []*process{p}, addr: addr, tls: secure}, nil
}

// node returns where Node and the folder with ws are.
func (l *lab) node() (program, modules string, err error) {
	if program, err = exec.LookPath("node"); err != nil {
		return "", "", &missingError{"node"}
	}
	modules = l.source("e2e/foreign/node/node_modules")
	if _, err := os.Stat(filepath.Join(modules, "ws")); errors.Is(err, os.ErrNotExist) {
		return "", "", &missingError{"ws for Node (npm ci --prefix e2e/foreign/node)"}
	}
	return program, modules, nil
}
