package gateway

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
)

// DefaultPageSize and MaxPageSize are how many entries a page of a list has.
const (
	DefaultPageSize = 100
	MaxPageSize     = 10000
)

// ClientInfo is what is known of a client at one moment.
type ClientInfo struct {
	ID          string    `json:"id"`
	Endpoint    string    `json:"endpoint"`
	RealIP      string    `json:"client_ip,omitempty"`
	User        string    `json:"user,omitempty"`
	Groups      []string  `json:"groups,omitempty"`
	Subprotocol string    `json:"subprotocol,omitempty"`
	Proto       string    `json:"proto"` // HTTP/1.1, HTTP/2.0 or HTTP/3.0
	ConnectedAt time.Time `json:"connected_at"`

	// Forwarded is set for clients that are connected to a backend.
	Forwarded bool `json:"forwarded,omitempty"`

	// Session is nil unless the query asked for it.
	Session Values `json:"session,omitempty"`

	Traffic

	// Queued is how many bytes wait to be written.
	Queued int64 `json:"queued"`

	// PingMS is how many milliseconds the answer to the last ping took; 0 if none
	// was answered yet.
	PingMS float64 `json:"ping_ms,omitempty"`
}

// Info returns what is known of the client now, with its session if asked.
func (c *Client) Info(session bool) ClientInfo {
	info := ClientInfo{
		ID: c.id, Endpoint: c.slot.name, RealIP: c.ip, User: c.User(), Groups: c.Groups(),
		Subprotocol: c.Subprotocol(), Proto: c.proto, ConnectedAt: c.connectedAt, Forwarded: c.forwarded,
		Traffic: c.traffic(), Queued: c.queue.waiting(),
		PingMS: float64(c.queue.roundTrip.Load()) / float64(time.Millisecond),
	}
	if session {
		info.Session = c.session.Values()
	}
	return info
}

// Query selects clients for a list. All conditions that are set must hold; the
// zero value selects every client.
type Query struct {
	// Endpoints narrows to clients of these. Empty means all.
	Endpoints []string

	// Nodes narrows to clients of these. Empty means all.
	Nodes []string

	User   string
	Group  string
	RealIP string

	// Session adds the sessions to the answer.
	Session bool

	Page
}

// Page selects a part of a list.
type Page struct {
	// Limit is how many entries to return at most. Zero means 100; more than
	// MaxPageSize, or less than zero, is an error.
	Limit int

	// Cursor is where to go on: what the last answer gave as Next. Empty begins.
	Cursor string
}

func (p Page) limit() (int, error) {
	switch {
	case p.Limit < 0 || p.Limit > MaxPageSize:
		return 0, fmt.Errorf("limit %d: allowed are 1 to %d, or 0 for %d", p.Limit, MaxPageSize, DefaultPageSize)
	case p.Limit == 0:
		return DefaultPageSize, nil
	}
	return p.Limit, nil
}

// page sorts a list by name, which must be unique, and cuts out the page.
func page[T any](list []T, p Page, name func(T) string) (cut []T, next string, err error) {
	limit, err := p.limit()
	if err != nil {
		return nil, "", err
	}
	list = slices.DeleteFunc(list, func(v T) bool { return p.Cursor != "" && name(v) <= p.Cursor })
	slices.SortFunc(list, func(a, b T) int { return cmp.Compare(name(a), name(b)) })
	if len(list) > limit {
		list = list[:limit]
		next = name(list[limit-1])
	}
	return list, next, nil
}

// cutPage makes one page of several nodes' pages: of the same size, since none of them
// has left out what belongs before its last entry. more tells whether one of them was
// cut itself.
func cutPage[T any](list []T, p Page, more bool, name func(T) string) ([]T, string) {
	limit, _ := p.limit() // it has been checked
	slices.SortFunc(list, func(a, b T) int { return cmp.Compare(name(a), name(b)) })
	if len(list) > limit {
		list, more = list[:limit], true
	}
	if !more || len(list) == 0 {
		return list, ""
	}
	return list, name(list[len(list)-1])
}

// ClientList is a page of clients, in the order of their ids, which is that of their
// nodes.
type ClientList struct {
	Clients []ClientInfo `json:"clients"`

	// Next is the cursor of the next page; empty after the last.
	Next string `json:"next,omitempty"`

	// Missing are nodes that did not answer in time, sorted.
	Missing []string `json:"missing,omitempty"`

	// LocalOnly is set if other nodes are meant, and could not be asked since the broker
	// cannot be reached.
	LocalOnly bool `json:"local_only,omitempty"`
}

// Clients lists clients of all nodes: others are waited for until ctx is done, or for
// AnswerTimeout if it has no deadline. A list that is paged through while clients come
// and go misses or repeats nobody who was there all the time.
func (g *Gateway) Clients(ctx context.Context, q Query) (ClientList, error) {
	list, err := here{g.shared}.clients(q)
	if err != nil || g.cluster.current.Load() == nil {
		return list, err
	}
	of := g.cluster.whom(q.Nodes)
	results, missing, err := inquire[ClientList](ctx, g.cluster, of, question{Clients: &q})
	list.Missing, list.LocalOnly = missing, g.cluster.cutOff(q.Nodes)
	more := list.Next != ""
	for _, theirs := range results {
		list.Clients = append(list.Clients, theirs.Clients...)
		more = more || theirs.Next != ""
	}
	list.Clients, list.Next = cutPage(list.Clients, q.Page, more, func(c ClientInfo) string { return c.ID })
	return list, err
}

// clients lists clients of this node.
func (h here) clients(q Query) (ClientList, error) {
	to := All()
	switch {
	case q.Group != "":
		to = Groups(q.Group)
	case q.User != "":
		to = Users(q.User)
	}
	to.Endpoints, to.Nodes = q.Endpoints, q.Nodes
	found, err := h.resolve(&to)
	if err != nil {
		return ClientList{}, err
	}
	found = slices.DeleteFunc(found, func(c *Client) bool {
		return q.User != "" && c.User() != q.User || q.RealIP != "" && c.ip != q.RealIP
	})
	found, next, err := page(found, q.Page, func(c *Client) string { return c.id })
	if err != nil {
		return ClientList{}, err
	}
	list := ClientList{Clients: make([]ClientInfo, 0, len(found)), Next: next}
	for _, c := range found {
		list.Clients = append(list.Clients, c.Info(q.Session))
	}
	return list, nil
}

// ClientInfo returns what is known of a client on any node, with its session if asked. The
// error is ErrUnknownClient if there is none with this id, or ErrNoAnswer if its node does
// not answer before ctx is done, or in AnswerTimeout if it has no deadline.
func (g *Gateway) ClientInfo(ctx context.Context, id string, session bool) (ClientInfo, error) {
	q := clientQuery{ID: id, Session: session}
	node := nodeOf(id)
	if node == g.node {
		if info := (here{g.shared}).client(q); info != nil {
			return *info, nil
		}
		return ClientInfo{}, ErrUnknownClient
	}
	of := g.cluster.whom([]string{node})
	if len(of.nodes) == 0 {
		return ClientInfo{}, ErrUnknownClient
	}
	results, missing, err := inquire[*ClientInfo](ctx, g.cluster, of, question{Client: &q})
	switch info := results[node]; {
	case err != nil:
		return ClientInfo{}, err
	case len(missing) > 0:
		return ClientInfo{}, g.cluster.noAnswer(node)
	case info == nil:
		return ClientInfo{}, ErrUnknownClient
	default:
		return *info, nil
	}
}

// client returns what is known of a client of this node, or nil.
func (h here) client(q clientQuery) *ClientInfo {
	c := h.registry.lookup(q.ID)
	if c == nil || c.isClosing() {
		return nil
	}
	info := c.Info(q.Session)
	return &info
}

// Count returns how many clients the target addresses, on all nodes: others are waited for
// until ctx is done, or for AnswerTimeout if it has no deadline.
func (g *Gateway) Count(ctx context.Context, of Target) (Reach, error) {
	found, err := here{g.shared}.resolve(&of)
	reach := Reach{Clients: len(found)}
	c := g.cluster
	if err != nil || c.current.Load() == nil {
		return reach, err
	}
	results, missing, err := inquire[Reach](ctx, c, c.whom(c.concerned(&of)), question{Count: &of})
	reach.Missing, reach.LocalOnly = missing, !c.up() && len(c.routes(&of)) > 0
	for _, theirs := range results {
		reach.Clients += theirs.Clients
	}
	return reach, err
}

// NameList is a page of users or groups, in the order of their names.
type NameList struct {
	Names []NameCount `json:"names"`

	// Next is the cursor of the next page; empty after the last.
	Next string `json:"next,omitempty"`

	// Missing are nodes that did not answer in time, sorted.
	Missing []string `json:"missing,omitempty"`

	// LocalOnly is set if other nodes are meant, and could not be asked since the broker
	// cannot be reached.
	LocalOnly bool `json:"local_only,omitempty"`
}

// NameCount is a user or a group and how many clients it has.
type NameCount struct {
	Name    string `json:"name"`
	Clients int    `json:"clients"`
}

// NameQuery selects users or groups for a list. The zero value selects all.
type NameQuery struct {
	// Prefix is what the names begin with.
	Prefix string

	// Nodes narrows to users or groups with clients on these, and counts only those.
	// Empty means all.
	Nodes []string

	// Endpoints narrows to users or groups with clients of these, and counts only
	// those. Empty means all.
	Endpoints []string

	Page
}

// Groups lists groups of all nodes, as Clients does.
func (g *Gateway) Groups(ctx context.Context, q NameQuery) (NameList, error) {
	return g.names(ctx, &g.registry.groups, q, question{Groups: &q})
}

// Users lists users that are connected, on all nodes, as Clients does.
func (g *Gateway) Users(ctx context.Context, q NameQuery) (NameList, error) {
	return g.names(ctx, &g.registry.users, q, question{Users: &q})
}

// names lists names of this node, from t, and of those that are asked.
func (g *Gateway) names(ctx context.Context, t *table[members], q NameQuery, ask question) (NameList, error) {
	list := NameList{Names: []NameCount{}}
	var err error
	if len(q.Nodes) == 0 || slices.Contains(q.Nodes, g.node) {
		list, err = listNames(t, q)
	}
	if err != nil || g.cluster.current.Load() == nil {
		return list, err
	}
	results, missing, err := inquire[NameList](ctx, g.cluster, g.cluster.whom(q.Nodes), ask)
	more := list.Next != ""
	counts := make(map[string]int, len(list.Names))
	add := func(names []NameCount) {
		for _, n := range names {
			counts[n.Name] += n.Clients
		}
	}
	add(list.Names)
	for _, theirs := range results {
		add(theirs.Names)
		more = more || theirs.Next != ""
	}
	all := make([]NameCount, 0, len(counts))
	for name, n := range counts {
		all = append(all, NameCount{name, n})
	}
	list = NameList{Missing: missing, LocalOnly: g.cluster.cutOff(q.Nodes)}
	list.Names, list.Next = cutPage(all, q.Page, more, func(n NameCount) string { return n.Name })
	return list, err
}

func listNames(t *table[members], q NameQuery) (NameList, error) {
	all := []NameCount{}
	t.each(func(name string, m members) {
		if !strings.HasPrefix(name, q.Prefix) {
			return
		}
		if n := m.within(q.Endpoints); n > 0 {
			all = append(all, NameCount{name, n})
		}
	})
	names, next, err := page(all, q.Page, func(n NameCount) string { return n.Name })
	return NameList{Names: names, Next: next}, err
}

// within returns how many of the members belong to these endpoints, or to any if
// none is named.
func (m members) within(endpoints []string) int {
	if len(endpoints) == 0 {
		return len(m)
	}
	n := 0
	for c := range m {
		if slices.Contains(endpoints, c.slot.name) {
			n++
		}
	}
	return n
}
