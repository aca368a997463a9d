package gateway

import (
	"bytes"
	"compress/flate"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
)

// Compression is permessage-deflate (RFC 7692) without context takeover: what
// one message was compressed with is not kept for the next, so that an idle
// connection holds no window of its own.
type Compression struct {
	// Level is 1 (fast) to 9 (small). Zero turns compression off.
	Level int

	// MinSize is how many bytes a message must have to be compressed. Zero means
	// 512; negative is an error.
	MinSize int64
}

// DefaultCompressionMinSize is the default of Compression.MinSize: below it,
// compression costs more than it saves.
const DefaultCompressionMinSize = 512

func (c Compression) withDefaults() (Compression, error) {
	if c.Level < 0 || c.Level > flate.BestCompression {
		return c, fmt.Errorf("compression level %d: allowed are 1 to 9, or 0 for none", c.Level)
	}
	if c.MinSize < 0 {
		return c, fmt.Errorf("compression minimum size %d: allowed are positive sizes, or 0 for %d", c.MinSize, DefaultCompressionMinSize)
	}
	if c.MinSize == 0 {
		c.MinSize = DefaultCompressionMinSize
	}
	return c, nil
}

// acceptDeflate looks for an offer of permessage-deflate that can be honoured
// and returns the answer to it (RFC 7692 section 7.1), or "". An offer that
// demands a smaller window of the server is declined, since compress/flate has
// but one size, and so is one with parameters that the RFC does not know.
func acceptDeflate(h http.Header) string {
	for offer := range listItems(h, "Sec-Websocket-Extensions") {
		if answer, ok := acceptOffer(offer); ok {
			return answer
		}
	}
	return ""
}

func acceptOffer(offer string) (answer string, ok bool) {
	params := strings.Split(offer, ";")
	if strings.TrimSpace(params[0]) != "permessage-deflate" {
		return "", false
	}
	answer = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
	var seen []string
	for _, param := range params[1:] {
		name, value, hasValue := strings.Cut(param, "=")
		name, value = strings.TrimSpace(name), strings.Trim(strings.TrimSpace(value), `"`)
		if slices.Contains(seen, name) {
			return "", false
		}
		seen = append(seen, name)
		switch name {
		case "server_no_context_takeover", "client_no_context_takeover":
			if hasValue {
				return "", false
			}
		case "client_max_window_bits": // a hint that may be ignored
			if hasValue && !isWindowBits(value) {
				return "", false
			}
		case "server_max_window_bits":
			const full = "15"
			if value != full {
				return "", false
			}
			answer += "; server_max_window_bits=" + full
		default:
			return "", false
		}
	}
	return answer, true
}

// isWindowBits tells whether s is 8 to 15, without leading zeros.
func isWindowBits(s string) bool {
	return len(s) == 1 && (s[0] == '8' || s[0] == '9') || len(s) == 2 && s[0] == '1' && '0' <= s[1] && s[1] <= '5'
}

// compressors hold a writer for each level; one weighs hundreds of kilobytes.
var compressors [flate.BestCompression + 1]sync.Pool

// deflate returns data as the payload of a compressed message (RFC 7692 section
// 7.2.1).
func deflate(data []byte, level int) ([]byte, error) {
	var out bytes.Buffer
	w, _ := compressors[level].Get().(*flate.Writer)
	if w == nil {
		var err error
		if w, err = flate.NewWriter(&out, level); err != nil {
			return nil, fmt.Errorf("compressing at level %d: %w", level, err)
		}
	} else {
		w.Reset(&out)
	}
	defer func() {
		w.Reset(io.Discard) // keeps nothing of this message
		compressors[level].Put(w)
	}()
	if _, err := w.Write(data); err != nil {
		return nil, fmt.Errorf("compressing: %w", err)
	}
	if err := w.Flush(); err != nil {
		return nil, fmt.Errorf("compressing: %w", err)
	}
	const tail = "\x00\x00\xff\xff"
	return bytes.TrimSuffix(out.Bytes(), []byte(tail)), nil
}

// isCorrupt tells whether an error of reading a message is about its compressed
// data. (gorilla reports a connection that ends inside a message as a
// CloseError.)
func isCorrupt(err error) bool {
	_, corrupt := errors.AsType[flate.CorruptInputError](err)
	return corrupt || err == io.ErrUnexpectedEOF //nolint:errorlint // that of compress/flate itself
}
