package gateway

import (
	"fmt"
	"maps"
	"slices"
)

// User returns the application's id of the client's user, or "".
func (c *Client) User() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.user
}

// Groups returns the client's groups, sorted.
func (c *Client) Groups() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Sorted(maps.Keys(c.groups))
}

// In tells whether the client is in a group.
func (c *Client) In(group string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, in := c.groups[group]
	return in
}

// Join puts the client into groups, all or none. Those that it is in already
// are no error; more than MaxGroupsPerClient are.
func (c *Client) Join(groups ...string) error {
	if err := checkNames("group", groups); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.reason != nil {
		return ErrClosed
	}
	fresh := make(map[string]struct{}, len(groups))
	for _, group := range groups {
		if _, in := c.groups[group]; !in {
			fresh[group] = struct{}{}
		}
	}
	if n := len(c.groups) + len(fresh); n > MaxGroupsPerClient {
		return fmt.Errorf("client would be in %d groups: allowed are %d", n, MaxGroupsPerClient)
	}
	if c.groups == nil {
		c.groups = make(map[string]struct{}, len(fresh))
	}
	for group := range fresh {
		c.groups[group] = struct{}{}
		addMember(&c.registry.groups, group, c)
	}
	return nil
}

// Leave takes the client out of groups. Those that it is not in are no error.
func (c *Client) Leave(groups ...string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.reason != nil {
		return ErrClosed
	}
	for _, group := range groups {
		if _, in := c.groups[group]; in {
			delete(c.groups, group)
			removeMember(&c.registry.groups, group, c)
		}
	}
	return nil
}

// Bind makes user the client's user, in place of the one that it had.
func (c *Client) Bind(user string) error {
	if err := checkName("user", user); err != nil {
		return err
	}
	return c.bind(user)
}

// Unbind leaves the client without a user.
func (c *Client) Unbind() error { return c.bind("") }

func (c *Client) bind(user string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.reason != nil {
		return ErrClosed
	}
	if c.user == user {
		return nil
	}
	if c.user != "" {
		removeMember(&c.registry.users, c.user, c)
	}
	c.user = user
	if user != "" {
		addMember(&c.registry.users, user, c)
	}
	return nil
}
