package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// nodeOf returns the node that a client id names, or "" if it cannot be one.
func nodeOf(id string) string {
	node, _, ok := strings.Cut(id, "-")
	if !ok || len(node) != nodeLength || strings.ContainsFunc(node, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < '0' || r > '9')
	}) {
		return ""
	}
	return node
}

// meets tells whether the target is not narrowed to other nodes.
func (t *Target) meets(node string) bool {
	return len(t.Nodes) == 0 || slices.Contains(t.Nodes, node)
}

// routes returns the subjects on which other nodes hear a command to the target. Each node
// that may have a recipient hears exactly one of them.
func (c *cluster) routes(to *Target) []string {
	if len(to.Nodes) > 0 {
		return c.toNodes(to.Nodes)
	}
	if to.All {
		return []string{subjectAll}
	}
	switch clients, users, groups := len(to.Clients), len(to.Users), len(to.Groups); {
	case clients == 0 && users == 1 && groups == 0:
		return []string{slotSubject(kindOfUsers, slotOf(to.Users[0]))}
	case clients == 0 && users == 0 && groups == 1:
		return []string{slotSubject(kindOfGroups, slotOf(to.Groups[0]))}
	case users+groups == 0:
		nodes := make([]string, 0, len(to.Clients))
		for _, id := range to.Clients {
			if node := nodeOf(id); node != "" {
				nodes = append(nodes, node)
			}
		}
		const few = 4 // as many messages are no more work than one that all hear
		if subjects := c.toNodes(nodes); len(subjects) <= few {
			return subjects
		}
	}
	return []string{subjectAll}
}

// toNodes returns the subjects of nodes, this one left out.
func (c *cluster) toNodes(nodes []string) []string {
	var subjects []string
	for _, node := range nodes {
		if node == c.s.node || len(node) != nodeLength {
			continue
		}
		if subject := subjectNode + node; !slices.Contains(subjects, subject) {
			subjects = append(subjects, subject)
		}
	}
	return subjects
}

// send tells other nodes to send a message.
func (c *cluster) send(to *Target, m Message) error {
	subjects := c.routes(to)
	if len(subjects) == 0 {
		return nil
	}
	return c.publish(kindCommand, appendSend(make([]byte, 0, len(m.Data)+128), 0, to, m), subjects...)
}

// command tells other nodes to do a command.
func (c *cluster) command(command *Command, to *Target) error {
	if c.alone() {
		return nil
	}
	subjects := c.routes(to)
	if len(subjects) == 0 {
		return nil
	}
	body, err := encode(0, command)
	if err != nil {
		return err
	}
	return c.publish(kindCommand, body, subjects...)
}

// encode writes a command with its message beside it.
func encode(ask uint64, c *Command) ([]byte, error) {
	m, err := c.message()
	if err != nil {
		return nil, err
	}
	return appendCommand(nil, ask, c, m)
}

// commandWait tells other nodes to do a command, and to answer. All are asked that the
// target does not leave out, since who has recipients is not known.
func (c *cluster) commandWait(ctx context.Context, command *Command, to *Target) (Reach, error) {
	if c.current.Load() == nil {
		return Reach{}, nil
	}
	of := c.whom(c.concerned(to))
	answers, missing, err := c.ask(ctx, of, kindCommand, func(id uint64) ([]byte, error) { return encode(id, command) })
	if err == nil && !c.up() && len(c.routes(to)) > 0 {
		err = ErrLocalOnly
	}
	reach, theirs := sum(answers)
	reach.Missing, reach.LocalOnly = missing, errors.Is(err, ErrLocalOnly)
	return reach, errors.Join(theirs, err) // in this order: see Failure
}

// up tells whether the broker can be reached.
func (c *cluster) up() bool {
	a := c.current.Load()
	return a != nil && a.up()
}

// cutOff tells whether these nodes, or all if none is named, are others than this one, and
// cannot be reached.
func (c *cluster) cutOff(nodes []string) bool {
	isOther := func(node string) bool { return node != c.s.node }
	return !c.up() && (len(nodes) == 0 || slices.ContainsFunc(nodes, isOther))
}

// concerned returns the nodes that the target can have clients on, or none if that can
// be any.
func (c *cluster) concerned(to *Target) []string {
	if len(to.Nodes) > 0 {
		return to.Nodes
	}
	if to.All || len(to.Users)+len(to.Groups) > 0 {
		return nil
	}
	nodes, known := []string{c.s.node}, c.known() // not empty, that would be all
	for _, id := range to.Clients {
		if node := nodeOf(id); slices.Contains(known, node) { // of others there is nobody
			nodes = append(nodes, node)
		}
	}
	return nodes
}

// sum adds up what nodes have reached or found.
func sum(answers map[string]response) (Reach, error) {
	var total Reach
	errs := make([]error, 0, len(answers))
	for _, node := range slices.Sorted(maps.Keys(answers)) {
		a := answers[node]
		errs = append(errs, a.failure(node))
		var r Reach
		if err := json.Unmarshal(a.Result, &r); err == nil { // it has none if all went wrong
			total.Clients += r.Clients
		}
	}
	return total, errors.Join(errs...)
}

// settle is Gateway.Settle.
func (c *cluster) settle(ctx context.Context) error {
	a := c.current.Load()
	if a == nil {
		return nil
	}
	ctx, cancel := within(ctx, AnswerTimeout)
	defer cancel()
	flushed := make(chan error, 1)
	a.link.Flush(func(err error) { flushed <- err })
	select {
	case err := <-flushed:
		if err != nil {
			return fmt.Errorf("%w: %w", ErrLocalOnly, err)
		}
	case <-ctx.Done():
		return fmt.Errorf("waiting for the broker: %w", ctx.Err())
	}
	// What is heard after a subscription has been in force for what a node has sent before.
	_, missing, err := inquire[struct{}](ctx, c, c.whom(nil), question{Ping: true})
	if err == nil && len(missing) > 0 {
		err = fmt.Errorf("%w: %s", ErrNoAnswer, strings.Join(missing, ", "))
	}
	return err
}
