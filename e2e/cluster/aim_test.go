package cluster

import (
	"fmt"
	"math/rand/v2"

	"github.com/caddy-websocket/caddy-websocket/gateway"
)

const (
	// nodes is how many there are. The ith client is at node i modulo nodes.
	nodes = 3

	// halls is how many large groups there are beside the small ones. It has no factor in
	// common with nodes, so that each has members at every node.
	halls = 7
)

// crowd is how many clients there are. Two that follow each other are one user, at two
// nodes; each is in a group of about twenty and in a hall.
type crowd int

func (c crowd) groups() int {
	n := max(int(c)/20, 2)
	if n%nodes == 0 {
		n++ // or a group would be at one node
	}
	return n
}

func user(i int) int { return i / 2 }

func (c crowd) group(i int) int { return i % c.groups() }

func hall(i int) int { return i % halls }

func userName(n int) string  { return fmt.Sprintf("user-%d", n) }
func groupName(n int) string { return fmt.Sprintf("group-%d", n) }
func hallName(n int) string  { return fmt.Sprintf("hall-%d", n) }

// kind is how a message is addressed.
type kind string

const (
	toClient     kind = "client"
	toUser       kind = "user"
	toGroup      kind = "group"
	toBoth       kind = "group-and-hall" // of which some are in both
	toAllButOne  kind = "all-but-client"
	toAllButUser kind = "all-but-user"
	toAll        kind = "all"
)

var kinds = []kind{toClient, toUser, toGroup, toBoth, toAllButOne, toAllButUser, toAll}

// aim is whom a message is for, as it is written in it.
type aim struct {
	kind kind
	n, m int
}

func (a aim) String() string { return fmt.Sprintf("%s %d %d", a.kind, a.n, a.m) }

// pick makes an aim of a kind.
func (c crowd) pick(k kind) aim {
	a := aim{kind: k}
	switch k {
	case toClient, toAllButOne:
		a.n = rand.IntN(int(c))
	case toUser, toAllButUser:
		a.n = rand.IntN(int(c) / 2)
	case toGroup:
		a.n = rand.IntN(c.groups())
	case toBoth:
		a.n, a.m = rand.IntN(c.groups()), rand.IntN(halls)
	default:
	}
	return a
}

// random makes any aim; what is for all is rare, as it is a message for each of them.
func (c crowd) random() aim {
	few := kinds[:3]
	if rand.IntN(15) == 0 {
		few = kinds[3:]
	}
	return c.pick(few[rand.IntN(len(few))])
}

// meets tells whether the ith client is meant.
func (c crowd) meets(a aim, i int) bool {
	switch a.kind {
	case toClient:
		return i == a.n
	case toUser:
		return user(i) == a.n
	case toGroup:
		return c.group(i) == a.n
	case toBoth:
		return c.group(i) == a.n || hall(i) == a.m
	case toAllButOne:
		return i != a.n
	case toAllButUser:
		return user(i) != a.n
	case toAll:
		return true
	default:
		return false
	}
}

// target is the aim as the push API takes it. id is the id of the client that it names.
func (a aim) target(id func(i int) string) gateway.Target {
	switch a.kind {
	case toClient:
		return gateway.Clients(id(a.n))
	case toUser:
		return gateway.Users(userName(a.n))
	case toGroup:
		return gateway.Groups(groupName(a.n))
	case toBoth:
		return gateway.Groups(groupName(a.n), hallName(a.m))
	case toAllButOne:
		return gateway.All().ExceptClients(id(a.n))
	case toAllButUser:
		return gateway.All().ExceptUsers(userName(a.n))
	default:
		return gateway.All()
	}
}
