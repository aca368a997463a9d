package gateway_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"time"

	"github.com/gorilla/websocket"

	"github.com/caddy-websocket/caddy-websocket/gateway"
)

// Lobby greets who comes in, and passes on what anybody says.
type Lobby struct{ gateway.NopLogic }

// OnConnect names the client by the query and lets it into the room.
func (Lobby) OnConnect(c *gateway.Client, r *http.Request) error {
	name := r.URL.Query().Get("name")
	if name == "" {
		return &gateway.HandshakeError{Status: http.StatusUnauthorized, Err: errors.New("no name")}
	}
	if err := c.Bind(name); err != nil {
		return err
	}
	return c.Join("lobby")
}

// OnMessage tells everybody in the room.
func (Lobby) OnMessage(c *gateway.Client, m gateway.Message) error {
	_, err := c.Gateway().Send(gateway.Groups("lobby"), gateway.Text(c.User()+" says "+m.String()))
	return err
}

// A gateway on net/http: message logic is a type with the callbacks that it
// needs, an endpoint is an http.Handler.
func Example() {
	g, err := gateway.New(gateway.Options{})
	if err != nil {
		log.Fatal(err)
	}
	lobby, err := gateway.NewEndpoint("lobby", gateway.EndpointOptions{Logic: Lobby{}})
	if err != nil {
		log.Fatal(err)
	}
	if err := g.Serve(lobby); err != nil {
		log.Fatal(err)
	}
	server := httptest.NewServer(lobby)
	defer server.Close()

	url := "ws" + strings.TrimPrefix(server.URL, "http") + "?name=tom"
	conn, resp, err := websocket.DefaultDialer.Dial(url, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer resp.Body.Close()
	defer conn.Close()
	if err := conn.WriteMessage(websocket.TextMessage, []byte("hello")); err != nil {
		log.Fatal(err)
	}
	_, answer, err := conn.ReadMessage()
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(string(answer))

	_ = conn.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := g.Shutdown(ctx); err != nil {
		log.Fatal(err)
	}
	// Output: tom says hello
}

// clock tells everybody the time, without a client in hand.
type clock struct{ gateway.NopLogic }

// OnStart is called once when the endpoint comes into force.
func (clock) OnStart(g *gateway.Gateway) error {
	g.Every(time.Minute, func(context.Context) {
		if _, err := g.Send(gateway.All().In("clock"), gateway.Text(time.Now().Format(time.Kitchen))); err != nil {
			log.Print("telling the time: ", err)
		}
	})
	return nil
}

func ExampleStarter() {
	e, err := gateway.NewEndpoint("clock", gateway.EndpointOptions{Logic: clock{}})
	fmt.Println(e.Name(), err)
	// Output: clock <nil>
}

func ExampleTarget() {
	everybodyElse := gateway.Groups("lobby", "hall").ExceptUsers("tom")
	fmt.Println(everybodyElse.Validate())
	fmt.Println(gateway.Users().Validate()) // names nobody
	// Output:
	// <nil>
	// empty target: name all, or clients, users or groups
}

// Nodes of one gateway: what one of them sends reaches the clients of all. Here both are
// in this process, joined by memory; package natsbroker joins those on different machines.
func ExampleBroker() {
	broker := gateway.NewMemoryBroker()
	defer broker.Close()
	var nodes []*gateway.Gateway
	var conns []*websocket.Conn
	for _, name := range []string{"tom", "eve"} {
		g, err := gateway.New(gateway.Options{Broker: broker})
		if err != nil {
			log.Fatal(err)
		}
		lobby, err := gateway.NewEndpoint("lobby", gateway.EndpointOptions{Logic: Lobby{}})
		if err != nil {
			log.Fatal(err)
		}
		if err := g.Serve(lobby); err != nil {
			log.Fatal(err)
		}
		server := httptest.NewServer(lobby)
		defer server.Close()
		conn, resp, err := websocket.DefaultDialer.Dial("ws"+strings.TrimPrefix(server.URL, "http")+"?name="+name, nil)
		if err != nil {
			log.Fatal(err)
		}
		defer resp.Body.Close()
		defer conn.Close()
		nodes, conns = append(nodes, g), append(conns, conn)
	}

	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	for len(nodes[0].Nodes()) < 2 { // they find each other
		time.Sleep(time.Millisecond)
	}
	if err := nodes[1].Settle(ctx); err != nil { // nothing for its groups is missed any more
		log.Fatal(err)
	}
	if _, err := nodes[0].Send(gateway.Groups("lobby"), gateway.Text("hello all")); err != nil {
		log.Fatal(err)
	}
	for _, conn := range conns {
		_, text, err := conn.ReadMessage()
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(string(text))
	}
	reach, err := nodes[0].Count(ctx, gateway.Groups("lobby"))
	fmt.Println(reach.Clients, reach.Missing, err)

	for i, g := range nodes {
		_ = conns[i].Close()
		if err := g.Shutdown(ctx); err != nil {
			log.Fatal(err)
		}
	}
	// Output:
	// hello all
	// hello all
	// 2 [] <nil>
}
