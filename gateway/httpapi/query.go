package httpapi

import (
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// param is a query parameter that a call knows.
type param struct {
	name  string
	many  bool // it may be repeated
	empty bool // it may be empty, which means the same as leaving it out
}

// query holds the parameters of a request, which are known to the call.
type query url.Values

// parseQuery is strict: a filter with a typo must not be a list of everybody, and
// neither must one whose value got lost.
func parseQuery(raw string, known []param) (query, error) {
	values, err := url.ParseQuery(raw)
	if err != nil {
		return nil, invalid(CodeInvalidQuery, "the query cannot be read: %.200v", err)
	}
	for name, given := range values {
		i := slices.IndexFunc(known, func(p param) bool { return p.name == name })
		switch {
		case i < 0:
			return nil, invalid(CodeInvalidQuery, "unknown parameter %.50q: allowed are %s", name, names(known))
		case len(given) > 1 && !known[i].many:
			return nil, invalid(CodeInvalidQuery, "%s: given %d times, allowed is once", name, len(given))
		case !known[i].empty && slices.Contains(given, ""):
			return nil, invalid(CodeInvalidQuery, "%s: the value is empty: leave the parameter out, or name something", name)
		case slices.ContainsFunc(given, func(s string) bool { return !utf8.ValidString(s) }):
			return nil, invalid(CodeInvalidQuery, "%s: the value is not UTF-8", name)
		}
	}
	return query(values), nil
}

func names(params []param) string {
	if len(params) == 0 {
		return "none"
	}
	all := make([]string, len(params))
	for i, p := range params {
		all[i] = p.name
	}
	return strings.Join(all, ", ")
}

func (q query) one(name string) string { return url.Values(q).Get(name) }

func (q query) number(name string) (int, error) {
	text := q.one(name)
	if text == "" {
		return 0, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 {
		return 0, invalid(CodeInvalidQuery, "%s: %.50q is no whole number", name, text)
	}
	return n, nil
}

// duration returns 0 if the parameter is missing.
func (q query) duration(name string, most time.Duration) (time.Duration, error) {
	text := q.one(name)
	if text == "" {
		return 0, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d <= 0 || d > most {
		return 0, invalid(CodeInvalidQuery, "%s: %.50q, allowed are durations like \"500ms\" up to %s", name, text, most)
	}
	return d, nil
}

func (q query) flag(name string) (bool, error) {
	switch text := q.one(name); text {
	case "", "false":
		return false, nil
	case "true":
		return true, nil
	default:
		return false, invalid(CodeInvalidQuery, "%s: %.50q is neither true nor false", name, text)
	}
}
