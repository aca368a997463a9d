package gateway

import "errors"

// here does commands for clients of this node.
type here struct{ *shared }

// partial is an error about some client. The command is right, and was done for others.
type partial struct{ error }

func (p partial) Unwrap() error { return p.error }

func isPartial(err error) bool {
	_, ok := errors.AsType[partial](err)
	return ok
}

// obey does what another node has sent. m is what it sends, if it does.
func (h here) obey(c *Command, m Message) (int, error) {
	if m.Type != 0 { // as most do: parseCommand has set nothing but Send
		return h.send(&c.Send.To, m)
	}
	s, err := c.step(func() (Message, error) { return m, nil })
	if err != nil {
		return 0, err
	}
	return s.do(h)
}

// resolve returns the clients of this node that the target addresses.
func (h here) resolve(to *Target) ([]*Client, error) {
	if !to.meets(h.node) {
		return nil, to.Validate()
	}
	return h.registry.resolve(to)
}

func (h here) send(to *Target, m Message) (int, error) {
	if err := m.check(); err != nil {
		return 0, err
	}
	clients, err := h.resolve(to)
	if err != nil {
		return 0, err
	}
	out := &outgoing{message: m}
	return countOf(clients, func(c *Client) bool { return c.push(out) == nil }), nil
}

func (h here) close(to *Target, code int, reason string) (int, error) {
	if err := checkClose(code, reason); err != nil {
		return 0, err
	}
	clients, err := h.resolve(to)
	if err != nil {
		return 0, err
	}
	why := CloseReason{Code: code, Reason: reason}
	return countOf(clients, func(c *Client) bool { return c.close(why, false) }), nil
}

func (h here) join(to *Target, groups []string) (int, error) {
	if err := checkNames("group", groups); err != nil {
		return 0, err
	}
	return h.change(to, func(c *Client) error { return c.Join(groups...) })
}

func (h here) leave(to *Target, groups []string) (int, error) {
	return h.change(to, func(c *Client) error { return c.Leave(groups...) })
}

func (h here) bind(to *Target, user string) (int, error) {
	if err := checkName("user", user); err != nil {
		return 0, err
	}
	return h.change(to, func(c *Client) error { return c.bind(user) })
}

func (h here) unbind(to *Target) (int, error) {
	return h.change(to, func(c *Client) error { return c.bind("") })
}

func (h here) setSession(to *Target, values map[string]any) (int, error) {
	return h.change(to, func(c *Client) error { return c.session.Replace(values) })
}

func (h here) updateSession(to *Target, patch map[string]any) (int, error) {
	return h.change(to, func(c *Client) error { return c.session.Update(patch) })
}

// change does f to every client of the target. Clients that close meanwhile are
// not counted; of other errors the first is returned, as partial, and the rest of the
// clients are done all the same.
func (h here) change(to *Target, f func(*Client) error) (int, error) {
	clients, err := h.resolve(to)
	if err != nil {
		return 0, err
	}
	n := countOf(clients, func(c *Client) bool {
		clientErr := f(c)
		if err == nil && clientErr != nil && !errors.Is(clientErr, ErrClosed) {
			err = partial{clientErr}
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
