package httpapi

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// maxDepth is how deep a body may be nested, "json" of a message excepted. Merging
// a session takes time for each level.
const maxDepth = 32

// decode reads the JSON object body into what v points to. It is stricter than
// encoding/json, of which one typo would go unnoticed that makes a command mean
// something else: names must be known, and exact, and come once.
func decode(body []byte, v any) error {
	if !utf8.Valid(body) {
		return invalid(CodeMalformed, "the body is not UTF-8")
	}
	var whole json.RawMessage
	if err := json.Unmarshal(body, &whole); err != nil {
		return notJSON(body, err)
	}
	s := &strict{dec: json.NewDecoder(bytes.NewReader(body))}
	s.dec.UseNumber()
	if err := s.value(reflect.TypeOf(v).Elem(), false); err != nil {
		return err
	}
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.UseNumber() // an id of 64 bits stays what it is
	if err := dec.Decode(v); err != nil {
		return undecodable(err)
	}
	return nil
}

func notJSON(body []byte, err error) error {
	syntax, ok := errors.AsType[*json.SyntaxError](err)
	switch {
	case len(bytes.TrimSpace(body)) == 0:
		return invalid(CodeMalformed, "the body is empty: an object belongs there")
	case ok:
		return invalid(CodeMalformed, "the body is not JSON: %s, at byte %d", strings.TrimPrefix(syntax.Error(), "json: "), syntax.Offset)
	}
	return invalid(CodeMalformed, "the body is not JSON: %v", err)
}

// undecodable is what strict does not see: base64 and numbers.
func undecodable(err error) error {
	if wrong, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		return invalid(CodeMalformed, "%s: a %s does not fit here", wrong.Field, wrong.Value)
	}
	if bad, ok := errors.AsType[base64.CorruptInputError](err); ok {
		return invalid(CodeMalformed, "binary: not base64 (RFC 4648 section 4, with padding): %v", bad)
	}
	return invalid(CodeMalformed, "the body cannot be read: %s", strings.TrimPrefix(err.Error(), "json: "))
}

// strict compares JSON, whose syntax is known to be right, with a Go type.
type strict struct {
	dec  *json.Decoder
	path []step
}

// step leads into an object, by name, or into a list.
type step struct {
	name  string
	index int
	list  bool
}

// where returns the path for an error, as "commands[3].send.to".
func (s *strict) where() string {
	var b strings.Builder
	for _, p := range s.path {
		switch {
		case p.list:
			fmt.Fprintf(&b, "[%d]", p.index)
		case b.Len() > 0:
			fmt.Fprintf(&b, ".%.50s", p.name)
		default:
			fmt.Fprintf(&b, "%.50s", p.name)
		}
	}
	if b.Len() == 0 {
		return "the body"
	}
	return b.String()
}

func (s *strict) inside(p step, t reflect.Type, null bool) error {
	if len(s.path) >= maxDepth {
		return invalid(CodeMalformed, "%s: nested deeper than %d levels", s.where(), maxDepth)
	}
	s.path = append(s.path, p)
	err := s.value(t, null)
	s.path = s.path[:len(s.path)-1]
	return err
}

var (
	rawType   = reflect.TypeFor[json.RawMessage]()
	anyType   = reflect.TypeFor[any]()
	bytesType = reflect.TypeFor[[]byte]()
)

// value checks the next value. null tells whether it may be null.
func (s *strict) value(t reflect.Type, null bool) error {
	if t == rawType { // goes on as it stands
		var raw json.RawMessage
		return s.broken(s.dec.Decode(&raw))
	}
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	token, err := s.dec.Token()
	if err != nil {
		return s.broken(err)
	}
	if token == nil && (null || t == anyType) {
		return nil
	}
	if found, want := nameOf(token), wanted(t); t != anyType && found != want {
		return invalid(CodeMalformed, "%s: found %s, want %s", s.where(), found, want)
	}
	switch token := token.(type) {
	case json.Delim:
		if token == '{' {
			return s.object(t)
		}
		return s.list(t)
	case json.Number:
		return s.number(token, t)
	}
	return nil
}

func (s *strict) object(t reflect.Type) error {
	var known map[string]reflect.Type
	inner := anyType
	switch t.Kind() {
	case reflect.Struct:
		known = fieldsOf(t)
	case reflect.Map:
		inner = t.Elem()
	default: // any
	}
	seen := make(map[string]struct{})
	for s.dec.More() {
		token, err := s.dec.Token()
		if err != nil {
			return s.broken(err)
		}
		name, _ := token.(string) // the syntax is right
		if _, twice := seen[name]; twice {
			return invalid(CodeMalformed, "%s: the field %.50q comes twice", s.where(), name)
		}
		seen[name] = struct{}{}
		if known != nil {
			var ok bool
			if inner, ok = known[name]; !ok {
				return s.unknown(name, known)
			}
		}
		if err := s.inside(step{name: name}, inner, true); err != nil {
			return err
		}
	}
	_, err := s.dec.Token()
	return s.broken(err)
}

func (s *strict) unknown(name string, known map[string]reflect.Type) error {
	allowed := slices.Sorted(maps.Keys(known))
	if len(allowed) == 0 {
		allowed = []string{"none"}
	}
	return invalid(CodeUnknownField, "%s: unknown field %.50q: allowed are %s", s.where(), name, strings.Join(allowed, ", "))
}

func (s *strict) list(t reflect.Type) error {
	inner := anyType
	if t.Kind() == reflect.Slice {
		inner = t.Elem()
	}
	for i := 0; s.dec.More(); i++ {
		if err := s.inside(step{index: i, list: true}, inner, false); err != nil {
			return err
		}
	}
	_, err := s.dec.Token()
	return s.broken(err)
}

// number refuses what would be kept and could not be read back.
func (s *strict) number(n json.Number, t reflect.Type) error {
	if t == anyType {
		if f, err := n.Float64(); err != nil || math.IsInf(f, 0) {
			return invalid(CodeMalformed, "%s: the number %.30s is too large", s.where(), n)
		}
		return nil
	}
	if _, err := strconv.Atoi(n.String()); err != nil {
		return invalid(CodeMalformed, "%s: %.30s is no whole number that fits", s.where(), n)
	}
	return nil
}

// broken is for what cannot be, since the syntax was found to be right.
func (s *strict) broken(err error) error {
	if err == nil || errors.Is(err, io.EOF) {
		return nil
	}
	return invalid(CodeMalformed, "%s: %v", s.where(), err)
}

// fieldsOf returns the fields of a struct by their names in JSON.
func fieldsOf(t reflect.Type) map[string]reflect.Type {
	fields := make(map[string]reflect.Type, t.NumField())
	for f := range t.Fields() {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		fields[name] = f.Type
	}
	return fields
}

// Words for what JSON has.
const (
	wordObject = "an object"
	wordList   = "a list"
	wordText   = "text"
	wordNumber = "a number"
	wordFlag   = "true or false"
	wordNull   = "null"
)

func nameOf(token json.Token) string {
	switch token := token.(type) {
	case json.Delim:
		if token == '{' {
			return wordObject
		}
		return wordList
	case string:
		return wordText
	case bool:
		return wordFlag
	case nil:
		return wordNull
	}
	return wordNumber
}

func wanted(t reflect.Type) string {
	switch t.Kind() {
	case reflect.String:
		return wordText
	case reflect.Bool:
		return wordFlag
	case reflect.Int:
		return wordNumber
	case reflect.Slice:
		if t == bytesType {
			return wordText
		}
		return wordList
	default:
		return wordObject
	}
}
