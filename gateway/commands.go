package gateway

import "context"

// The commands. Each addresses a Target and returns how many clients of this node it
// reached: for Send those whose queue took the message, for the others those that were
// there. With a broker other nodes do it for theirs; DoWait tells how many those
// were. Names that nobody has reach nobody and are no error; the error is about the
// command itself, and then nobody was reached unless a method says so. ErrLocalOnly
// is the exception: the clients of this node were reached.

// Send queues a message for every client of the target and returns how many
// queues took it. The message is copied, framed once for all, and nobody's
// socket is waited for. Messages from one goroutine arrive at one client in the
// order sent, however it was addressed and on whatever node it is.
func (g *Gateway) Send(to Target, m Message) (int, error) {
	n, err := here{g.shared}.send(&to, m)
	if err == nil && !g.cluster.alone() {
		err = g.cluster.send(&to, m)
	}
	return n, err
}

// Close closes every client of the target, as Client.Close does, and returns how
// many were not closing yet.
func (g *Gateway) Close(to Target, code int, reason string) (int, error) {
	if err := checkClose(code, reason); err != nil { // here 0 is no default
		return 0, err
	}
	return g.do(&Command{Close: &CloseCommand{To: to, Code: code, Reason: reason}})
}

// Join puts every client of the target into groups. A client that would be in
// more than MaxGroupsPerClient stays as it was; the error then names the first.
func (g *Gateway) Join(to Target, groups ...string) (int, error) {
	return g.do(&Command{Join: &GroupsCommand{To: to, Groups: groups}})
}

// Leave takes every client of the target out of groups.
func (g *Gateway) Leave(to Target, groups ...string) (int, error) {
	return g.do(&Command{Leave: &GroupsCommand{To: to, Groups: groups}})
}

// Bind makes user the user of every client of the target.
func (g *Gateway) Bind(to Target, user string) (int, error) {
	return g.do(&Command{Bind: &BindCommand{To: to, User: user}})
}

// Unbind leaves every client of the target without a user.
func (g *Gateway) Unbind(to Target) (int, error) {
	return g.do(&Command{Unbind: &UnbindCommand{To: to}})
}

// SetSession makes values the whole session of every client of the target.
func (g *Gateway) SetSession(to Target, values map[string]any) (int, error) {
	return g.do(&Command{SetSession: &SessionCommand{To: to, Session: values}})
}

// UpdateSession merges patch into the session of every client of the target as
// RFC 7396 says. A client whose session would become larger than MaxSessionSize
// keeps it as it was; the error then names the first.
func (g *Gateway) UpdateSession(to Target, patch map[string]any) (int, error) {
	return g.do(&Command{UpdateSession: &SessionCommand{To: to, Session: patch}})
}

// Client returns the live client of this node with this id, or nil. ClientInfo knows
// those of other nodes, too.
func (g *Gateway) Client(id string) *Client {
	if c := g.registry.lookup(id); c != nil && !c.isClosing() {
		return c
	}
	return nil
}

// Settle waits until all nodes that are known send here what is for the groups and users
// that clients of this node have by now. Until then, for the milliseconds in which the
// first member of a group becomes known elsewhere, a message of another node's to it can
// pass by; that is the only gap. The error is that of ctx, or wraps ErrLocalOnly, or
// names the nodes that did not answer.
func (g *Gateway) Settle(ctx context.Context) error { return g.cluster.settle(ctx) }

// JoinWait is Join, and returns when no message to the groups can be missed any more, see
// Gateway.Settle. The client has joined in any case unless the error is that of Join.
func (c *Client) JoinWait(ctx context.Context, groups ...string) error {
	if err := c.Join(groups...); err != nil {
		return err
	}
	return c.cluster.settle(ctx)
}
