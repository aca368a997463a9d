package miniprogram

import (
	"context"
	"slices"
	"sync"
	"time"
)

// What users can make grow: notes a user, characters a note, users who are away.
const (
	maxNotes = 100
	maxNote  = 500
	maxAway  = 10000
)

// users is what belongs to users rather than to connections, by openid. It lives
// in the memory of this process: a real application has a database here.
type users struct {
	mu   sync.Mutex
	keep time.Duration    // guarded by mu; how long after the last connection
	byID map[string]*user // guarded by mu
}

// user is one user's data.
type user struct {
	connections int       // guarded by users.mu
	left        time.Time // guarded by users.mu; when the last connection ended

	mu    sync.Mutex
	notes []string // guarded by mu; at most maxNotes
}

func newUsers(keep time.Duration) *users {
	return &users{keep: keep, byID: make(map[string]*user)}
}

func (us *users) keepFor() time.Duration {
	us.mu.Lock()
	defer us.mu.Unlock()
	return us.keep
}

func (us *users) setKeep(d time.Duration) {
	us.mu.Lock()
	defer us.mu.Unlock()
	us.keep = d
}

// enter counts a connection of the user's if f accepts it. resumed is whether he
// was known. f is called for one at a time: of two connections that a user opens
// at once, the second finds the first.
func (us *users) enter(id string, f func(u *user, resumed bool) error) error {
	us.mu.Lock()
	defer us.mu.Unlock()
	u := us.byID[id]
	resumed := u != nil && (u.connections > 0 || time.Since(u.left) < us.keep)
	if !resumed {
		u = new(user)
	}
	if err := f(u, resumed); err != nil {
		return err
	}
	u.connections++
	us.byID[id] = u
	return nil
}

// leave ends a connection of the user's.
func (us *users) leave(u *user) {
	us.mu.Lock()
	defer us.mu.Unlock()
	u.connections--
	u.left = time.Now()
}

// sweep forgets users who have been away for too long; if there are too many, any
// of those who are away.
func (us *users) sweep(context.Context) {
	us.mu.Lock()
	defer us.mu.Unlock()
	away := 0
	for id, u := range us.byID {
		if u.connections > 0 {
			continue
		}
		if away++; away > maxAway || time.Since(u.left) >= us.keep {
			delete(us.byID, id)
		}
	}
}

// note adds a note and returns all, the oldest first.
func (u *user) note(text string) []string {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.notes = append(u.notes, text)
	if len(u.notes) > maxNotes {
		u.notes = slices.Delete(u.notes, 0, len(u.notes)-maxNotes)
	}
	return slices.Clone(u.notes)
}

// list returns all notes, the oldest first.
func (u *user) list() []string {
	u.mu.Lock()
	defer u.mu.Unlock()
	return append([]string{}, u.notes...)
}
