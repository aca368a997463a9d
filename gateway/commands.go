package gateway

import "errors"

// The commands. Each addresses a Target and returns how many clients it reached:
// for Send those whose queue took the message, for the others those that were
// there. Names that nobody has reach nobody and are no error; the error is about
// the command itself, and then nobody was reached unless a method says so.

// Send queues a message for every client of the target and returns how many
// queues took it. The message is copied, framed once for all, and nobody's
// socket is waited for. Messages from one goroutine arrive at one client in the
// order sent, however it was addressed.
func (g *Gateway) Send(to Target, m Message) (int, error) {
	if err := m.check(); err != nil {
		return 0, err
	}
	clients, err := g.registry.resolve(&to)
	if err != nil {
		return 0, err
	}
	out := &outgoing{message: m}
	return countOf(clients, func(c *Client) bool { return c.push(out) == nil }), nil
}

// Close closes every client of the target, as Client.Close does, and returns how
// many were not closing yet.
func (g *Gateway) Close(to Target, code int, reason string) (int, error) {
	if err := checkClose(code, reason); err != nil {
		return 0, err
	}
	clients, err := g.registry.resolve(&to)
	if err != nil {
		return 0, err
	}
	why := CloseReason{Code: code, Reason: reason}
	return countOf(clients, func(c *Client) bool { return c.close(why, false) }), nil
}

// Join puts every client of the target into groups. A client that would be in
// more than MaxGroupsPerClient stays as it was; the error then names the first.
func (g *Gateway) Join(to Target, groups ...string) (int, error) {
	if err := checkNames("group", groups); err != nil {
		return 0, err
	}
	return g.change(to, func(c *Client) error { return c.Join(groups...) })
}

// Leave takes every client of the target out of groups.
func (g *Gateway) Leave(to Target, groups ...string) (int, error) {
	return g.change(to, func(c *Client) error { return c.Leave(groups...) })
}

// Bind makes user the user of every client of the target.
func (g *Gateway) Bind(to Target, user string) (int, error) {
	if err := checkName("user", user); err != nil {
		return 0, err
	}
	return g.change(to, func(c *Client) error { return c.bind(user) })
}

// Unbind leaves every client of the target without a user.
func (g *Gateway) Unbind(to Target) (int, error) {
	return g.change(to, func(c *Client) error { return c.bind("") })
}

// SetSession makes values the whole session of every client of the target.
func (g *Gateway) SetSession(to Target, values map[string]any) (int, error) {
	return g.change(to, func(c *Client) error { return c.session.Replace(values) })
}

// UpdateSession merges patch into the session of every client of the target as
// RFC 7396 says. A client whose session would become larger than MaxSessionSize
// keeps it as it was; the error then names the first.
func (g *Gateway) UpdateSession(to Target, patch map[string]any) (int, error) {
	return g.change(to, func(c *Client) error { return c.session.Update(patch) })
}

// Client returns the live client with this id, or nil.
func (g *Gateway) Client(id string) *Client {
	if c := g.registry.lookup(id); c != nil && !c.isClosing() {
		return c
	}
	return nil
}

// change does f to every client of the target. Clients that close meanwhile are
// not counted; of other errors the first is returned, and the rest of the
// clients are done all the same.
func (g *Gateway) change(to Target, f func(*Client) error) (int, error) {
	clients, err := g.registry.resolve(&to)
	if err != nil {
		return 0, err
	}
	n := countOf(clients, func(c *Client) bool {
		clientErr := f(c)
		if err == nil && !errors.Is(clientErr, ErrClosed) {
			err = clientErr
		}
		return clientErr == nil
	})
	return n, err
}

// countOf returns for how many clients f is true.
func countOf(clients []*Client, f func(*Client) bool) (n int) {
	for _, c := range clients {
		if f(c) {
			n++
		}
	}
	return n
}
