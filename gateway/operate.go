package gateway

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"
)

// AllStats returns Stats of all nodes, or of those that are named, in the order of their
// ids, and which did not answer before ctx is done, or in AnswerTimeout if it has no
// deadline.
func (g *Gateway) AllStats(ctx context.Context, nodes []string, endpoints ...string) (all []Stats, missing []string, err error) {
	if len(nodes) == 0 || slices.Contains(nodes, g.node) {
		all = append(all, g.Stats(endpoints...))
	}
	if g.cluster.current.Load() == nil {
		missing = slices.DeleteFunc(slices.Clone(nodes), func(node string) bool { return node == g.node })
		return all, missing, nil
	}
	results, missing, err := inquire[Stats](ctx, g.cluster, g.cluster.whom(nodes), question{Stats: &statsQuery{Endpoints: endpoints}})
	for _, theirs := range results {
		all = append(all, theirs)
	}
	slices.SortFunc(all, func(a, b Stats) int { return cmp.Compare(a.Node, b.Node) })
	return all, missing, err
}

// DrainNode is Drain of a node, for a minute if ctx has no deadline. The error is that of
// Drain, ErrUnknownNode or ErrNoAnswer; of another node it does not wrap what it wraps
// there.
func (g *Gateway) DrainNode(ctx context.Context, node string, restart bool) error {
	if node == g.node {
		return g.Drain(ctx, restart)
	}
	ctx, cancel := within(ctx, time.Minute)
	defer cancel()
	by, _ := ctx.Deadline()
	const onTheWay = 100 * time.Millisecond // so that its answer still counts
	return g.operate(ctx, node, question{Drain: &drainQuery{Restart: restart, Timeout: max(time.Until(by)-onTheWay, 0)}})
}

// ResumeNode is Resume of a node. The error is ErrUnknownNode or ErrNoAnswer.
func (g *Gateway) ResumeNode(ctx context.Context, node string) error {
	if node == g.node {
		g.Resume()
		return nil
	}
	return g.operate(ctx, node, question{Resume: true})
}

// operate asks another node to do something.
func (g *Gateway) operate(ctx context.Context, node string, q question) error {
	of := g.cluster.whom([]string{node})
	if len(of.nodes) == 0 {
		return fmt.Errorf("%w: %s", ErrUnknownNode, node)
	}
	answers, missing, err := g.cluster.put(ctx, of, q)
	switch {
	case err != nil:
		return err
	case len(missing) > 0:
		return g.cluster.noAnswer(node)
	}
	return answers[node].failure(node)
}
