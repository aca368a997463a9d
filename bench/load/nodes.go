package load

import (
	"context"
	"errors"
	"fmt"
)

// nodesOf returns where members are connected: to the nodes that were named, or to t.
func nodesOf(t Target, over []Target) []Target {
	if len(over) == 0 {
		return []Target{t}
	}
	return over
}

// with returns t with a query.
func (t Target) with(query string) Target {
	t.Path += query
	return t
}

// settle waits until nothing that is sent to a group can be missed by a member on any node.
func settle(ctx context.Context, t Target, over []Target) error {
	if len(over) == 0 {
		return nil // there is one, which has answered
	}
	if t.dialect().settle == nil {
		return errors.New("servers of this kind cannot be joined")
	}
	nodes := map[string]Target{t.Addr: t}
	for _, node := range over {
		nodes[node.Addr] = node
	}
	wait := t.dialect().settle(len(nodes) - 1)
	for _, node := range nodes {
		c, err := node.Dial(ctx, 4<<10)
		if err != nil {
			return err
		}
		err = c.ask(wait, 1)
		c.Close()
		if err != nil {
			return fmt.Errorf("waiting for the nodes to know each other: %w", err)
		}
	}
	return nil
}
