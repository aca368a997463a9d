package gateway

import (
	"strconv"
	"sync/atomic"
	"time"
)

// slotCount is how many hash slots the names of users, and those of groups, are
// spread over. What is for one name travels on the subject of its slot, which the
// nodes hear that have names in it: few subscriptions, also for a million groups, and
// little that is heard in vain. All nodes must agree on it.
const slotCount = 1024

// slotLinger is how long a node goes on hearing a slot after its last name is gone: who
// comes and goes costs no subscription each time.
const slotLinger = time.Minute

// interest counts the names of one kind that have members on this node, and hears
// their slots.
type interest struct {
	kind   string // begins the subjects
	slots  [slotCount]slotInterest
	listen func(i *interest, slot int) // called when a slot gets its first name
}

type slotInterest struct {
	count atomic.Int32 // names with members on this node
	heard atomic.Bool  // it is subscribed to; written under cluster.mu
	since int64        // guarded by cluster.mu; when it was seen without names, 0 before
}

// slotOf returns the slot of a name.
func slotOf(name string) int {
	const offset, prime = 2166136261, 16777619 // FNV-1a
	h := uint32(offset)
	for i := range len(name) {
		h = (h ^ uint32(name[i])) * prime
	}
	return int(h % slotCount)
}

func slotSubject(kind string, slot int) string {
	var buf [8]byte // it takes one allocation, for each message that is sent
	return string(strconv.AppendInt(append(append(buf[:0], kind...), '.'), int64(slot), 10))
}

// came notes that a name has its first member. The caller holds a lock of the
// registry's.
func (i *interest) came(name string) {
	if i == nil {
		return
	}
	slot := slotOf(name)
	i.slots[slot].count.Add(1)
	if !i.slots[slot].heard.Load() {
		i.listen(i, slot)
	}
}

// went notes that a name has lost its last member.
func (i *interest) went(name string) {
	if i != nil {
		i.slots[slotOf(name)].count.Add(-1)
	}
}

// hear subscribes to a slot. The caller holds cluster.mu.
func (i *interest) hear(l Link, slot int) {
	s := &i.slots[slot]
	if !s.heard.Swap(true) {
		l.Subscribe(slotSubject(i.kind, slot))
	}
	s.since = 0
}

// hearAll subscribes a new link to all slots with names. The caller holds cluster.mu.
func (i *interest) hearAll(l Link) {
	for slot := range i.slots {
		s := &i.slots[slot]
		s.heard.Store(false)
		if s.count.Load() > 0 {
			i.hear(l, slot)
		}
	}
}

// tidy unsubscribes from slots that have had no name for slotLinger. The caller holds
// cluster.mu.
func (i *interest) tidy(l Link, now int64) {
	for slot := range i.slots {
		s := &i.slots[slot]
		switch {
		case !s.heard.Load():
		case s.count.Load() > 0:
			s.since = 0
		case s.since == 0:
			s.since = now
		case time.Duration(now-s.since) >= slotLinger:
			s.heard.Store(false)
			if s.count.Load() > 0 { // a name has come that saw it heard
				s.heard.Store(true)
				continue
			}
			l.Unsubscribe(slotSubject(i.kind, slot))
		}
	}
}
