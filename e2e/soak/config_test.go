package soak

import (
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/caddy-websocket/caddy-websocket/e2e/internal/e2etest"
)

// idle is how long HTTP/2 keeps a connection without sockets, and by a fault of
// golang.org/x/net/http2 (serverConn.serve stops the timer of it before closeStream starts
// it again) all memory of one that was lost with sockets on it. Caddy's default, five
// minutes, is too long to wait for.
const idle = 5 * time.Second

// slowTimeout is the least write_timeout that the configurations give /slow.
const slowTimeout = 2 * time.Second

// change is one reload: a configuration, and whether it must be refused.
type change struct {
	what   string
	broken bool
	config string
}

// settings are what changes from reload to reload.
type settings struct {
	tag      string
	limit    int  // the more, the more is allowed; /trial and /proxied can do with 0
	newSites bool // two more sites, one with a certificate
	level    string
}

// configs makes configurations for one Caddy.
type configs struct {
	settings

	port  int
	other [2]int // ports of the sites that come and go
	taken string // an address that somebody else listens on
	site  func(settings) string
}

func newConfigs(t *testing.T, site func(settings) string) *configs {
	t.Helper()
	occupier, err := net.Listen("tcp", "127.0.0.1:0") // without SO_REUSEPORT: nobody else gets the port
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { occupier.Close() })
	return &configs{
		settings: settings{tag: "start", level: "INFO"},
		port:     e2etest.ReservePort(t),
		other:    [2]int{e2etest.ReservePort(t), e2etest.ReservePort(t)},
		taken:    occupier.Addr().String(),
		site:     site,
	}
}

// caddyfile returns the configuration as the settings are; global is for options that
// break it.
func (c *configs) caddyfile(global string) string {
	var b strings.Builder
	fmt.Fprintf(&b, `{
	auto_https disable_redirects
	skip_install_trust
	log {
		level %s
	}
	servers {
		timeouts {
			idle %s
		}
	}
	%s
}
https://localhost:%d {
	bind 127.0.0.1
	tls internal
%s}
`, c.level, idle, global, c.port, c.site(c.settings))
	if c.newSites {
		fmt.Fprintf(&b, `http://localhost:%d {
	bind 127.0.0.1
	respond "another site"
}
https://other.localhost:%d {
	bind 127.0.0.1
	tls internal
	respond "and one with a certificate"
}
`, c.other[0], c.other[1])
	}
	return b.String()
}

// round is how many changes there are before they begin again.
const round = 12

// broken tells whether the n-th reload has a configuration that must be refused.
func broken(n int) bool { return n%3 == 2 }

// change returns the n-th reload. Those that are not broken change the settings.
func (c *configs) change(n int) change {
	refused := func(what, config string) change { return change{what, true, config} }
	var what string
	switch n % round {
	case 2:
		return refused("a directive that does not exist", c.caddyfile("")+"http://localhost {\n\tnothing_of_that_name\n}\n")
	case 5:
		return refused("a certificate that is not there", c.caddyfile("")+
			fmt.Sprintf("https://bad.localhost:%d {\n\tbind 127.0.0.1\n\ttls nothere.pem nothere.key\n}\n", c.other[1]))
	case 8:
		return refused("a port that is taken", c.caddyfile("")+"http://"+c.taken+" {\n\tbind 127.0.0.1\n}\n")
	case 11:
		return refused("an option out of range", c.caddyfile("websocket {\n\t\tclose_rate -1\n\t}"))
	case 0, 4, 7, 10:
		what = "another tag"
		c.tag = fmt.Sprintf("tag-%d", n)
	case 1, 6:
		what = "other limits"
		c.limit = rand.IntN(10)
	case 3:
		what = "sites that come or go"
		c.newSites = !c.newSites
	default:
		what = "another log level"
		c.level = map[string]string{"INFO": "DEBUG", "DEBUG": "INFO"}[c.level]
	}
	return change{what, false, c.caddyfile("")}
}

// first returns the configuration that the run began with, as a reload.
func (c *configs) first() string {
	c.settings = settings{tag: "start", level: "INFO"}
	return c.caddyfile("")
}

// inCaddy is the site of this project: half of the clients talk to logic, half to the
// backend.
func inCaddy(backend string) func(settings) string {
	return func(s settings) string {
		return fmt.Sprintf(`	websocket /trial {
		user {query.user}
		max_message_size %dKiB
		max_clients %d
		message_rate %d
		send_buffer %dKiB
		write_timeout %ds
		ping %ds 10s
		logic trial %s
	}
	websocket /slow {
		user {query.user}
		send_buffer 64MiB
		write_timeout %s
		logic trial %s
	}
	websocket /proxied {
		user {query.user}
		max_clients %d
		reverse_proxy %s {
			header_up X-Tag %s
		}
	}
`, 16+s.limit, 10000+s.limit, 5000+s.limit, 1024+64*s.limit, 10+s.limit, 20+s.limit, s.tag, slowTimeout, s.tag, 10000+s.limit, backend, s.tag)
	}
}

// byCaddy is the site of a Caddy that passes everything on by its own reverse_proxy.
func byCaddy(backend, option string) func(settings) string {
	return func(s settings) string {
		return fmt.Sprintf(`	request_body {
		max_size %dMB
	}
	reverse_proxy %s {
		header_up X-Tag %s
		%s
	}
`, 10+s.limit, backend, s.tag, option)
	}
}
