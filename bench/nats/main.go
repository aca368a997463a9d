// Command nats is a NATS server with its defaults, on loopback: it is a process of its own
// so that what it costs is counted apart from the nodes that it joins. It prints its address.
package main

import (
	"fmt"
	"log"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

func main() {
	log.SetFlags(0)
	s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, NoLog: true})
	if err != nil {
		log.Fatal(err)
	}
	s.Start() // SIGTERM ends it
	const patience = 10 * time.Second
	if !s.ReadyForConnections(patience) {
		log.Fatalf("the server was not ready in %s", patience)
	}
	fmt.Println(s.Addr())
	s.WaitForShutdown()
}
