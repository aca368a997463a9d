package main

import (
	"context"
	"log"
	"net/http"
	"time"

	"github.com/centrifugal/centrifuge"
)

// centrifugeNode is the library that Centrifugo is made of, with its broker in memory. Its
// settings are its defaults, which are Centrifugo's, too: metrics, up to 16 messages in a frame,
// no history, compression or delay. Two are not: it sends no pings, which the generator would
// count, and members who do not read may stay, as with the product, instead of being cut off
// after 1 MiB or a second.
//
// Everybody may connect, subscribe and publish.
func centrifugeNode() (*centrifuge.Node, error) {
	node, err := centrifuge.New(centrifuge.Config{
		ClientQueueMaxSize: 64 << 20,
		LogLevel:           centrifuge.LogLevelError,
		LogHandler:         func(e centrifuge.LogEntry) { log.Print(e.Message, e.Fields, e.Error) },
	})
	if err != nil {
		return nil, err
	}
	node.OnConnecting(func(context.Context, centrifuge.ConnectEvent) (centrifuge.ConnectReply, error) {
		return centrifuge.ConnectReply{Credentials: &centrifuge.Credentials{}}, nil // nobody in particular
	})
	node.OnConnect(func(client *centrifuge.Client) {
		client.OnSubscribe(func(_ centrifuge.SubscribeEvent, done centrifuge.SubscribeCallback) {
			done(centrifuge.SubscribeReply{}, nil)
		})
		client.OnPublish(func(_ centrifuge.PublishEvent, done centrifuge.PublishCallback) {
			done(centrifuge.PublishReply{}, nil)
		})
	})
	return node, node.Run()
}

// centrifugeHandler serves clients of the node.
func centrifugeHandler(node *centrifuge.Node) http.Handler {
	return centrifuge.NewWebsocketHandler(node, centrifuge.WebsocketConfig{
		WriteTimeout:   10 * time.Minute,
		PingPongConfig: centrifuge.PingPongConfig{PingInterval: -1, PongTimeout: -1},
	})
}
