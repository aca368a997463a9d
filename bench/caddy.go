package main

import (
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"path/filepath"
)

// site is what a Caddyfile here varies in.
type site struct {
	setting

	binary string
	routes string
}

// The send buffer has room for 16 answers of 64 KiB: the generator sends as many before it reads.
const productRoutes = `
	websocket /echo {
		%[1]s
		send_buffer 4MiB
		logic echo
	}
`

// The send buffer is large so that members who do not read stay, and hold what they can.
const fanoutRoutes = `
	websocket /fanout {
		%[1]s
		user {query.user}
		join {query.group}
		send_buffer 64MiB
		write_timeout 10m
		logic fanout
	}
`

func startProduct(l *lab, s setting) (*server, error) {
	if l.fanout {
		return startCaddy(l, site{s, "fanout-caddy", productRoutes + fanoutRoutes})
	}
	return startCaddy(l, site{s, "caddy", productRoutes})
}

func startFull(l *lab, s setting) (*server, error) {
	s.full = true
	return startProduct(l, s)
}

// startGorilla starts gorilla's loop as a handler of Caddy's.
func startGorilla(l *lab, s setting) (*server, error) {
	return startCaddy(l, site{s, "fanout-caddy", "\tgorilla /echo\n"})
}

func startReverseProxy(l *lab, s setting) (*server, error) {
	backend, err := peer("gorilla")(l, setting{plain: true, env: s.env})
	if err != nil {
		return nil, err
	}
	front, err := startCaddy(l, site{s, "caddy", "\treverse_proxy " + backend.addr + "\n"})
	return join(front, backend, err)
}

// join makes one of a proxy and what is behind it.
func join(front, backend *server, err error) (*server, error) {
	if err != nil {
		backend.stop()
		return nil, err
	}
	front.parts = append(front.parts, backend.parts...)
	front.admin = append(front.admin, backend.admin...)
	return front, nil
}

func startCaddy(l *lab, s site) (*server, error) {
	addr, err := l.freeAddr()
	if err != nil {
		return nil, err
	}
	admin, err := l.freeAddr()
	if err != nil {
		return nil, err
	}
	_, port, _ := net.SplitHostPort(addr)
	scheme, certificate, secure := "https", fmt.Sprintf("tls %s %s", l.cert, l.key), l.tls
	if s.plain {
		scheme, certificate, secure = "http", "", (*tls.Config)(nil)
	}
	dir, err := os.MkdirTemp(l.dir, "caddy-*")
	if err != nil {
		return nil, err
	}
	metrics, log, compression, broker := "", "", "", ""
	if s.nats != "" {
		broker = "websocket {\n\t\tbroker nats " + s.nats + "\n\t}"
	}
	if s.full {
		metrics, log, compression = "metrics", "log {\n\t\toutput file "+filepath.Join(dir, "access.log")+"\n\t}", "compression 1"
	}
	config := fmt.Sprintf(`{
	admin %s
	auto_https disable_redirects
	skip_install_trust
	%s
	%s
}
%s://localhost:%s {
	bind 127.0.0.1
	%s
	%s
%s}
`, admin, metrics, broker, scheme, port, certificate, log, routes(s.routes, compression))
	file := filepath.Join(dir, "Caddyfile")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return nil, err
	}
	env := append([]string{"XDG_DATA_HOME=" + dir, "XDG_CONFIG_HOME=" + dir}, s.env...)
	p, err := l.start(env, l.binary(s.binary), "run", "--config", file)
	if err != nil {
		return nil, err
	}
	return &server{parts: []*process{p}, addr: addr, tls: secure, admin: []string{admin}}, nil
}

func routes(of, compression string) string {
	return fmt.Sprintf(of+"%.0[1]s", compression)
}
