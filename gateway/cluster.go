package gateway

import (
	"fmt"
	"sync"
	"sync/atomic"
)

// cluster is a gateway's part in what nodes do together. Without a broker it costs one
// comparison.
//
// A command goes to the subjects on which its recipients can be, see routes; every
// node that hears it does what it says for clients of its own. Messages have numbers,
// which grow with each that a node sends: what comes twice, or late, is not heard.
type cluster struct {
	s      *shared
	users  interest
	groups interest

	using    sync.Mutex               // held while another broker is put in the place of one
	ended    bool                     // guarded by using
	changing bool                     // guarded by using; the link before is still heard
	current  atomic.Pointer[attached] // nil without a broker; written under using and sending

	// sending makes numbers grow in the order in which messages are published.
	sending sync.Mutex
	number  uint64 // guarded by sending
	buf     []byte // guarded by sending

	receiving sync.Mutex // one message at a time is handled, also while there are two links
	handover  *handover  // guarded by receiving; nil but while a link takes over

	mu       sync.Mutex
	peers    map[string]*peer // guarded by mu
	events   []NodeEvent      // guarded by mu; logic has not been told of them
	telling  bool             // guarded by mu; a goroutine is telling it
	lastTick int64            // guarded by mu
	watches  watches          // guarded by mu

	others atomic.Int32 // how many peers there are
	asks   asks

	waiting atomic.Int32  // questions of others that are not answered
	busy    chan struct{} // has one for each that is being answered

	published, received, unsent, missed atomic.Int64
	lost                                atomic.Int64 // of missed, what the log has not been told
	full                                atomic.Int64 // when the log was last told that too much waits; 0 before
	aloneSince                          atomic.Int64 // if the log says that the node is on its own, since when; 0 else
}

// Subjects. Slots have slotSubject.
const (
	subjectAll   = "all"
	subjectNode  = "n."
	kindOfUsers  = "u"
	kindOfGroups = "g"
)

func newCluster(s *shared) *cluster {
	const atOnce = 16 // questions that are being answered
	c := &cluster{s: s, peers: make(map[string]*peer), busy: make(chan struct{}, atOnce)}
	c.users.kind, c.groups.kind = kindOfUsers, kindOfGroups
	c.users.listen, c.groups.listen = c.listen, c.listen
	c.asks.open = make(map[uint64]*asking)
	return c
}

// listen subscribes to a slot that has got its first name.
func (c *cluster) listen(i *interest, slot int) {
	if c.current.Load() == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if a := c.current.Load(); a != nil {
		i.hear(a.link, slot)
	}
}

// use attaches the node to the broker of the options in force, if that is another than
// before. While a link takes over from another, that waits: of three, two would be heard
// that do not know of each other.
func (c *cluster) use() error {
	c.using.Lock()
	defer c.using.Unlock()
	if c.ended || c.changing {
		return nil
	}
	c.s.mu.Lock()
	b := c.s.options.Broker
	c.s.mu.Unlock()
	old := c.current.Load()
	if old == nil && b == nil || old != nil && old.broker == b {
		return nil
	}
	next, err := c.attach(b)
	if next != nil && next.up() {
		c.greet(true, subjectAll)
	}
	if old == nil {
		return err
	}
	c.changing = true
	c.s.helper("broker", func() {
		defer c.changed()
		if next != nil {
			c.takeOver(next)
		}
		old.link.Close()
	})
	return err
}

// changed ends a change of brokers, and begins the next if another is in force by now.
func (c *cluster) changed() {
	c.using.Lock()
	c.changing = false
	c.using.Unlock()
	_ = c.use() // it has logged why not
}

// attach makes a link to b the current one; without b there is none.
func (c *cluster) attach(b Broker) (*attached, error) {
	var a *attached
	var err error
	if b != nil {
		a = &attached{c: c, broker: b}
		if a.link, err = b.Attach(c.s.name, c.s.node, a); err != nil {
			err = fmt.Errorf("gateway %q: attaching to the broker: %w", c.s.name, err)
			c.s.log.Load().Error("this node is on its own: it cannot be attached to the broker", "error", err)
			a = nil
		}
	}
	if a == nil {
		c.tell(kindBye, nil, subjectAll)
	} else if c.up() {
		c.beginHandover(a)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if a == nil {
		c.setCurrent(nil)
		c.removeAll()
		return nil, err
	}
	c.setCurrent(a) // before the slots are looked at: who gets a name now subscribes by himself
	c.users.hearAll(a.link)
	c.groups.hearAll(a.link)
	a.link.Subscribe(subjectAll)
	a.link.Subscribe(subjectNode + c.s.node) // last, see handover
	return a, nil
}

func (c *cluster) setCurrent(a *attached) {
	c.sending.Lock()
	defer c.sending.Unlock()
	old := c.current.Load()
	c.current.Store(a)
	if old != nil && a != nil {
		c.move(old.link, a.link)
	}
}

// end says goodbye and leaves the broker. Nothing is sent from then on.
func (c *cluster) end() {
	c.using.Lock()
	c.ended = true // there is no other change from now on
	c.using.Unlock()
	a := c.current.Load()
	if a == nil {
		return
	}
	c.tell(kindBye, nil, subjectAll)
	c.setCurrent(nil)
	a.link.Close()
	c.mu.Lock()
	defer c.mu.Unlock()
	for id := range c.peers {
		c.asks.gone(id)
	}
	clear(c.peers)
	c.others.Store(0)
}

// take handles a message whose turn has come. The caller holds receiving.
func (c *cluster) take(p *peer, e envelope) {
	p.number = e.number
	c.received.Add(1)
	kind, body := e.kind, e.body
	if kind == kindPart {
		var err error
		if kind, body, err = p.parts.add(body); err != nil {
			c.misunderstood(e.node, err)
			return
		}
		if body == nil {
			return
		}
	}
	if err := c.handle(p, kind, body); err != nil {
		c.misunderstood(e.node, err)
	}
}

// handle does what a message asks for.
func (c *cluster) handle(p *peer, kind envelopeKind, body []byte) error {
	switch kind {
	case kindHello:
		return c.greeted(p, body)
	case kindBye:
		c.remove(p, NodeLeft)
	case kindCommand:
		return c.obey(p, body)
	case kindQuestion:
		return c.questioned(p, body)
	case kindAnswer:
		return c.answered(p, body)
	case kindWatch:
		return c.watchedBy(p, body)
	case kindReport:
		return c.reported(p, body)
	case kindMoved: // see due
	default:
		return fmt.Errorf("kind %q: %w", kind, errEnvelope)
	}
	return nil
}

// obey does a command for clients of this node.
func (c *cluster) obey(p *peer, body []byte) error {
	ask, command, m, err := parseCommand(body)
	if err != nil {
		return err
	}
	n, err := here{c.s}.obey(command, m)
	if ask != 0 {
		c.answer(p.id, ask, Reach{Clients: n}, err)
	}
	return nil
}

// misunderstood counts a message that nothing could be made of.
func (c *cluster) misunderstood(node string, err error) {
	c.missed.Add(1)
	if c.lost.Add(1) == 1 { // the rest is said by tick
		c.s.log.Load().Warn("a message of another node was not understood", "gateway", c.s.name, "node", node, "error", err)
	}
}

// tick is called once a second.
func (c *cluster) tick() {
	a := c.current.Load()
	if a == nil {
		c.aloneSince.Store(0)
		return
	}
	if a.up() {
		c.logUp() // it may have been up from the beginning
		c.greet(false, subjectAll)
	}
	a.logDown(c.s.now())
	if n := c.lost.Swap(0); n > 0 {
		c.s.log.Load().Warn("messages of other nodes were lost", "gateway", c.s.name, "messages", n)
	}
	c.releaseLate(c.s.now())
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.s.now()
	if a.up() {
		c.removeSilent(now)
	}
	c.lastTick = now
	c.tickWatches(now)
	if c.current.Load() == a {
		c.users.tidy(a.link, now)
		c.groups.tidy(a.link, now)
	}
}

// ClusterStats is what a gateway has counted of its exchange with other nodes.
type ClusterStats struct {
	// Connected tells whether the broker can be reached.
	Connected bool `json:"connected"`

	// Nodes is how many other nodes are known.
	Nodes int `json:"nodes"`

	// Published counts messages to other nodes, Received those of theirs. Unsent are
	// those that could not be published; Missed are those of others that came faster
	// than they were handled, or were not understood.
	Published int64 `json:"published"`
	Received  int64 `json:"received"`
	Unsent    int64 `json:"unsent"`
	Missed    int64 `json:"missed"`
}

// stats returns what has been counted, or nil without a broker.
func (c *cluster) stats() *ClusterStats {
	a := c.current.Load()
	if a == nil {
		return nil
	}
	return &ClusterStats{
		Connected: a.up(), Nodes: int(c.others.Load()),
		Published: c.published.Load(), Received: c.received.Load(), Unsent: c.unsent.Load(), Missed: c.missed.Load(),
	}
}
