// Command server is one of the servers that `make bench` measures against, on net/http and
// with TLS as crypto/tls does it by default:
//
//	server gorilla|gorilla-nats|coder|gws|centrifuge|bare [-cert server.pem -key server.key]
//
// It prints its address, and that of /debug/pprof. Without a certificate it speaks ws. Each
// but bare, which answers the handshake and blocks, and centrifuge serves /echo; gorilla and gws
// serve /fanout too, see load.Plain. gorilla-nats does that together with others, over the NATS
// server that the variable NATS_URL names. centrifuge serves its own protocol, whatever the path.
package main

import (
	"crypto/tls"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	_ "net/http/pprof" //nolint:gosec // on loopback, at a port that only who started this knows
	"os"
)

func main() {
	log.SetFlags(0)
	serve := map[string]func(net.Listener) error{
		"gorilla":      overHTTP(gorillaMux(gorillaHub{newGroups[*gorillaConn]()})),
		"gorilla-nats": started(func() (http.Handler, error) { return natsMux(os.Getenv("NATS_URL")) }),
		"coder":        overHTTP(coderMux()),
		"gws":          overHTTP(gwsMux()),
		"centrifuge": started(func() (http.Handler, error) {
			node, err := centrifugeNode()
			if err != nil {
				return nil, err
			}
			return centrifugeHandler(node), nil
		}),
		"bare": bare,
	}
	if len(os.Args) < 2 || serve[os.Args[1]] == nil {
		log.Fatal("usage: server gorilla|gorilla-nats|coder|gws|centrifuge|bare [-cert FILE -key FILE]")
	}
	flags := flag.NewFlagSet(os.Args[1], flag.ExitOnError)
	cert := flags.String("cert", "", "certificate; without one there is no TLS")
	key := flags.String("key", "", "its key")
	if err := flags.Parse(os.Args[2:]); err != nil {
		log.Fatal(err)
	}
	if err := run(serve[os.Args[1]], *cert, *key); err != nil {
		log.Fatal(err)
	}
}

func run(serve func(net.Listener) error, cert, key string) error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	admin, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	go func() { log.Fatal(http.Serve(admin, nil)) }() //nolint:gosec // who asks is the benchmark
	fmt.Println(listener.Addr(), admin.Addr())
	if cert != "" {
		pair, err := tls.LoadX509KeyPair(cert, key)
		if err != nil {
			return err
		}
		listener = tls.NewListener(listener, &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}})
	}
	return serve(listener)
}

// started is overHTTP for what must be started first.
func started(start func() (http.Handler, error)) func(net.Listener) error {
	return func(l net.Listener) error {
		h, err := start()
		if err != nil {
			return err
		}
		return overHTTP(h)(l)
	}
}

func overHTTP(h http.Handler) func(net.Listener) error {
	return func(l net.Listener) error { return http.Serve(l, h) } //nolint:gosec // as examples do it
}
