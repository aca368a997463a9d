package gateway

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"sync"
)

// Session is the key-value data of one client. It is set at the handshake and
// by logic, and other programs can read and write it through the gateway, so
// its values are JSON values. It lives and ends with the client and stays
// readable in OnClose.
//
// All methods are safe for concurrent use. A change that would make the whole
// larger than MaxSessionSize fails and changes nothing.
type Session struct {
	mu     sync.RWMutex
	values map[string]json.RawMessage // guarded by mu; a stored value is never written to
	size   int                        // guarded by mu; of values as a JSON object
}

// Get returns the value of key as encoding/json decodes it into an any: nil,
// bool, float64, string, []any or map[string]any. It is nil if there is none;
// Lookup tells the two apart.
func (s *Session) Get(key string) any {
	v, _ := s.Lookup(key)
	return v
}

// Lookup is Get and whether there is a value.
func (s *Session) Lookup(key string) (any, bool) {
	raw, ok := s.raw(key)
	return decodeAny(raw), ok
}

// Text returns the value of key as text: a string without its quotes, any other
// value as JSON, and "" if there is none.
func (s *Session) Text(key string) string {
	raw, _ := s.raw(key)
	return textOf(raw)
}

// Decode stores the value of key in v, as json.Unmarshal does. It reports
// whether there was one.
func (s *Session) Decode(key string, v any) (bool, error) {
	raw, ok := s.raw(key)
	if !ok {
		return false, nil
	}
	if err := json.Unmarshal(raw, v); err != nil {
		return true, fmt.Errorf("decoding session entry %q: %w", key, err)
	}
	return true, nil
}

func (s *Session) raw(key string) (json.RawMessage, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	raw, ok := s.values[key]
	return raw, ok
}

// Set stores value, which encoding/json must be able to encode, under key.
func (s *Session) Set(key string, value any) error {
	return s.change(func(values map[string]json.RawMessage) error {
		return setValue(values, key, value)
	})
}

// Delete removes key. It does nothing if there is no such entry.
func (s *Session) Delete(key string) {
	_ = s.change(func(values map[string]json.RawMessage) error { // a smaller session cannot be too large
		delete(values, key)
		return nil
	})
}

// Replace makes values the whole session.
func (s *Session) Replace(values map[string]any) error {
	return s.change(func(old map[string]json.RawMessage) error {
		clear(old)
		for key, v := range values {
			if err := setValue(old, key, v); err != nil {
				return err
			}
		}
		return nil
	})
}

// Update merges patch into the session as RFC 7396 says: null deletes, objects
// are merged entry by entry, everything else replaces.
func (s *Session) Update(patch map[string]any) error {
	raw, err := json.Marshal(patch)
	if err != nil {
		return fmt.Errorf("encoding a session patch: %w", err)
	}
	if err := checkValue(raw); err != nil {
		return fmt.Errorf("session patch: %w", err)
	}
	var entries map[string]json.RawMessage
	if err := json.Unmarshal(raw, &entries); err != nil {
		return fmt.Errorf("decoding a session patch: %w", err)
	}
	return s.change(func(values map[string]json.RawMessage) error {
		for key, p := range entries {
			if isNull(p) {
				delete(values, key)
				continue
			}
			if err := checkName("session entry", key); err != nil {
				return err
			}
			merged, err := mergePatch(values[key], p)
			if err != nil {
				return fmt.Errorf("session entry %q: %w", key, err)
			}
			values[key] = merged
		}
		return nil
	})
}

// All returns a copy of the whole session.
func (s *Session) All() map[string]any {
	values := s.Values()
	all := make(map[string]any, len(values))
	for key := range values {
		all[key] = values.Get(key)
	}
	return all
}

// Values returns a copy of the whole session as it is stored.
func (s *Session) Values() Values {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return maps.Clone(s.values)
}

// Values are the entries of a session at one moment, as JSON: numbers have all their
// digits.
type Values map[string]json.RawMessage

// Get returns the value of key as Session.Get does.
func (v Values) Get(key string) any { return decodeAny(v[key]) }

// Text returns the value of key as Session.Text does.
func (v Values) Text(key string) string { return textOf(v[key]) }

// String returns the entries as a JSON object.
func (v Values) String() string {
	if v == nil {
		return "{}"
	}
	raw, err := json.Marshal(map[string]json.RawMessage(v))
	if err != nil {
		return err.Error() // cannot happen: only valid JSON is stored
	}
	return string(raw)
}

func decodeAny(raw json.RawMessage) any {
	var v any
	if len(raw) == 0 || json.Unmarshal(raw, &v) != nil { // only valid JSON is stored
		return nil
	}
	return v
}

func textOf(raw json.RawMessage) string {
	if len(raw) > 0 && raw[0] == '"' {
		var text string
		if err := json.Unmarshal(raw, &text); err == nil {
			return text
		}
	}
	return string(raw)
}

// MarshalJSON returns the session as one JSON object.
func (s *Session) MarshalJSON() ([]byte, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.values == nil {
		return []byte("{}"), nil
	}
	return json.Marshal(s.values)
}

// change lets f work on a copy and takes the copy if it is not too large.
func (s *Session) change(f func(map[string]json.RawMessage) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	values := maps.Clone(s.values)
	if values == nil {
		values = make(map[string]json.RawMessage, 1)
	}
	if err := f(values); err != nil {
		return err
	}
	size := len("{}")
	for key, raw := range values {
		size += len(key) + len(raw) + len(`"":,`)
	}
	if size > MaxSessionSize && size > s.size {
		return fmt.Errorf("session of %d bytes: allowed are %d", size, MaxSessionSize)
	}
	s.values, s.size = values, size
	return nil
}

func setValue(values map[string]json.RawMessage, key string, value any) error {
	if err := checkName("session entry", key); err != nil {
		return err
	}
	raw, err := json.Marshal(value)
	if err != nil {
		return fmt.Errorf("encoding session entry %q: %w", key, err)
	}
	if err := checkValue(raw); err != nil {
		return fmt.Errorf("session entry %q: %w", key, err)
	}
	values[key] = raw
	return nil
}

// maxSessionDepth is how deep objects and lists of a session may lie in each
// other: a patch costs its size times its depth.
const maxSessionDepth = 32

// checkValue tells whether JSON can be stored: what reads it must be able to decode
// it, numbers included.
func checkValue(raw json.RawMessage) error {
	depth, inString := 0, false
	for i := 0; i < len(raw); i++ {
		switch b := raw[i]; {
		case inString && b == '\\':
			i++
		case b == '"':
			inString = !inString
		case !inString && (b == '{' || b == '['):
			if depth++; depth > maxSessionDepth {
				return fmt.Errorf("more than %d levels of objects and lists", maxSessionDepth)
			}
		case !inString && (b == '}' || b == ']'):
			depth--
		}
	}
	var v any
	return json.Unmarshal(raw, &v)
}

// mergePatch is the function MergePatch of RFC 7396 section 2.
func mergePatch(target, patch json.RawMessage) (json.RawMessage, error) {
	var p map[string]json.RawMessage
	if json.Unmarshal(patch, &p) != nil || p == nil {
		return bytes.Clone(patch), nil // not an object: replaces
	}
	var t map[string]json.RawMessage
	if target == nil || json.Unmarshal(target, &t) != nil || t == nil {
		t = make(map[string]json.RawMessage, len(p))
	}
	for key, v := range p {
		if isNull(v) {
			delete(t, key)
			continue
		}
		merged, err := mergePatch(t[key], v)
		if err != nil {
			return nil, err
		}
		t[key] = merged
	}
	return json.Marshal(t)
}

func isNull(raw json.RawMessage) bool { return string(raw) == "null" }
