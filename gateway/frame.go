package gateway

import "encoding/binary"

// Opcodes of RFC 6455 section 5.2, and the bits of a frame's first two bytes.
const (
	opContinuation = 0x0
	opText         = 0x1
	opBinary       = 0x2
	opClose        = 0x8
	opPing         = 0x9
	opPong         = 0xA

	bitFIN  = 0x80
	bitRSV1 = 0x40
	bitMask = 0x80

	maskingKey        = 4 // bytes, before the payload of what a client sends
	maxControlPayload = 125
	maxServerHeader   = 10 // two bytes and a 64-bit length; a server masks nothing
)

// newFrame returns an unfragmented, unmasked frame that carries a copy of
// payload, with its length in the fewest bytes (RFC 6455 section 5.2).
func newFrame(op byte, payload []byte) []byte {
	f := make([]byte, 2, maxServerHeader+len(payload))
	f[0] = bitFIN | op
	switch n := len(payload); {
	case n <= maxControlPayload:
		f[1] = byte(n)
	case n <= 0xFFFF:
		f[1] = 126
		f = binary.BigEndian.AppendUint16(f, uint16(n))
	default:
		f[1] = 127
		f = binary.BigEndian.AppendUint64(f, uint64(n))
	}
	return append(f, payload...)
}

// newCloseFrame returns a close frame; CloseNoStatus gives an empty one.
func newCloseFrame(code int, reason string) []byte {
	if code == CloseNoStatus {
		return newFrame(opClose, nil)
	}
	payload := binary.BigEndian.AppendUint16(make([]byte, 0, 2+len(reason)), uint16(code)) //nolint:gosec // checkClose bounds what is sent, gorilla what is echoed
	return newFrame(opClose, append(payload, reason...))
}
