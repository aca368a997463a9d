package gateway

import (
	"hash/maphash"
	"slices"
	"sync"
)

// registry knows who is connected, as whom and in which groups. Each table is
// cut into shards with a lock each; what is looked up is copied under the lock,
// and nothing is called while one is held.
type registry struct {
	clients table[*Client] // by id; until the connection is gone
	users   table[members] // until the client begins to close
	groups  table[members] // until the client begins to close
}

type members map[*Client]struct{}

const shardCount = 64

type table[V any] struct {
	seed     maphash.Seed
	shards   [shardCount]shard[V]
	interest *interest // of other nodes in what happens to the names; nil for clients
}

type shard[V any] struct {
	mu    sync.RWMutex
	names map[string]V // guarded by mu
	_     [32]byte     // a cache line each, so that neighbours do not slow each other
}

func newRegistry() *registry {
	r := &registry{}
	r.clients.init()
	r.users.init()
	r.groups.init()
	return r
}

func (t *table[V]) init() {
	t.seed = maphash.MakeSeed()
	for i := range t.shards {
		t.shards[i].names = make(map[string]V)
	}
}

func (t *table[V]) shard(name string) *shard[V] {
	return &t.shards[maphash.String(t.seed, name)%shardCount]
}

// each calls f for every entry, one shard's lock held at a time: f must not
// block and must not touch the table.
func (t *table[V]) each(f func(name string, v V)) {
	for i := range t.shards {
		s := &t.shards[i]
		s.mu.RLock()
		for name, v := range s.names {
			f(name, v)
		}
		s.mu.RUnlock()
	}
}

// size returns how many entries there are.
func (t *table[V]) size() (n int) {
	for i := range t.shards {
		s := &t.shards[i]
		s.mu.RLock()
		n += len(s.names)
		s.mu.RUnlock()
	}
	return n
}

// namesWithin returns how many names have members of these endpoints, or of any if
// none is named.
func namesWithin(t *table[members], endpoints []string) (n int) {
	if len(endpoints) == 0 {
		return t.size()
	}
	t.each(func(_ string, m members) {
		if m.within(endpoints) > 0 {
			n++
		}
	})
	return n
}

// addMember puts c into the set called name, which comes into being with it.
func addMember(t *table[members], name string, c *Client) {
	s := t.shard(name)
	s.mu.Lock()
	defer s.mu.Unlock()
	m := s.names[name]
	if m == nil {
		m = make(members, 1)
		s.names[name] = m
		t.interest.came(name)
	}
	m[c] = struct{}{}
}

// removeMember takes c out of the set called name, which ends with its last
// member.
func removeMember(t *table[members], name string, c *Client) {
	s := t.shard(name)
	s.mu.Lock()
	defer s.mu.Unlock()
	m := s.names[name]
	delete(m, c)
	if m != nil && len(m) == 0 {
		delete(s.names, name)
		t.interest.went(name)
	}
}

func appendMembers(into []*Client, t *table[members], name string) []*Client {
	s := t.shard(name)
	s.mu.RLock()
	defer s.mu.RUnlock()
	m := s.names[name]
	into = slices.Grow(into, len(m))
	for c := range m {
		into = append(into, c)
	}
	return into
}

func (r *registry) add(c *Client) {
	s := r.clients.shard(c.id)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.names[c.id] = c
}

func (r *registry) remove(c *Client) {
	s := r.clients.shard(c.id)
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.names, c.id)
}

// lookup returns the client with this id, or nil.
func (r *registry) lookup(id string) *Client {
	s := r.clients.shard(id)
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.names[id]
}

// everybody returns all connections, also those that are closing.
func (r *registry) everybody() []*Client {
	all := make([]*Client, 0, r.clients.size())
	r.clients.each(func(_ string, c *Client) { all = append(all, c) })
	return all
}

// resolve returns the clients that the target addresses, each once.
func (r *registry) resolve(t *Target) ([]*Client, error) {
	if err := t.Validate(); err != nil {
		return nil, err
	}
	var found []*Client
	if t.All {
		found = r.everybody()
	}
	for _, id := range t.Clients {
		if c := r.lookup(id); c != nil {
			found = append(found, c)
		}
	}
	for _, user := range t.Users {
		found = appendMembers(found, &r.users, user)
	}
	for _, group := range t.Groups {
		found = appendMembers(found, &r.groups, group)
	}
	narrowing := t.narrowing()
	var seen members
	if len(t.Clients)+len(t.Users)+len(t.Groups) > 1 { // one name finds nobody twice
		seen = make(members, len(found))
	}
	return slices.DeleteFunc(found, func(c *Client) bool {
		if c.isClosing() || !narrowing.admits(c) {
			return true
		}
		if seen == nil {
			return false
		}
		_, twice := seen[c]
		seen[c] = struct{}{}
		return twice
	}), nil
}
