package gateway

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"
)

const (
	// watchRenewed is how often a node says that it still watches others, and so after how
	// long at most one that has joined is watched, too.
	watchRenewed = 3 * time.Second

	// watchKept is for how long a node that does not say so is told what happens.
	watchKept = 10 * time.Second

	// watchPause is how long what happens is gathered before another node is told.
	watchPause = 20 * time.Millisecond

	// watchBatch is how many events another node is told of at once.
	watchBatch = 1000
)

// watchRequest asks a node to tell what happens there, for some time or no more.
type watchRequest struct {
	ID       uint64 `json:"id"`
	Client   string `json:"client,omitempty"`
	Endpoint string `json:"endpoint,omitempty"`
	Messages bool   `json:"messages,omitempty"`
	End      bool   `json:"end,omitempty"`
}

// watchReport is what has happened.
type watchReport struct {
	Events []Event `json:"events,omitempty"`
	Missed int64   `json:"missed,omitempty"`
}

// watches are those of this node at others, and of others here. cluster.mu guards them.
type watches struct {
	last    uint64
	ours    map[uint64]*Watcher
	renewed int64
	theirs  map[watchKey]*theirWatch
}

type watchKey struct {
	node string
	id   uint64
}

type theirWatch struct {
	watcher *Watcher
	renewed int64
	done    chan struct{}
}

// watch begins to watch the other nodes that w is for.
func (c *cluster) watch(w *Watcher) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.watches.ours == nil {
		c.watches.ours = make(map[uint64]*Watcher)
	}
	c.watches.last++
	w.id = c.watches.last
	c.watches.ours[w.id] = w
	c.askToWatch(w, false)
}

// endWatch ceases to.
func (c *cluster) endWatch(w *Watcher) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.watches.ours[w.id] != w {
		return
	}
	delete(c.watches.ours, w.id)
	c.askToWatch(w, true)
}

// askToWatch publishes a request. The caller holds mu.
func (c *cluster) askToWatch(w *Watcher, end bool) {
	if c.alone() {
		return
	}
	body, err := json.Marshal(watchRequest{ID: w.id, Client: w.o.Client, Endpoint: w.o.Endpoint, Messages: w.o.Messages, End: end})
	if err != nil {
		return // cannot happen
	}
	subjects := []string{subjectAll}
	switch node := nodeOf(w.o.Client); {
	case len(w.o.Nodes) > 0:
		subjects = c.toNodes(w.o.Nodes)
	case node != "":
		subjects = c.toNodes([]string{node})
	}
	_ = c.publish(kindWatch, body, subjects...) // it is renewed
}

// tickWatches renews watches at others, and ends those here that are not. The caller holds
// mu.
func (c *cluster) tickWatches(now int64) {
	if time.Duration(now-c.watches.renewed) >= watchRenewed {
		c.watches.renewed = now
		for _, w := range c.watches.ours {
			c.askToWatch(w, false)
		}
	}
	for key, t := range c.watches.theirs {
		if time.Duration(now-t.renewed) >= watchKept {
			c.dropWatch(key)
		}
	}
}

func (c *cluster) dropWatch(key watchKey) {
	if t := c.watches.theirs[key]; t != nil {
		close(t.done)
		delete(c.watches.theirs, key)
	}
}

// watchedBy does what a node asks for.
func (c *cluster) watchedBy(p *peer, body []byte) error {
	var r watchRequest
	if err := json.Unmarshal(body, &r); err != nil {
		return fmt.Errorf("decoding a request to watch: %w", err)
	}
	key := watchKey{p.id, r.ID}
	c.mu.Lock()
	defer c.mu.Unlock()
	t := c.watches.theirs[key]
	switch {
	case r.End:
		c.dropWatch(key)
		return nil
	case t != nil:
		t.renewed = c.s.now()
		return nil
	}
	if c.watches.theirs == nil {
		c.watches.theirs = make(map[watchKey]*theirWatch)
	}
	t = &theirWatch{
		// What is in messages is shown by the node that is asked itself, if at all: it has
		// the permission.
		watcher: c.s.watchHere(WatchOptions{Client: r.Client, Endpoint: r.Endpoint, Messages: r.Messages}),
		renewed: c.s.now(), done: make(chan struct{}),
	}
	c.watches.theirs[key] = t
	c.s.helper("watch", func() { c.report(key, t) })
	return nil
}

// report tells another node what happens here, until that does not want to know.
func (c *cluster) report(key watchKey, t *theirWatch) {
	defer t.watcher.Close()
	for {
		var r watchReport
		select {
		case e := <-t.watcher.events:
			r.Events = append(r.Events, e)
		case <-t.done:
			return
		case <-c.s.ctx.Done():
			return
		}
		select {
		case <-time.After(watchPause):
		case <-c.s.ctx.Done():
			return
		}
		for more := true; more && len(r.Events) < watchBatch; {
			select {
			case e := <-t.watcher.events:
				r.Events = append(r.Events, e)
			default:
				more = false
			}
		}
		r.Missed = t.watcher.Missed()
		body, err := appendJSON(key.id, r)
		if err != nil {
			continue // cannot happen
		}
		c.tell(kindReport, body, subjectNode+key.node)
	}
}

// reported takes what has happened elsewhere.
func (c *cluster) reported(_ *peer, body []byte) error {
	var r watchReport
	id, err := parseJSON(body, &r)
	if err != nil {
		return fmt.Errorf("decoding what has happened: %w", err)
	}
	c.mu.Lock()
	w := c.watches.ours[id]
	c.mu.Unlock()
	if w == nil {
		return nil // it has just ended
	}
	for _, e := range r.Events {
		w.tell(e)
	}
	w.missed.Add(r.Missed)
	return nil
}

// elsewhere tells whether the options are for other nodes, too.
func (o *WatchOptions) elsewhere(self string) bool {
	if len(o.Nodes) == 0 {
		return o.AllNodes
	}
	return slices.ContainsFunc(o.Nodes, func(node string) bool { return node != self })
}
