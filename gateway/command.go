package gateway

import (
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

func (s *GroupsCommand) each(do func(*Gateway, Target, ...string) (int, error)) func(*Gateway, Target) (int, error) {
	return func(g *Gateway, to Target) (int, error) {
		if len(s.Groups) == 0 {
			return 0, errors.New("groups: name at least one")
		}
		return do(g, to, s.Groups...)
	}
}

func (s *SessionCommand) with(do func(*Gateway, Target, map[string]any) (int, error)) func(*Gateway, Target) (int, error) {
	return func(g *Gateway, to Target) (int, error) {
		if s.Session == nil {
			return 0, errors.New("session: an object is missing; an empty one is {}")
		}
		return do(g, to, s.Session)
	}
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

// step is a command, ready to be done.
type step struct {
	to *Target
	do func(g *Gateway, to Target) (int, error)
}

// step returns the one command that is set.
func (c *Command) step() (step, error) {
	var steps []step
	add := func(to *Target, do func(g *Gateway, to Target) (int, error)) { steps = append(steps, step{to, do}) }
	if s := c.Send; s != nil {
		add(&s.To, func(g *Gateway, to Target) (int, error) {
			m, err := s.Message()
			if err != nil {
				return 0, err
			}
			return g.Send(to, m)
		})
	}
	if s := c.Close; s != nil {
		add(&s.To, func(g *Gateway, to Target) (int, error) {
			if s.Code == 0 {
				return g.Close(to, CloseNormal, s.Reason)
			}
			return g.Close(to, s.Code, s.Reason)
		})
	}
	if s := c.Join; s != nil {
		add(&s.To, s.each((*Gateway).Join))
	}
	if s := c.Leave; s != nil {
		add(&s.To, s.each((*Gateway).Leave))
	}
	if s := c.Bind; s != nil {
		add(&s.To, func(g *Gateway, to Target) (int, error) { return g.Bind(to, s.User) })
	}
	if s := c.Unbind; s != nil {
		add(&s.To, (*Gateway).Unbind)
	}
	if s := c.SetSession; s != nil {
		add(&s.To, s.with((*Gateway).SetSession))
	}
	if s := c.UpdateSession; s != nil {
		add(&s.To, s.with((*Gateway).UpdateSession))
	}
	if len(steps) != 1 {
		return step{}, errors.New("a command is one of send, close, join, leave, bind, unbind, set_session, update_session")
	}
	return steps[0], nil
}

// Target returns whom the command addresses, to be looked at or narrowed. It is
// nil unless exactly one command is set.
func (c *Command) Target() *Target {
	s, err := c.step()
	if err != nil {
		return nil
	}
	return s.to
}

// Do does a command and returns how many clients it reached, as the method of
// its name does.
func (g *Gateway) Do(c *Command) (int, error) {
	s, err := c.step()
	if err != nil {
		return 0, err
	}
	return s.do(g, *s.to)
}
