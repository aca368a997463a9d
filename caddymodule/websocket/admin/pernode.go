package admin

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

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
	var all []string
	for _, gatewayName := range slices.Sorted(maps.Keys(gateways)) {
		g := gateways[gatewayName]
		for _, n := range g.Nodes() {
			all = append(all, n.ID)
			for _, name := range names {
				if name != n.ID && (name != httpapi.NodeSelf || !n.Self) && name != httpapi.NodeAll {
					continue
				}
				known[name] = true
				if !slices.Contains(ids[gatewayName], n.ID) {
					ids[gatewayName] = append(ids[gatewayName], n.ID)
				}
			}
		}
	}
	for _, name := range names {
		if !known[name] {
			return nil, unknownNodeError(fmt.Sprintf("no node %.100q is known: there are %s", name, strings.Join(all, ", ")))
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
