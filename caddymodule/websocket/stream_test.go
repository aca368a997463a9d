package websocket_test

import (
	"context"
	"crypto/tls"
	"strings"
	"testing"

	"github.com/caddy-websocket/caddy-websocket/internal/streamtest"
)

// protocols are what a handshake may come over. Sites of HTTPS have them all.
var protocols = []string{"HTTP/1.1", "HTTP/2.0", "HTTP/3.0"}

// over returns how to connect to HTTPS over a protocol: a connection of its own, on
// which any number of streams can be opened.
func (s *server) over(proto string) connection {
	s.t.Helper()
	var streams *streamtest.Conn
	switch proto {
	case "HTTP/1.1":
		return connection{}
	case "HTTP/2.0":
		config := s.tls()
		config.NextProtos = []string{"h2"}
		conn, err := tls.Dial("tcp", s.https.String(), config)
		if err != nil {
			s.t.Fatal(err)
		}
		if streams, err = streamtest.HTTP2(conn); err != nil {
			s.t.Fatal(err)
		}
	case "HTTP/3.0":
		ctx, cancel := context.WithTimeout(s.t.Context(), wait)
		defer cancel()
		var err error
		if streams, err = streamtest.HTTP3(ctx, s.https.String(), s.tls()); err != nil {
			s.t.Fatal(err)
		}
	}
	s.t.Cleanup(func() { _ = streams.Close() })
	return connection{streams: streams}
}

// eachProtocol runs a test with connections over each protocol, on a server that has
// started already.
func eachProtocol(t *testing.T, s *server, test func(t *testing.T, proto string, by connection)) {
	t.Helper()
	for _, proto := range protocols {
		t.Run(strings.ReplaceAll(proto, "/", ""), func(t *testing.T) { test(t, proto, s.over(proto)) })
	}
}

func TestEveryProtocolReachesTheSameLogic(t *testing.T) {
	s := start(t, `HTTPS {
	websocket /ws {
		logic echo
	}
}`)
	eachProtocol(t, s, func(t *testing.T, proto string, by connection) {
		c := s.dialBy(by, "wss:/ws")
		c.ask("hello", "hello")
		large := strings.Repeat("0123456789", 20_000)
		c.ask(large, large)
		entry := s.log.wait(t, "client connected", "proto", proto)
		if entry["client_ip"] != "127.0.0.1" {
			t.Errorf("logged %v", entry)
		}
		c.leave(1000, "bye")
		s.log.wait(t, "client gone", "client", entry["client"], "code", float64(1000), "by_peer", true)
	})
}
