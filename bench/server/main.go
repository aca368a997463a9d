// Command server is one of the servers that `make bench` measures against, on net/http and
// with TLS as crypto/tls does it by default:
//
//	server gorilla|gorilla-nats|coder|gws|bare [-cert server.pem -key server.key]
//
// It prints its address, and that of /debug/pprof. Without a certificate it speaks ws. Each
// but bare, which answers the handshake and blocks, serves /echo; gorilla and gws serve
// /fanout too, see load.Fanout. gorilla-nats does that together with others, over the NATS
// server that the variable NATS_URL names.
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
		"gorilla": overHTTP(gorillaMux(gorillaHub{newGroups[*gorillaConn]()})),
		"gorilla-nats": func(l net.Listener) error {
			mux, err := natsMux(os.Getenv("NATS_URL"))
			if err != nil {
				return err
			}
			return overHTTP(mux)(l)
		},
		"coder": overHTTP(coderMux()),
		"gws":   overHTTP(gwsMux()),
		"bare":  bare,
	}
	if len(os.Args) < 2 || serve[os.Args[1]] == nil {
		log.Fatal("usage: server gorilla|gorilla-nats|coder|gws|bare [-cert FILE -key FILE]")
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

func overHTTP(h http.Handler) func(net.Listener) error {
	return func(l net.Listener) error { return http.Serve(l, h) } //nolint:gosec // as examples do it
}
