package api

import (
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strings"

	"github.com/caddyserver/caddy/v2"
)

// Lengths that a token may have. Sixteen characters of a random token are more
// than anybody tries over a network; four thousand fit into a request's header.
const (
	minToken = 16
	maxToken = 4096
)

// tokens are the hashes of those that are accepted.
type tokens [][sha256.Size]byte

// placeholder is what Caddy replaces.
var placeholder = regexp.MustCompile(`\{[^{}]*\}`)

// resolve evaluates the placeholders of tokens. Its errors never have a part of a
// token in them.
func resolve(written []string) (tokens, error) {
	var all tokens
	repl := caddy.NewReplacer()
	for i, token := range written {
		value, err := repl.ReplaceFunc(token, known)
		if err == nil {
			err = checkToken(value)
		}
		if err != nil {
			return nil, fmt.Errorf("token %d%s: %w", i+1, source(token), err)
		}
		all = append(all, sha256.Sum256([]byte(value)))
	}
	return all, nil
}

// source tells where a token comes from, if that is elsewhere.
func source(token string) string {
	if name := placeholder.FindString(token); name == token && global(name[1:]) {
		return ", " + name
	}
	return ""
}

func global(name string) bool {
	return strings.HasPrefix(name, "env.") || strings.HasPrefix(name, "file.")
}

// known refuses placeholders that have no value, or an unsafe one, when the
// configuration is loaded.
func known(name string, value any) (any, error) {
	const allowed = "allowed are {env.NAME} and {file./path}"
	switch {
	case strings.HasPrefix(name, "$"):
		return nil, fmt.Errorf("{%s} is replaced in Caddyfiles only: %s", name, allowed)
	case strings.HasPrefix(name, "http."):
		return nil, fmt.Errorf("the placeholder {%s} is about a request, and tokens are resolved before there is one: %s", name, allowed)
	case !global(name): // it may be a part of the token
		return nil, errors.New("there is a placeholder of another kind in it: " + allowed)
	case value == nil && strings.HasPrefix(name, "file."):
		return nil, fmt.Errorf("the file of the placeholder {%s} cannot be read", name)
	case value == nil || value == "":
		return nil, fmt.Errorf("the placeholder {%s} is empty", name)
	}
	return value, nil
}

// checkToken tells whether a token will do.
func checkToken(token string) error {
	for _, b := range []byte(token) {
		if b <= ' ' || b > '~' {
			return errors.New("there is a space, a control character or one outside of ASCII in it: allowed are printable ASCII characters")
		}
	}
	if n := len(token); n < minToken || n > maxToken {
		return fmt.Errorf("it has %d characters: allowed are %d to %d; `openssl rand -hex 32` makes a good one", n, minToken, maxToken)
	}
	return nil
}

// Why a request is refused.
var (
	errNoToken    = errors.New("a token is missing: send it as Authorization: Bearer <token>")
	errNotBearer  = errors.New("the Authorization header has no bearer token: send it as Authorization: Bearer <token>")
	errTwice      = errors.New("there is more than one Authorization header: send one, as Authorization: Bearer <token>")
	errWrongToken = errors.New("the token is wrong")
)

// check tells whether a request has one of the tokens (RFC 6750 section 2.1). How
// long that takes says nothing about how much of a token was right, nor about
// which it was.
func (t tokens) check(r *http.Request) error {
	header := r.Header.Values("Authorization")
	switch len(header) {
	case 0:
		return errNoToken
	case 1:
	default:
		return errTwice
	}
	scheme, given, _ := strings.Cut(header[0], " ")
	given = strings.TrimLeft(given, " ")
	if !strings.EqualFold(scheme, "Bearer") || given == "" {
		return errNotBearer
	}
	sum := sha256.Sum256([]byte(given))
	equal := 0
	for i := range t {
		equal |= subtle.ConstantTimeCompare(t[i][:], sum[:])
	}
	if equal != 1 {
		return errWrongToken
	}
	return nil
}
