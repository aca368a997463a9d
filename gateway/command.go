package gateway

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
)

// Command is one command as data, for programs elsewhere: the push API, webhooks,
// the command line. Exactly one of its fields is set.
//
//	{"send": {"to": {"users": ["7"]}, "text": "hello"}}
type Command struct {
	Send          *SendCommand    `json:"send,omitempty"`
	Close         *CloseCommand   `json:"close,omitempty"`
	Join          *GroupsCommand  `json:"join,omitempty"`
	Leave         *GroupsCommand  `json:"leave,omitempty"`
	Bind          *BindCommand    `json:"bind,omitempty"`
	Unbind        *UnbindCommand  `json:"unbind,omitempty"`
	SetSession    *SessionCommand `json:"set_session,omitempty"`
	UpdateSession *SessionCommand `json:"update_session,omitempty"`
}

// SendCommand is Gateway.Send. Exactly one of Text, Binary and JSON is set.
type SendCommand struct {
	To Target `json:"to"`

	// Text is sent as it is, in a text message.
	Text *string `json:"text,omitempty"`

	// Binary is sent in a binary message; in JSON it is base64 (RFC 4648 section 4).
	Binary *[]byte `json:"binary,omitempty"`

	// JSON is sent as it stands, in a text message.
	JSON json.RawMessage `json:"json,omitempty"`
}

// CloseCommand is Gateway.Close.
type CloseCommand struct {
	To Target `json:"to"`

	// Code is the close code. Zero means 1000.
	Code int `json:"code,omitempty"`

	// Reason goes with it, at most 123 bytes.
	Reason string `json:"reason,omitempty"`
}

// GroupsCommand is Gateway.Join or Gateway.Leave.
type GroupsCommand struct {
	To     Target   `json:"to"`
	Groups []string `json:"groups"`
}

// BindCommand is Gateway.Bind.
type BindCommand struct {
	To   Target `json:"to"`
	User string `json:"user"`
}

// UnbindCommand is Gateway.Unbind.
type UnbindCommand struct {
	To Target `json:"to"`
}

// SessionCommand is Gateway.SetSession or Gateway.UpdateSession.
type SessionCommand struct {
	To      Target         `json:"to"`
	Session map[string]any `json:"session"`
}

// Message returns the message that the command sends.
func (s *SendCommand) Message() (Message, error) {
	given := 0
	var m Message
	if s.Text != nil {
		given++
		m = Text(*s.Text)
	}
	if s.Binary != nil {
		given++
		m = Binary(*s.Binary)
	}
	if s.JSON != nil {
		if !json.Valid(s.JSON) {
			return m, errors.New("json: not valid JSON")
		}
		given++
		m = Message{Type: TextMessage, Data: s.JSON}
	}
	if given != 1 {
		return m, fmt.Errorf("a message has one of text, binary and json: found %d of them", given)
	}
	return m, nil
}

// step is a command, ready to be done on this node.
type step struct {
	to *Target
	do func(here) (int, error)
}

// step returns the one command that is set. m is what Send sends.
func (c *Command) step(m func() (Message, error)) (step, error) {
	var steps []step
	add := func(to *Target, do func(here) (int, error)) { steps = append(steps, step{to, do}) }
	if s := c.Send; s != nil {
		add(&s.To, func(h here) (int, error) {
			message, err := m()
			if err != nil {
				return 0, err
			}
			return h.send(&s.To, message)
		})
	}
	if s := c.Close; s != nil {
		add(&s.To, func(h here) (int, error) { return h.close(&s.To, cmp.Or(s.Code, CloseNormal), s.Reason) })
	}
	if s := c.Join; s != nil {
		add(&s.To, func(h here) (int, error) { return h.join(&s.To, s.Groups) })
	}
	if s := c.Leave; s != nil {
		add(&s.To, func(h here) (int, error) { return h.leave(&s.To, s.Groups) })
	}
	if s := c.Bind; s != nil {
		add(&s.To, func(h here) (int, error) { return h.bind(&s.To, s.User) })
	}
	if s := c.Unbind; s != nil {
		add(&s.To, func(h here) (int, error) { return h.unbind(&s.To) })
	}
	if s := c.SetSession; s != nil {
		add(&s.To, func(h here) (int, error) { return h.setSession(&s.To, s.Session) })
	}
	if s := c.UpdateSession; s != nil {
		add(&s.To, func(h here) (int, error) { return h.updateSession(&s.To, s.Session) })
	}
	if len(steps) != 1 {
		return step{}, errors.New("a command is one of send, close, join, leave, bind, unbind, set_session, update_session")
	}
	return steps[0], nil
}

// message returns what the command sends; none if it sends nothing.
func (c *Command) message() (Message, error) {
	if c.Send == nil {
		return Message{}, nil
	}
	return c.Send.Message()
}

// Target returns whom the command addresses, to be looked at or narrowed. It is
// nil unless exactly one command is set.
func (c *Command) Target() *Target {
	s, err := c.step(c.message)
	if err != nil {
		return nil
	}
	return s.to
}

// complete tells whether what the command needs beside a target is there.
func (c *Command) complete() error {
	for _, of := range []*GroupsCommand{c.Join, c.Leave} {
		if of != nil && len(of.Groups) == 0 {
			return errors.New("groups: name at least one")
		}
	}
	for _, of := range []*SessionCommand{c.SetSession, c.UpdateSession} {
		if of != nil && of.Session == nil {
			return errors.New("session: an object is missing; an empty one is {}")
		}
	}
	return nil
}

// Do does a command and returns how many clients of this node it reached, as the
// method of its name does.
func (g *Gateway) Do(c *Command) (int, error) {
	if err := c.complete(); err != nil {
		return 0, err
	}
	return g.do(c)
}

func (g *Gateway) do(c *Command) (int, error) {
	n, to, err := g.doHere(c)
	if to == nil {
		return 0, err
	}
	return n, errors.Join(err, g.cluster.command(c, to))
}

// doHere does a command for clients of this node. to is nil if it cannot be done.
func (g *Gateway) doHere(c *Command) (n int, to *Target, err error) {
	s, err := c.step(c.message)
	if err != nil {
		return 0, nil, err
	}
	if n, err = s.do(here{g.shared}); err != nil && !isPartial(err) {
		return 0, nil, err
	}
	return n, s.to, err
}

// DoWait does a command, waits for the nodes that have heard it, until ctx is done or for
// AnswerTimeout if it has no deadline, and returns how many clients it reached on all of
// them. The error is that of Do, or another node's.
func (g *Gateway) DoWait(ctx context.Context, c *Command) (Reach, error) {
	if err := c.complete(); err != nil {
		return Reach{}, err
	}
	n, to, err := g.doHere(c)
	if to == nil {
		return Reach{}, err
	}
	reach, theirs := g.cluster.commandWait(ctx, c, to)
	reach.Clients += n
	return reach, errors.Join(err, theirs)
}
