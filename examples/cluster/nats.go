package main

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// natsServer is a NATS server in this process, with nats.conf.
type natsServer struct {
	options *server.Options
	running *server.Server // nil if it is not
}

// newNATS starts a server on a port that is free, which it keeps.
func newNATS(password string) (*natsServer, error) {
	for name, value := range map[string]string{"NATS_LISTEN": "127.0.0.1:-1", "NATS_PASSWORD": password} {
		if err := os.Setenv(name, value); err != nil {
			return nil, fmt.Errorf("setting %s: %w", name, err)
		}
	}
	o, err := server.ProcessConfigFile("nats.conf")
	if err != nil {
		return nil, fmt.Errorf("reading nats.conf: %w", err)
	}
	o.NoLog, o.NoSigs = true, true
	n := &natsServer{options: o}
	if err := n.start(); err != nil {
		return nil, err
	}
	return n, nil
}

func (n *natsServer) start() error {
	s, err := server.NewServer(n.options.Clone())
	if err != nil {
		return fmt.Errorf("starting NATS: %w", err)
	}
	s.Start()
	const enough = 10 * time.Second
	if !s.ReadyForConnections(enough) {
		s.Shutdown()
		return errors.New("starting NATS: it does not listen")
	}
	n.running = s
	if addr, ok := s.Addr().(interface{ AddrPort() netip.AddrPort }); ok {
		n.options.Port = int(addr.AddrPort().Port())
	}
	return nil
}

func (n *natsServer) url() string { return fmt.Sprint("nats://127.0.0.1:", n.options.Port) }

func (n *natsServer) stop() {
	if n.running != nil {
		n.running.Shutdown()
		n.running.WaitForShutdown()
		n.running = nil
	}
}

// toggle stops the server, or starts it again.
func (n *natsServer) toggle(out io.Writer) {
	if n.running != nil {
		n.stop()
		fmt.Fprintln(out, "NATS has stopped")
		return
	}
	if err := n.start(); err != nil {
		fmt.Fprintln(out, err)
		return
	}
	fmt.Fprintln(out, "NATS runs")
}
