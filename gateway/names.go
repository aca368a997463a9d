package gateway

import (
	"fmt"
	"unicode/utf8"
)

// Bounds on what logic and clients can make grow.
const (
	// MaxNameLength bounds the name of a user, a group, an endpoint and the key
	// of a session entry, in bytes.
	MaxNameLength = 255

	// MaxGroupsPerClient bounds how many groups one client can be in.
	MaxGroupsPerClient = 1000

	// MaxSessionSize bounds one client's session: its size as a JSON object, in
	// bytes.
	MaxSessionSize = 64 << 10
)

// checkName tells whether a name of the application's may be kept. kind says in
// the error what it would have named.
func checkName(kind, name string) error {
	switch {
	case name == "":
		return fmt.Errorf("%s: the name is empty", kind)
	case len(name) > MaxNameLength:
		return fmt.Errorf("%s %.32q...: the name has %d bytes, allowed are %d", kind, name, len(name), MaxNameLength)
	case !utf8.ValidString(name):
		return fmt.Errorf("%s %q: %w", kind, name, ErrNotUTF8)
	}
	return nil
}

func checkNames(kind string, names []string) error {
	for _, name := range names {
		if err := checkName(kind, name); err != nil {
			return err
		}
	}
	return nil
}
