package gateway

import (
	"errors"
	"slices"
)

// Target says whom a command addresses: all clients of the gateway, or the union
// of clients, users and groups; narrowed by endpoints and nodes; minus what is excepted.
// Nobody is addressed twice, however many of the names he answers to.
//
// A Target that names nobody is an error (ErrEmptyTarget), never everybody.
// Names that do not exist are not: they reach nobody.
type Target struct {
	// All addresses every client. It stands alone: with Clients, Users or Groups
	// it is an error.
	All bool `json:"all,omitempty"`

	// Clients are client ids.
	Clients []string `json:"clients,omitempty"`

	// Users are the application's user ids; each reaches all clients of that user.
	Users []string `json:"users,omitempty"`

	// Groups reach all their members.
	Groups []string `json:"groups,omitempty"`

	// Endpoints narrows the target to clients of these endpoints. Empty means
	// all endpoints.
	Endpoints []string `json:"endpoints,omitempty"`

	// Nodes narrows the target to clients of these nodes, see Gateway.Nodes. Empty means
	// all nodes.
	Nodes []string `json:"nodes,omitempty"`

	// Except takes clients out again.
	Except Except `json:"except,omitzero"`
}

// Except names whom a Target leaves out.
type Except struct {
	Clients []string `json:"clients,omitempty"`
	Users   []string `json:"users,omitempty"`
}

// All addresses every client of the gateway.
func All() Target { return Target{All: true} }

// Clients addresses clients by their ids.
func Clients(ids ...string) Target { return Target{Clients: ids} }

// Users addresses all clients of each user.
func Users(users ...string) Target { return Target{Users: users} }

// Groups addresses all members of each group.
func Groups(groups ...string) Target { return Target{Groups: groups} }

// In returns t narrowed to clients of these endpoints.
func (t Target) In(endpoints ...string) Target {
	t.Endpoints = slices.Concat(t.Endpoints, endpoints)
	return t
}

// Within returns t narrowed to clients of the allowed endpoints, whatever it
// names itself: what somebody may do who is allowed these only. Unlike In, which
// widens a list, it never adds an endpoint. None allowed means that nobody is
// reached.
func (t Target) Within(allowed ...string) Target {
	if len(t.Endpoints) == 0 {
		t.Endpoints = allowed
	} else {
		t.Endpoints = intersection(t.Endpoints, allowed)
	}
	if len(t.Endpoints) == 0 {
		t.Endpoints = []string{""} // the name of no endpoint
	}
	return t
}

func intersection(a, b []string) []string {
	var both []string
	for _, s := range a {
		if slices.Contains(b, s) {
			both = append(both, s)
		}
	}
	return both
}

// ExceptClients returns t without these clients.
func (t Target) ExceptClients(ids ...string) Target {
	t.Except.Clients = slices.Concat(t.Except.Clients, ids)
	return t
}

// ExceptUsers returns t without the clients of these users.
func (t Target) ExceptUsers(users ...string) Target {
	t.Except.Users = slices.Concat(t.Except.Users, users)
	return t
}

// OnNodes returns t narrowed to clients of these nodes.
func (t Target) OnNodes(nodes ...string) Target {
	t.Nodes = slices.Concat(t.Nodes, nodes)
	return t
}

// Validate tells whether the target names somebody, unambiguously.
func (t Target) Validate() error {
	named := len(t.Clients) + len(t.Users) + len(t.Groups)
	switch {
	case t.All && named > 0:
		return errors.New("target names all and also clients, users or groups: name one or the other")
	case !t.All && named == 0:
		return ErrEmptyTarget
	}
	return nil
}

// narrowing is what a target asks about each client that it has found.
type narrowing struct{ endpoints, exceptClients, exceptUsers nameSet }

func (t *Target) narrowing() narrowing {
	return narrowing{newNameSet(t.Endpoints), newNameSet(t.Except.Clients), newNameSet(t.Except.Users)}
}

// admits tells whether the narrowing lets c through.
func (n *narrowing) admits(c *Client) bool {
	switch {
	case len(n.endpoints.list) > 0 && !n.endpoints.has(c.slot.name):
		return false
	case n.exceptClients.has(c.id):
		return false
	}
	return len(n.exceptUsers.list) == 0 || !n.exceptUsers.has(c.User())
}

// nameSet is a list that is asked often: long ones are made a map of.
type nameSet struct {
	list []string
	set  map[string]struct{}
}

func newNameSet(list []string) nameSet {
	const short = 8
	s := nameSet{list: list}
	if len(list) > short {
		s.set = make(map[string]struct{}, len(list))
		for _, name := range list {
			s.set[name] = struct{}{}
		}
	}
	return s
}

func (s *nameSet) has(name string) bool {
	if s.set == nil {
		return slices.Contains(s.list, name)
	}
	_, in := s.set[name]
	return in
}
