package load

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

// Dialect is what a server is told so that connections are members of groups and messages are
// sent to these, and what it answers. The generator has no other notion of a server.
type Dialect struct {
	// hello is the frame that a connection begins with, which is answered; nil if there is none.
	hello []byte

	// join returns the frame that puts a connection into groups, and how many messages answer it.
	join func(groups ...string) (frame []byte, answers int)

	// send returns the frame that has a message sent to the members of a group. One message
	// answers it, when the server thinks that it is done.
	send func(group string, message []byte) []byte

	// toUser is send to a user, and nil if connections cannot be users.
	toUser func(user string, message []byte) []byte

	// settle is answered when the server knows so many others, and when they send it what is
	// for the groups that were joined there. It is nil if servers cannot be joined.
	settle func(others int) []byte

	// lines says that a text holds several messages, one on each line.
	lines bool
}

// Plain is the dialect of servers that were written for this generator. A connection is in the
// groups, and belongs to the users, that its query names (?group=all&user=anna), and is in the
// groups of a message "j GROUP GROUP...". A message "s GROUP MESSAGE" has MESSAGE sent to all
// members of GROUP, "u USER MESSAGE" to a user, and "w N" is settle. A message answers each.
var Plain = &Dialect{
	join: func(groups ...string) ([]byte, int) {
		return Binary([]byte("j " + strings.Join(groups, " "))), 1
	},
	send: func(group string, message []byte) []byte {
		return Binary(fmt.Appendf(nil, "s %s %s", group, message))
	},
	toUser: func(user string, message []byte) []byte {
		return Binary(fmt.Appendf(nil, "u %s %s", user, message))
	},
	settle: func(others int) []byte {
		return Binary(fmt.Appendf(nil, "w %d", others))
	},
}

// Centrifuge is the protocol of Centrifugo's clients as JSON, which is what they speak unless
// told otherwise: groups are channels, and a message is a JSON string. Several commands may
// be in one frame, and so may several replies and pushes. The server must allow clients to
// publish, and must not ping: that would be taken for a message.
var Centrifuge = &Dialect{
	hello: frame(opText, []byte(`{"id":1,"connect":{}}`)),
	join: func(groups ...string) ([]byte, int) {
		commands := make([]string, len(groups))
		for i, group := range groups {
			commands[i] = fmt.Sprintf(`{"id":2,"subscribe":{"channel":%q}}`, group)
		}
		return frame(opText, []byte(strings.Join(commands, "\n"))), len(groups)
	},
	send: func(group string, message []byte) []byte {
		data, _ := json.Marshal(string(message)) // it cannot fail for a string
		return frame(opText, fmt.Appendf(nil, `{"id":3,"publish":{"channel":%q,"data":%s}}`, group, data))
	},
	lines: true,
}

// dialect returns that of the target, which is Plain unless told otherwise.
func (t *Target) dialect() *Dialect {
	if t.Dialect == nil {
		return Plain
	}
	return t.Dialect
}

// greet begins to speak a dialect.
func (c *Conn) greet(d *Dialect) error {
	c.counter.lines = d.lines
	if d.hello == nil {
		return nil
	}
	if err := c.ask(d.hello, 1); err != nil {
		return fmt.Errorf("waiting for the answer to the first message: %w", err)
	}
	return nil
}

// ask sends a frame and waits for so many messages.
func (c *Conn) ask(frame []byte, answers int) error {
	if answers == 0 {
		return nil // nothing was to be asked for
	}
	if err := c.conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	if err := c.send(frame, 1); err != nil {
		return err
	}
	for answers > 0 {
		n, err := c.receive()
		if err != nil {
			return fmt.Errorf("waiting for %d more answers: %w", answers, err)
		}
		answers -= n
	}
	return c.conn.SetDeadline(time.Time{})
}
