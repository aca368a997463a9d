package httpapi

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"net/netip"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/caddy-websocket/caddy-websocket/gateway"
)

const clientPath = "/clients/{id}"

func (h *Handler) listCalls() []call {
	get := func(path string, read func(*http.Request, query) (any, error), params ...param) call {
		return call{method: http.MethodGet, path: path, query: params, read: read}
	}
	endpoint, node := param{name: "endpoint", many: true}, param{name: "node", many: true}
	limit, cursor := param{name: "limit"}, param{name: "cursor", empty: true}
	prefix := param{name: "prefix", empty: true}
	return []call{
		get("/clients", h.clients, endpoint, param{name: "user"}, param{name: "group"}, param{name: "ip"}, param{name: "fields"}, node, limit, cursor),
		get(clientPath, h.client),
		get("/groups", h.names(h.g.Groups), prefix, endpoint, node, limit, cursor),
		get("/users", h.names(h.g.Users), prefix, endpoint, node, limit, cursor),
		get("/count", h.count, endpoint, param{name: "client", many: true}, param{name: "user", many: true}, param{name: "group", many: true},
			param{name: "except_client", many: true}, param{name: "except_user", many: true}, node),
		get("/stats", h.stats, endpoint, param{name: "node"}),
		get("/nodes", h.nodes),
		{method: http.MethodGet, path: "/openapi.yaml", serve: serveOpenAPI},
	}
}

// endpoints returns those that the query names and the options allow; none means
// all.
func (h *Handler) endpoints(q query) []string {
	return h.within(gateway.All().In(q["endpoint"]...)).Endpoints
}

func (h *Handler) page(q query) (gateway.Page, error) {
	limit, err := q.number("limit")
	if err == nil && (limit > gateway.MaxPageSize || limit == 0 && q.one("limit") != "") {
		err = invalid(CodeInvalidQuery, "limit: %d, allowed are 1 to %d", limit, gateway.MaxPageSize)
	}
	return gateway.Page{Limit: limit, Cursor: q.one("cursor")}, err
}

// clientID is what the ids of clients are like, of which cursors are made. One that is not
// sorts behind or before them all, and would make an empty page that looks like the last.
var clientID = regexp.MustCompile(`^[a-z0-9]{8}-[a-z2-7]{26}$`)

func (h *Handler) clients(r *http.Request, q query) (any, error) {
	page, err := h.page(q)
	if err != nil {
		return nil, err
	}
	if page.Cursor != "" && !clientID.MatchString(page.Cursor) {
		return nil, invalid(CodeInvalidQuery, "cursor: %.50q is no id of a client: allowed is the next of the last answer", page.Cursor)
	}
	fields := q.one("fields")
	if fields != "" && fields != "session" {
		return nil, invalid(CodeInvalidQuery, "fields: %.50q, allowed is session", fields)
	}
	ip, err := canonical(q.one("ip"))
	if err != nil {
		return nil, err
	}
	nodes, err := h.known(q["node"])
	if err != nil {
		return nil, err
	}
	list, err := h.g.Clients(r.Context(), gateway.Query{
		Endpoints: h.endpoints(q), Nodes: nodes, User: q.one("user"), Group: q.one("group"), RealIP: ip, Session: fields == "session", Page: page,
	})
	return list, unanswered(err)
}

// canonical writes an IP address as the gateway knows it.
func canonical(ip string) (string, error) {
	if ip == "" {
		return "", nil
	}
	addr, err := netip.ParseAddr(ip)
	if err != nil {
		return "", invalid(CodeInvalidQuery, "ip: %.50q is no IP address", ip)
	}
	return addr.String(), nil
}

func (h *Handler) client(r *http.Request, _ query) (any, error) {
	id := path.Base(r.URL.Path)
	info, err := h.g.ClientInfo(r.Context(), id, true)
	if err == nil && len(h.o.Endpoints) > 0 && !slices.Contains(h.o.Endpoints, info.Endpoint) {
		err = gateway.ErrUnknownClient
	}
	if errors.Is(err, gateway.ErrUnknownClient) {
		return nil, failed(http.StatusNotFound, CodeUnknownClient, "no client %.100q is connected", id)
	}
	return info, unanswered(err)
}

func (h *Handler) names(list func(context.Context, gateway.NameQuery) (gateway.NameList, error)) func(*http.Request, query) (any, error) {
	return func(r *http.Request, q query) (any, error) {
		page, err := h.page(q)
		if err != nil {
			return nil, err
		}
		nodes, err := h.known(q["node"])
		if err != nil {
			return nil, err
		}
		names, err := list(r.Context(), gateway.NameQuery{Prefix: q.one("prefix"), Nodes: nodes, Endpoints: h.endpoints(q), Page: page})
		return names, unanswered(err)
	}
}

func (h *Handler) count(r *http.Request, q query) (any, error) {
	of := gateway.Target{
		Clients: q["client"], Users: q["user"], Groups: q["group"],
		Endpoints: q["endpoint"], Nodes: q["node"],
		Except: gateway.Except{Clients: q["except_client"], Users: q["except_user"]},
	}
	of.All = len(of.Clients)+len(of.Users)+len(of.Groups) == 0
	if err := h.checkTarget(&of); err != nil {
		return nil, err
	}
	reach, err := h.g.Count(r.Context(), h.within(of))
	return Result{Clients: &reach.Clients, Missing: reach.Missing, LocalOnly: reach.LocalOnly}, unanswered(err)
}

// stats are those of one node, since there is no sum of how late time-outs come, or of
// users.
func (h *Handler) stats(r *http.Request, q query) (any, error) {
	node := cmp.Or(q.one("node"), NodeSelf)
	nodes, err := h.known([]string{node})
	if err != nil {
		return nil, err
	}
	if node == NodeAll {
		nodes = NodesNamed(h.g.Nodes(), NodeAll)
	}
	if len(nodes) > 1 {
		return nil, invalid(CodeInvalidQuery, "node: %.100q is %d nodes, and this is about one: allowed are %s", node, len(nodes), strings.Join(nodes, ", "))
	}
	all, _, err := h.g.AllStats(r.Context(), nodes, h.endpoints(q)...)
	if len(all) == 0 {
		return nil, unanswered(cmp.Or(err, h.noAnswer(nodes[0])))
	}
	return all[0], nil
}
