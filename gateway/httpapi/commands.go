package httpapi

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"time"

	"github.com/caddy-websocket/caddy-websocket/gateway"
)

func (h *Handler) commandCalls() []call {
	wait := []param{{name: "wait"}}
	post := func(path string, command func(do, []byte) (any, error)) call {
		return call{method: http.MethodPost, path: path, query: wait, command: command}
	}
	return []call{
		post("/send", one(h, func(c *gateway.Command, body *gateway.SendCommand) { c.Send = body })),
		post("/close", one(h, func(c *gateway.Command, body *gateway.CloseCommand) { c.Close = body })),
		post("/join", one(h, func(c *gateway.Command, body *gateway.GroupsCommand) { c.Join = body })),
		post("/leave", one(h, func(c *gateway.Command, body *gateway.GroupsCommand) { c.Leave = body })),
		post("/bind", one(h, func(c *gateway.Command, body *gateway.BindCommand) { c.Bind = body })),
		post("/unbind", one(h, func(c *gateway.Command, body *gateway.UnbindCommand) { c.Unbind = body })),
		{method: http.MethodPut, path: "/session", query: wait, command: one(h, func(c *gateway.Command, body *gateway.SessionCommand) { c.SetSession = body })},
		{method: http.MethodPatch, path: "/session", query: wait, command: one(h, func(c *gateway.Command, body *gateway.SessionCommand) { c.UpdateSession = body })},
		post("/batch", h.batch),
	}
}

// maxWait is how long a command may wait for other nodes.
const maxWait = 30 * time.Second

// do does a command in the way that the query asks for.
type do func(*gateway.Command) (gateway.Reach, error)

// way returns how the commands of a request are done: with wait, other nodes are
// waited for, until one deadline for all. The caller ends it.
func (h *Handler) way(r *http.Request, q query) (do do, end func(), err error) {
	wait, err := q.duration("wait", maxWait)
	if err != nil {
		return nil, nil, err
	}
	if wait == 0 {
		return func(c *gateway.Command) (gateway.Reach, error) {
			n, err := h.g.Do(c)
			return gateway.Reach{Clients: n}, err
		}, func() {}, nil
	}
	// A caller who hangs up may ask again under the same key, and wants the whole answer.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), wait)
	return func(c *gateway.Command) (gateway.Reach, error) { return h.g.DoWait(ctx, c) }, cancel, nil
}

// one returns what does a single command, whose body is a T.
func one[T any](h *Handler, set func(*gateway.Command, *T)) func(do, []byte) (any, error) {
	return func(do do, body []byte) (any, error) {
		var of T
		if err := decode(body, &of); err != nil {
			return nil, err
		}
		var c gateway.Command
		set(&c, &of)
		return h.run(&c, do)
	}
}

// batch does many commands in their order.
func (h *Handler) batch(do do, body []byte) (any, error) {
	var in struct {
		Commands []gateway.Command `json:"commands"`
	}
	if err := decode(body, &in); err != nil {
		return nil, err
	}
	switch n := len(in.Commands); {
	case n == 0:
		return nil, invalid(CodeInvalidCommand, "commands: a list of at least one command belongs there")
	case n > h.o.MaxCommands:
		return nil, invalid(CodeTooMany, "commands: found %d, allowed are %d", n, h.o.MaxCommands)
	}
	answer := Results{Results: make([]Result, len(in.Commands))}
	for i := range in.Commands {
		done, err := h.run(&in.Commands[i], do)
		if err != nil {
			_, done = result(err)
		}
		answer.Results[i] = done
	}
	return answer, nil
}

// run does a command, for clients of allowed endpoints.
func (h *Handler) run(c *gateway.Command, do do) (Result, error) {
	to := c.Target()
	if to == nil {
		_, err := h.g.Do(c)
		return Result{}, invalid(CodeInvalidCommand, "%v", err)
	}
	if err := h.checkTarget(to); err != nil {
		return Result{}, err
	}
	if err := h.check(c, to); err != nil {
		return Result{}, err
	}
	*to = h.within(*to)
	reach, err := do(c)
	done := Result{Clients: &reach.Clients, Missing: reach.Missing, LocalOnly: errors.Is(err, gateway.ErrLocalOnly)}
	if err := gateway.Failure(err); err != nil { // the command is right, but not for every client
		return Result{}, &partial{failed(http.StatusConflict, CodeLimitExceeded, "%v", err), done}
	}
	return done, nil
}

// within narrows a target to what is allowed.
func (h *Handler) within(to gateway.Target) gateway.Target {
	if len(h.o.Endpoints) == 0 {
		return to
	}
	return to.Within(h.o.Endpoints...)
}

// checkTarget also replaces the names of nodes by their ids.
func (h *Handler) checkTarget(to *gateway.Target) error {
	total := 0
	for _, list := range []struct {
		name  string
		names []string
	}{
		{"clients", to.Clients},
		{"users", to.Users},
		{"groups", to.Groups},
		{"endpoints", to.Endpoints},
		{"nodes", to.Nodes},
		{"except.clients", to.Except.Clients},
		{"except.users", to.Except.Users},
	} {
		total += len(list.names)
		if i := slices.Index(list.names, ""); i >= 0 {
			return invalid(CodeInvalidTarget, "to.%s[%d]: the name is empty", list.name, i)
		}
	}
	switch {
	case total > h.o.MaxNames:
		return invalid(CodeTooMany, "to: found %d names, allowed are %d", total, h.o.MaxNames)
	case to.Endpoints != nil && len(to.Endpoints) == 0: // computed, and nothing was found
		return invalid(CodeInvalidTarget, "to.endpoints: the list is empty: leave it out to mean all")
	case to.Nodes != nil && len(to.Nodes) == 0:
		return invalid(CodeInvalidTarget, "to.nodes: the list is empty: leave it out to mean all")
	}
	if len(to.Nodes) > 1 && slices.Contains(to.Nodes, NodeAll) {
		return invalid(CodeInvalidTarget, "to.nodes: %s stands alone", NodeAll)
	}
	if err := to.Validate(); err != nil {
		return invalid(CodeInvalidTarget, "to: %v", err)
	}
	var err error
	to.Nodes, err = h.known(to.Nodes)
	return err
}

// check tells whether the command is right, whoever is connected: the gateway, too,
// checks it before it looks for anybody, and is asked about nobody. Sessions it
// checks client by client.
func (h *Handler) check(c *gateway.Command, to *gateway.Target) error {
	for _, list := range []*gateway.GroupsCommand{c.Join, c.Leave} {
		if list != nil && len(list.Groups) > h.o.MaxNames {
			return invalid(CodeTooMany, "groups: found %d, allowed are %d", len(list.Groups), h.o.MaxNames)
		}
	}
	addressed := *to
	*to = gateway.Clients("") // nobody's id
	_, err := h.g.Do(c)
	*to = addressed
	var scratch gateway.Session
	if c.SetSession != nil && err == nil {
		err = scratch.Replace(c.SetSession.Session)
	}
	if c.UpdateSession != nil && err == nil {
		err = scratch.Update(c.UpdateSession.Session)
	}
	switch {
	case c.Send != nil && err != nil: // there is but the message that can be wrong
		return invalid(CodeInvalidMessage, "%v", err)
	case err != nil:
		return invalid(CodeInvalidCommand, "%v", err)
	}
	return nil
}
