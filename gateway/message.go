package gateway

import (
	"encoding/json"
	"fmt"
	"unicode/utf8"
)

// MessageType tells text from binary messages. The values are the opcodes of
// RFC 6455 section 5.2.
type MessageType uint8

const (
	// TextMessage carries UTF-8 text. What is not valid UTF-8 never reaches
	// logic: the client is closed with 1007 (RFC 6455 section 8.1).
	TextMessage MessageType = 1

	// BinaryMessage carries bytes that the gateway does not interpret.
	BinaryMessage MessageType = 2
)

// String returns "text" or "binary".
func (t MessageType) String() string {
	switch t {
	case TextMessage:
		return "text"
	case BinaryMessage:
		return "binary"
	}
	return fmt.Sprintf("message type %d", uint8(t))
}

// Message is one whole WebSocket message: fragments are joined, compression is
// undone. The receiver owns Data; a sender may reuse it as soon as the sending
// call has returned.
type Message struct {
	Type MessageType
	Data []byte
}

// Text returns a text message. The text must be valid UTF-8; sending anything
// else fails with ErrNotUTF8.
func Text(s string) Message { return Message{Type: TextMessage, Data: []byte(s)} }

// Binary returns a binary message that carries b. It does not copy: sending
// does.
func Binary(b []byte) Message { return Message{Type: BinaryMessage, Data: b} }

// JSON returns a text message that carries v as encoding/json writes it.
func JSON(v any) (Message, error) {
	data, err := json.Marshal(v)
	if err != nil {
		return Message{}, fmt.Errorf("encoding a message: %w", err)
	}
	return Message{Type: TextMessage, Data: data}, nil
}

// check tells whether the message may be sent.
func (m Message) check() error {
	switch m.Type {
	case TextMessage:
		if !utf8.Valid(m.Data) {
			return fmt.Errorf("text message: %w", ErrNotUTF8)
		}
	case BinaryMessage:
	default:
		return fmt.Errorf("%s: allowed are text and binary", m.Type)
	}
	return nil
}

// String returns the data as text, whatever the type.
func (m Message) String() string { return string(m.Data) }
