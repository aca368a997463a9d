package admin

import (
	"context"
	"errors"
	"maps"
	"slices"

	"github.com/caddy-websocket/caddy-websocket/gateway"
	"github.com/caddy-websocket/caddy-websocket/gateway/httpapi"
)

// perGateway tells which of the nodes that are named belong to which gateway: a process has a
// node of each of its own. The error names the nodes that there are.
func perGateway(names []string, gateways map[string]*gateway.Gateway) (map[string][]string, error) {
	if len(names) > 1 && slices.Contains(names, httpapi.NodeAll) {
		return nil, errors.New("node: all stands alone")
	}
	ids := make(map[string][]string)
	known := make(map[string]bool)
	var all []*gateway.Gateway
	for _, gatewayName := range slices.Sorted(maps.Keys(gateways)) {
		g := gateways[gatewayName]
		all = append(all, g)
		for _, name := range names {
			for _, id := range httpapi.NodesNamed(g.Nodes(), name) {
				known[name] = true
				if !slices.Contains(ids[gatewayName], id) {
					ids[gatewayName] = append(ids[gatewayName], id)
				}
			}
		}
	}
	for _, name := range names {
		if !known[name] {
			return nil, unknownNodeError(httpapi.UnknownNode(name, all...))
		}
	}
	return ids, nil
}

// unknownNodeError is an error of perGateway.
type unknownNodeError string

func (u unknownNodeError) Error() string { return string(u) }

// statsOf returns the figures of nodes, and which of them gave none.
func statsOf(ctx context.Context, g *gateway.Gateway, nodes []string) (all []gateway.Stats, missing []string) {
	all, _, _ = g.AllStats(ctx, nodes)
	for _, node := range nodes {
		if !slices.ContainsFunc(all, func(s gateway.Stats) bool { return s.Node == node }) {
			missing = append(missing, node)
		}
	}
	return all, missing
}
