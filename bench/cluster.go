package main

import (
	"fmt"
	"slices"
	"time"

	"github.com/caddy-websocket/caddy-websocket/bench/load"
)

// clusters are the workloads with more than one node, and those that show what it costs to be
// ready for them. They have a thousand clients, or fewer if few connections are asked for.
func clusters(conns int) []*workload {
	members := min(1000, 10*conns)
	return []*workload{
		alone("cluster/alone", fmt.Sprintf("90 B to a group of %d, 1 outstanding, on one node with a broker", members), spread{}.fanout(members)),
		alone("cluster/alone/users", fmt.Sprintf("90 B to one of %d users after the other, 16 outstanding, on one node with a broker", members), spread{}.users(members)),
		cluster("cluster/2", fmt.Sprintf("90 B to a group of %d, 1 outstanding, members on 2 nodes", members), 2, spread{}.fanout(members)),
		cluster("cluster/2/remote", fmt.Sprintf("90 B to a group of %d, 1 outstanding, all on the other of 2 nodes", members), 2, spread{remote: true}.fanout(members)),
		cluster("cluster/2/users", fmt.Sprintf("90 B to one of %d users after the other, 16 outstanding, all on the other of 2 nodes", members), 2, spread{remote: true}.users(members)),
		cluster("cluster/3", fmt.Sprintf("90 B to a group of %d, 1 outstanding, members on 3 nodes", members), 3, spread{}.fanout(members)),
		cluster("cluster/3/remote", fmt.Sprintf("90 B to a group of %d, 1 outstanding, all on the 2 other of 3 nodes", members), 3, spread{remote: true}.fanout(members)),
		growth(members, 1, 50, 500, 5000),
	}
}

// connector makes a session of a server that runs.
type connector func(*lab, *server, *session) error

// spread says where members are: on all nodes, or only on those that nothing is sent from.
type spread struct{ remote bool }

// over returns the nodes of the members; none if there is only one.
func (p spread) over(s *server) []load.Target {
	nodes := s.targets("/fanout")
	switch {
	case len(nodes) == 1:
		return nil
	case p.remote:
		return nodes[1:]
	}
	return nodes
}

func (p spread) fanout(members int) connector {
	return func(l *lab, s *server, session *session) error {
		f, err := load.NewFanout(l.ctx, s.target("/fanout"), members, 0, p.over(s)...)
		if err != nil {
			return err
		}
		session.end = f.Close
		session.drive = func(lasts time.Duration) (*load.Result, error) { return f.Run(message, 1, lasts) }
		return nil
	}
}

func (p spread) users(count int) connector {
	return func(l *lab, s *server, session *session) error {
		g, err := load.NewUsers(l.ctx, s.target("/fanout"), count, p.over(s)...)
		if err != nil {
			return err
		}
		session.end = g.Close
		session.drive = func(lasts time.Duration) (*load.Result, error) { return g.Deliver(message, 16, lasts) }
		return nil
	}
}

// groups is at a fixed rate.
func (p spread) groups(count, each, clients int, rate float64) connector {
	return func(l *lab, s *server, session *session) error {
		g, err := load.NewGroups(l.ctx, s.target("/fanout"), clients, count, each, p.over(s)...)
		if err != nil {
			return err
		}
		session.end = g.Close
		session.drive = func(lasts time.Duration) (*load.Result, error) { return g.Paced(message, rate, lasts) }
		return nil
	}
}

// The two that can be joined.
var (
	product = &contender{name: "caddy-websocket", start: startProduct}
	byHand  = &contender{name: "gorilla and nats.go", start: peer("gorilla-nats")}
)

// nodes makes a contender of so many nodes around a NATS server.
func (c *contender) nodes(n int) *contender {
	name := fmt.Sprintf("%s, %d nodes", c.name, n)
	return &contender{name: name, start: func(l *lab, set setting) (*server, error) {
		broker, err := l.start(nil, l.binary("nats"))
		if err != nil {
			return nil, err
		}
		all := &server{broker: broker}
		addr, err := broker.firstLine()
		for range n {
			if err != nil {
				break
			}
			var node *server
			if node, err = c.start(l, setting{plain: set.plain, env: set.env, nats: "nats://" + addr}); err == nil {
				all.tls, all.parts = node.tls, append(all.parts, node.parts...)
				all.nodes, all.admin = append(all.nodes, node.addr), append(all.admin, node.admin...)
			}
		}
		if err != nil {
			all.stop()
			return nil, err
		}
		all.addr = all.nodes[0]
		return all, nil
	}}
}

func (c *contender) subject(name string, connect connector) subject {
	return subject{name, c.with(setting{}, connect)}
}

// alone compares a node that has a broker and nobody else on it with one that has none.
func alone(id, title string, connect connector) *workload {
	return &workload{
		id: id, title: title, op: "delivery", fanout: true, joined: true,
		target: "CPU at most 1.05 of that without",
		subjects: []subject{
			product.nodes(1).subject(product.name+", with a broker", connect),
			product.subject(product.name+", without", connect),
		},
	}
}

func cluster(id, title string, n int, connect connector) *workload {
	w := &workload{id: id, title: title, op: "delivery", fanout: true, joined: true}
	for _, c := range []*contender{product.nodes(n), product, byHand.nodes(n)} {
		name := c.name
		if c == product {
			name += ", one node"
		}
		w.subjects = append(w.subjects, c.subject(name, connect))
	}
	return w
}

// growth compares the largest number of groups with the others, at the same rate.
func growth(clients int, counts ...int) *workload {
	const each, rate = 10, 500
	w := &workload{
		id: "cluster/groups", op: "delivery", fanout: true, joined: true,
		title: fmt.Sprintf("90 B to one of so many groups of %d after the other, members on 2 nodes, %d messages a second", each, rate),
		note:  fmt.Sprintf("%d clients. Times count from when a message was due.", clients),
	}
	for _, c := range []*contender{product, byHand} {
		for _, count := range slices.Backward(counts) {
			name := fmt.Sprintf("%s, groups: %d", c.name, count)
			w.subjects = append(w.subjects, c.nodes(2).subject(name, spread{}.groups(count, each, clients, rate)))
		}
	}
	return w
}
