package gateway

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// Stats is what a gateway has counted in this process.
type Stats struct {
	Gateway string `json:"gateway"`
	Node    string `json:"node"`

	// Clients, Users and Groups are how many there are now.
	Clients int `json:"clients"`
	Users   int `json:"users"`
	Groups  int `json:"groups"`

	// Draining is set while handshakes are refused, see Drain.
	Draining bool `json:"draining,omitempty"`

	// SweeperLag is how late the last round of pings and time-outs was through, in
	// seconds: more than one means that time-outs come late.
	SweeperLag float64 `json:"sweeper_lag"`

	// Cluster is about other nodes; nil without a broker.
	Cluster *ClusterStats `json:"cluster,omitempty"`

	// Endpoints are those that are in force, and those whose last clients are being
	// closed, by name.
	Endpoints []EndpointStats `json:"endpoints"`
}

// EndpointStats is what an endpoint has counted since it came into force under
// its name: reloads do not reset it. All but Clients only grow.
type EndpointStats struct {
	Endpoint string `json:"endpoint"`

	// Clients is how many connections there are, those that are closing included.
	Clients int `json:"clients"`

	// Handshakes are counted by the HTTP status of their answer: 101 are those that
	// became clients, over HTTP/2 and HTTP/3 as well.
	Handshakes map[int]int64 `json:"handshakes"`

	Traffic

	// Overflows is how often a message found a send buffer full, by policy.
	Overflows map[string]int64 `json:"overflows"`

	// Closes is how many clients have gone, by how they were closed.
	Closes []CloseCount `json:"closes"`

	// Callbacks is how long OnConnect, OnMessage and OnClose took, by these names.
	Callbacks map[string]Durations `json:"callbacks"`
}

// Traffic counts what has passed between clients and the gateway.
type Traffic struct {
	// MessagesIn counts messages that logic was given, MessagesOut those that were
	// written. Bytes are those of the frames, before TLS.
	MessagesIn  int64 `json:"messages_in"`
	MessagesOut int64 `json:"messages_out"`
	BytesIn     int64 `json:"bytes_in"`
	BytesOut    int64 `json:"bytes_out"`

	// Dropped counts messages that the policy for full send buffers discarded,
	// Unsent those that still waited when their connection ended.
	Dropped int64 `json:"dropped"`
	Unsent  int64 `json:"unsent"`
}

func (t *Traffic) add(u Traffic) {
	t.MessagesIn += u.MessagesIn
	t.MessagesOut += u.MessagesOut
	t.BytesIn += u.BytesIn
	t.BytesOut += u.BytesOut
	t.Dropped += u.Dropped
	t.Unsent += u.Unsent
}

// CloseCount is how many clients were closed in one way.
type CloseCount struct {
	// Code is a close code; "3xxx" and "4xxx" stand for all of libraries' and
	// applications' own, so that no peer can make the list long.
	Code string `json:"code"`

	// ByPeer tells who began, see CloseReason.
	ByPeer bool `json:"by_peer"`

	Count int64 `json:"count"`
}

// tally is what an endpoint's name keeps of clients that are gone, and of
// handshakes.
type tally struct {
	overflows [DropOldest + 1]atomic.Int64 // by policy
	callbacks [callbackKinds]histogram

	mu         sync.Mutex
	handshakes map[int]int64        // guarded by mu; by status
	closes     map[CloseCount]int64 // guarded by mu; the key's Count is 0
	gone       Traffic              // guarded by mu; of clients that are no longer registered
}

func (t *tally) handshake(status int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.handshakes == nil {
		t.handshakes = make(map[int]int64)
	}
	t.handshakes[status]++
}

// leave takes a client out of the registry and keeps what it counted, both at
// once for who looks at the sum.
func (t *tally) leave(c *Client, reason CloseReason) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closes == nil {
		t.closes = make(map[CloseCount]int64)
	}
	t.closes[CloseCount{Code: codeClass(reason.Code), ByPeer: reason.ByPeer}]++
	t.gone.add(c.traffic())
	c.registry.remove(c)
}

// codeClass returns a code, or the class of one that somebody made up.
func codeClass(code int) string {
	if code >= 3000 {
		return fmt.Sprintf("%dxxx", code/1000)
	}
	return strconv.Itoa(code)
}

// traffic returns what the client has counted so far.
func (c *Client) traffic() Traffic {
	return Traffic{
		MessagesIn: c.messagesIn.Load(), MessagesOut: c.queue.messages.Load(),
		BytesIn: c.wire.bytesIn.Load(), BytesOut: c.wire.bytesOut.Load(),
		Dropped: c.queue.dropped.Load(), Unsent: c.queue.unsent.Load(),
	}
}

// counted notes the result of a handshake that did not become a client, and
// returns it.
func (e *Endpoint) counted(err error) error {
	if err == nil || !e.added.Load() {
		return err
	}
	status := http.StatusBadGateway
	if refused, ok := errors.AsType[*HandshakeError](err); ok {
		status = refused.status()
	}
	e.slot.tally.handshake(status)
	return err
}

// Stats returns what has been counted, of these endpoints or of all if none is
// named. It looks at every client: some milliseconds for a hundred thousand.
func (g *Gateway) Stats(endpoints ...string) Stats { return here{g.shared}.stats(endpoints...) }

// ClusterStats returns what Stats says of other nodes, without looking at clients; nil
// without a broker.
func (g *Gateway) ClusterStats() *ClusterStats { return g.cluster.stats() }

func (g here) stats(endpoints ...string) Stats {
	s := Stats{
		Gateway: g.name, Node: g.node,
		Users: namesWithin(&g.registry.users, endpoints), Groups: namesWithin(&g.registry.groups, endpoints),
		Draining: g.unwilling(), Cluster: g.cluster.stats(), SweeperLag: time.Duration(g.sweepLag.Load()).Seconds(),
	}
	g.mu.Lock()
	slots := slices.SortedFunc(maps.Values(g.slots), func(a, b *slot) int { return cmp.Compare(a.name, b.name) })
	g.mu.Unlock()
	slots = slices.DeleteFunc(slots, func(sl *slot) bool {
		return sl.current.Load() == nil || len(endpoints) > 0 && !slices.Contains(endpoints, sl.name)
	})

	bySlot := make(map[*slot]*EndpointStats, len(slots))
	s.Endpoints = make([]EndpointStats, len(slots))
	for i, sl := range slots { // until all is added up nobody moves from the living to the gone
		sl.tally.mu.Lock()
		defer sl.tally.mu.Unlock()
		e := &s.Endpoints[i]
		*e = sl.tally.stats(sl.name)
		bySlot[sl] = e
	}
	g.registry.clients.each(func(_ string, c *Client) {
		e := bySlot[c.slot]
		if e == nil || !c.open.Load() {
			return
		}
		s.Clients++
		e.Clients++
		e.add(c.traffic())
	})
	return s
}

// stats returns what the tally holds. The caller holds mu.
func (t *tally) stats(name string) EndpointStats {
	e := EndpointStats{
		Endpoint: name, Traffic: t.gone, Handshakes: maps.Clone(t.handshakes),
		Overflows: make(map[string]int64, len(t.overflows)),
		Closes:    make([]CloseCount, 0, len(t.closes)),
		Callbacks: make(map[string]Durations, callbackKinds),
	}
	if e.Handshakes == nil {
		e.Handshakes = map[int]int64{}
	}
	for policy := range t.overflows {
		e.Overflows[QueuePolicy(policy).String()] = t.overflows[policy].Load()
	}
	for kind := range t.callbacks {
		e.Callbacks[callbackNames[kind]] = t.callbacks[kind].durations()
	}
	for key, n := range t.closes {
		key.Count = n
		e.Closes = append(e.Closes, key)
	}
	slices.SortFunc(e.Closes, func(a, b CloseCount) int {
		return cmp.Or(cmp.Compare(a.Code, b.Code), cmp.Compare(fmt.Sprint(a.ByPeer), fmt.Sprint(b.ByPeer)))
	})
	return e
}
