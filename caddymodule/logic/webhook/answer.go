package webhook

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/caddy-websocket/caddy-websocket/gateway"
)

// maxAnswer bounds what is read of an answer, in bytes.
const maxAnswer = 1 << 20

// answer is what the backend wants done. Nothing at all is an answer, too.
type answer struct {
	// The client's identity, in the answer to connect.
	User    *string         `json:"user"`
	Groups  []string        `json:"groups"`
	Session json.RawMessage `json:"session"`

	Commands []gateway.Command `json:"commands"`
}

// parseAnswer reads the body of an answer. A misspelt name is an error: what it was
// to do would not be done, and nobody would know.
func parseAnswer(body []byte) (*answer, error) {
	a := new(answer)
	if body = bytes.TrimSpace(body); len(body) == 0 || string(body) == "[]" { // PHP's empty array
		return a, nil
	}
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.DisallowUnknownFields()
	dec.UseNumber() // a large id in a session stays what it is
	if err := dec.Decode(a); err != nil {
		return nil, fmt.Errorf("answer is not understood (allowed are commands, and after connect user, groups, session): %w", err)
	}
	if _, err := dec.Token(); err != io.EOF {
		return nil, errors.New("answer is more than one JSON object")
	}
	return a, nil
}

// onlyCommands tells whether the answer fits another event than connect.
func (a *answer) onlyCommands() error {
	if a.User != nil || a.Groups != nil || a.Session != nil && string(a.Session) != "null" {
		return errors.New("answer has user, groups or session, which belong to the answer to connect: use the commands bind, join, update_session")
	}
	return nil
}

// admit gives the client its identity.
func (a *answer) admit(c *gateway.Client) error {
	if a.User != nil && *a.User != "" {
		if err := c.Bind(*a.User); err != nil {
			return fmt.Errorf("user of the answer: %w", err)
		}
	}
	if len(a.Groups) > 0 {
		if err := c.Join(a.Groups...); err != nil {
			return fmt.Errorf("groups of the answer: %w", err)
		}
	}
	if raw := bytes.TrimSpace(a.Session); len(raw) > 0 && string(raw) != "[]" { // PHP's empty array
		var patch map[string]any
		dec := json.NewDecoder(bytes.NewReader(raw))
		dec.UseNumber()
		if err := dec.Decode(&patch); err != nil {
			return fmt.Errorf("session of the answer is not an object: %w", err)
		}
		if err := c.Session().Update(patch); err != nil {
			return fmt.Errorf("session of the answer: %w", err)
		}
	}
	return nil
}

// do does commands. One that cannot be done is logged, and the others are done all
// the same. That other nodes could not be reached is said by the gateway, once.
func (b *backend) do(g *gateway.Gateway, commands []gateway.Command, about []any) {
	for i := range commands {
		_, err := g.Do(&commands[i])
		if err = gateway.Failure(err); err != nil {
			b.logError("command of the backend's answer failed", append([]any{"command", i, "error", err.Error()}, about...)...)
		}
	}
}
