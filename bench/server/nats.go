package main

import (
	"net/http"
	"sync"

	"github.com/nats-io/nats.go"
)

// natsMux is gorilla's loop on more than one machine, in the way that is written first: what
// is for a group is published on a subject of the group's, to which each server subscribes
// when its first member comes; also the server that publishes hears it there.
func natsMux(url string) (http.Handler, error) {
	nc, err := nats.Connect(url)
	if err != nil {
		return nil, err
	}
	return gorillaMux(&natsHub{nc: nc, here: gorillaHub{newGroups[*gorillaConn]()}, heard: make(map[string]bool)}), nil
}

// natsHub joins the groups of several servers.
type natsHub struct {
	nc   *nats.Conn
	here gorillaHub

	mu    sync.Mutex
	heard map[string]bool // guarded by mu; subjects that are subscribed to
}

func (h *natsHub) join(c *gorillaConn, names ...string) error {
	if err := h.here.join(c, names...); err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, name := range names {
		if h.heard[name] {
			continue
		}
		_, err := h.nc.Subscribe("group."+name, func(m *nats.Msg) { _, _ = h.here.send(name, m.Data) })
		if err != nil {
			return err
		}
		h.heard[name] = true
	}
	return nil
}

func (h *natsHub) leave(c *gorillaConn) { h.here.leave(c) }

// send has no number to return: who has members is not known.
func (h *natsHub) send(name string, message []byte) (int, error) {
	return 0, h.nc.Publish("group."+name, message)
}

func (h *natsHub) settle() error { return h.nc.Flush() }
