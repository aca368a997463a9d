package gateway

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
)

// What nodes tell each other, each in an envelope:
//
//	1 byte    version
//	1 byte    kind
//	8 bytes   the sender's node
//	uvarint   the sender's number of the message, growing with each on any subject
//	          body, by kind
//
// A node of another version is not understood, and says so in the log. What JSON has
// fields for may grow within a version: unknown ones are skipped.
const envelopeVersion = 1

type envelopeKind byte

const (
	kindHello    envelopeKind = 'h' // JSON of greeting
	kindBye      envelopeKind = 'b' // nothing
	kindCommand  envelopeKind = 'c' // see appendCommand
	kindQuestion envelopeKind = 'q' // uvarint: which; JSON of question
	kindAnswer   envelopeKind = 'a' // uvarint: to which; JSON of answer
	kindWatch    envelopeKind = 'w' // JSON of watchRequest
	kindReport   envelopeKind = 'e' // uvarint: of which watch; JSON of watchReport
	kindMoved    envelopeKind = 'm' // uvarint: the number of the last message on the link before
	kindPart     envelopeKind = 'p' // uvarint: which part; uvarint: of how many; bytes of kind and body
)

// nodeLength is how many bytes a node id has.
const nodeLength = 8

// maxAssembled bounds what is put together from parts.
const maxAssembled = 64 << 20

var errEnvelope = errors.New("not understood")

type envelope struct {
	kind   envelopeKind
	node   string
	number uint64
	body   []byte
}

func appendHeader(b []byte, kind envelopeKind, node string, number uint64) []byte {
	b = append(b, envelopeVersion, byte(kind))
	b = append(b, node...)
	return binary.AppendUvarint(b, number)
}

// maxHeader is how long the header and that of a part are at most.
const maxHeader = 2 + nodeLength + 3*binary.MaxVarintLen64

func parseEnvelope(b []byte) (envelope, error) {
	if len(b) < 2+nodeLength+1 {
		return envelope{}, errEnvelope
	}
	e := envelope{kind: envelopeKind(b[1]), node: string(b[2 : 2+nodeLength])}
	if b[0] != envelopeVersion {
		return e, fmt.Errorf("version %d: %w", b[0], errEnvelope)
	}
	var err error
	e.number, e.body, err = cutUvarint(b[2+nodeLength:])
	return e, err
}

func cutUvarint(b []byte) (uint64, []byte, error) {
	v, n := binary.Uvarint(b)
	if n <= 0 {
		return 0, nil, errEnvelope
	}
	return v, b[n:], nil
}

// appendJSON writes the body of what belongs to a question or a watch: a uvarint, which;
// JSON.
func appendJSON(id uint64, v any) ([]byte, error) {
	raw, err := json.Marshal(v)
	return append(binary.AppendUvarint(nil, id), raw...), err
}

// parseJSON is the reverse of appendJSON.
func parseJSON(b []byte, v any) (id uint64, err error) {
	id, raw, err := cutUvarint(b)
	if err != nil {
		return 0, err
	}
	return id, json.Unmarshal(raw, v)
}

// appendCommand writes the body of a command: whose answer is waited for, or 0; the type
// of the message that it sends, or 0. If it sends one: the target, the message. If not:
// the command as JSON.
func appendCommand(b []byte, ask uint64, c *Command, m Message) ([]byte, error) {
	if c.Send != nil {
		return appendSend(b, ask, &c.Send.To, m), nil
	}
	raw, err := json.Marshal(c)
	if err != nil {
		return b, fmt.Errorf("encoding a command for other nodes: %w", err)
	}
	b = append(binary.AppendUvarint(b, ask), 0)
	return append(b, raw...), nil
}

func appendSend(b []byte, ask uint64, to *Target, m Message) []byte {
	b = append(binary.AppendUvarint(b, ask), byte(m.Type))
	return append(appendTarget(b, to), m.Data...)
}

// parseCommand is the reverse of appendCommand. The message's data is part of b.
func parseCommand(b []byte) (ask uint64, c *Command, m Message, err error) {
	ask, b, err = cutUvarint(b)
	if err != nil || len(b) == 0 {
		return 0, nil, m, errEnvelope
	}
	m.Type, b = MessageType(b[0]), b[1:]
	if m.Type != 0 {
		var s struct { // one allocation for both
			command Command
			send    SendCommand
		}
		s.command.Send = &s.send
		s.send.To, m.Data, err = cutTarget(b)
		return ask, &s.command, m, err
	}
	c = new(Command)
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber() // those of sessions keep their digits
	if err := d.Decode(c); err != nil {
		return 0, nil, m, fmt.Errorf("decoding a command: %w", err)
	}
	return ask, c, m, nil
}

// A target is written as: 1 for all, or 0; how many lists; each list as how many strings,
// each string as its length and bytes. A list that the reader does not know may narrow
// the target, so the message is not for him to act on unless it is empty.

// lists returns the lists of a target, in the order in which they are written.
func (t *Target) lists() [7]*[]string {
	return [...]*[]string{&t.Clients, &t.Users, &t.Groups, &t.Endpoints, &t.Nodes, &t.Except.Clients, &t.Except.Users}
}

func appendTarget(b []byte, t *Target) []byte {
	all := byte(0)
	if t.All {
		all = 1
	}
	lists := t.lists()
	b = append(b, all, byte(len(lists)))
	for _, list := range lists {
		b = binary.AppendUvarint(b, uint64(len(*list)))
		for _, s := range *list {
			b = binary.AppendUvarint(b, uint64(len(s)))
			b = append(b, s...)
		}
	}
	return b
}

// cutTarget returns the target at the beginning of b, and what comes after it.
func cutTarget(b []byte) (t Target, rest []byte, err error) {
	if len(b) < 2 {
		return t, nil, errEnvelope
	}
	t.All = b[0] == 1
	n, b := int(b[1]), b[2:]
	known := t.lists()
	for i := range n {
		var list []string
		if list, b, err = cutList(b); err != nil {
			return t, nil, err
		}
		switch {
		case i < len(known):
			*known[i] = list
		case len(list) > 0:
			return t, nil, fmt.Errorf("a target of a newer version: %w", errEnvelope)
		}
	}
	return t, b, nil
}

func cutList(b []byte) (list []string, rest []byte, err error) {
	n, b, err := cutUvarint(b)
	if err != nil || n > uint64(len(b)) { // each string has a length
		return nil, nil, errEnvelope
	}
	if n > 0 {
		list = make([]string, n)
	}
	for i := range list {
		var size uint64
		if size, b, err = cutUvarint(b); err != nil || size > uint64(len(b)) {
			return nil, nil, errEnvelope
		}
		list[i], b = string(b[:size]), b[size:]
	}
	return list, b, nil
}

// cut returns the parts that a message is published in, if it is longer than size:
// body is the envelope's, with its kind in front.
func cut(body []byte, size int) [][]byte {
	var parts [][]byte
	for chunk := size - maxHeader; len(body) > 0; {
		n := min(chunk, len(body))
		parts = append(parts, body[:n])
		body = body[n:]
	}
	return parts
}

func appendPart(b []byte, part, of int, chunk []byte) []byte {
	b = binary.AppendUvarint(b, uint64(part)) //nolint:gosec // it counts up from 0
	b = binary.AppendUvarint(b, uint64(of))   //nolint:gosec // it is a length
	return append(b, chunk...)
}

// assembly is a message of which parts have come. One sender's parts come one after
// the other: nothing of his comes between them.
type assembly struct {
	next, parts uint64
	whole       []byte
}

// add adds a part. When it was the last one it returns the message.
func (a *assembly) add(body []byte) (kind envelopeKind, whole []byte, err error) {
	part, body, err := cutUvarint(body)
	if err != nil {
		return 0, nil, err
	}
	parts, chunk, err := cutUvarint(body)
	switch {
	case err != nil:
		return 0, nil, err
	case part == 0:
		*a = assembly{parts: parts}
	case part != a.next || parts != a.parts:
		*a = assembly{}
		return 0, nil, errors.New("a part of a message was lost")
	}
	if len(a.whole)+len(chunk) > maxAssembled {
		*a = assembly{}
		return 0, nil, fmt.Errorf("a message of more than %d bytes", maxAssembled)
	}
	a.whole = append(a.whole, chunk...)
	if a.next = part + 1; a.next < parts {
		return 0, nil, nil
	}
	whole = a.whole
	*a = assembly{}
	if len(whole) == 0 {
		return 0, nil, errEnvelope
	}
	return envelopeKind(whole[0]), whole[1:], nil
}
