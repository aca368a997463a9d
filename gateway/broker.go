package gateway

import "errors"

// Broker carries messages between the nodes of a gateway: the processes that serve
// its clients together. See brokertest for the suite that every implementation
// passes, natsbroker for NATS, and MemoryBroker for nodes in one process.
//
// A Broker serves any number of gateways, which do not hear each other. The gateway
// does not close it: who made it does, after the gateways are shut down or use
// another.
type Broker interface {
	// Attach connects a node of a gateway, for as long as the Link is not closed. It
	// returns at once: if what the broker stands for cannot be reached, the Link is
	// down and comes up by itself. An error is for what waiting does not mend, such as
	// a closed broker.
	//
	// gateway is any name of 1 to 255 bytes of UTF-8; node is of ASCII letters and digits.
	Attach(gateway, node string, to Receiver) (Link, error)
}

// Link is one node's connection to a Broker. Its methods are safe for concurrent use
// and never wait for a network: what they ask for is queued, within bounds.
//
// Subjects are of ASCII letters, digits and single dots in between. They are compared
// as they stand: there are no patterns.
//
// A message reaches every node that has subscribed to its subject, at most once. What
// one Link publishes arrives in that order at every node, over all subjects. A node may
// hear what it publishes itself.
type Link interface {
	// Publish sends data on a subject, to the nodes that have subscribed by the time
	// that it passes there. data is not kept. An error says that it was not sent
	// and will not be: ErrLinkDown while the broker cannot be reached,
	// ErrLinkFull if more waits than the broker keeps. No error promises nothing.
	Publish(subject string, data []byte) error

	// Subscribe begins to hear a subject, Unsubscribe ceases to. Each is about what is
	// published from some moment on, soon after the call, and not before that of any
	// call before it. Doing either again changes nothing. What is subscribed to is kept
	// while the link is down, and in force again when it comes up.
	Subscribe(subject string)
	Unsubscribe(subject string)

	// Flush calls done, once, when all that was asked for before is in effect as far as
	// the broker itself knows, or with an error if the link is or goes down, or is
	// closed. It is called as the Receiver is, one at a time with it, and not by Flush
	// itself; of a link that is closed already, by a goroutine of its own. done must not
	// block.
	Flush(done func(error))

	// MaxSize is how many bytes Publish takes at most; more is an error of its. It is
	// at least 4 KiB and may change when the link comes up.
	MaxSize() int

	// Close publishes what waits, for a second at most, and ends the link. When it
	// returns the Receiver is not called any more, and Publish returns ErrLinkDown.
	// Further calls do nothing. It must not be called by the Receiver.
	Close()
}

// Receiver is told what a Link hears. Its methods are called one at a time, and come
// back soon: they wait for nothing.
type Receiver interface {
	// Receive is called for every message, in order. data is valid only during the call.
	Receive(data []byte)

	// Up is called when the link has come up after Down, and all that was subscribed to is
	// in force as far as the broker itself knows.
	Up()

	// Down is called when the link goes down, with the reason, and before anything else if
	// it is not up from the beginning. It may be called again while the link is down, if
	// there is another reason. Between Down and Up messages may be lost.
	Down(why error)

	// Missed is called when messages were lost because more came than were received in
	// time, with how many.
	Missed(n int)
}

var (
	// ErrLinkDown is returned while a broker cannot be reached.
	ErrLinkDown = errors.New("the broker cannot be reached")

	// ErrLinkFull is returned when more waits to be published than the broker keeps.
	ErrLinkFull = errors.New("too much waits to be published to the broker")
)
