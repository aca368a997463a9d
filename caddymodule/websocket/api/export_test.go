package api

import "time"

// Failures is failures, for tests.
type Failures struct{ f failures }

// Take is take.
func (f *Failures) Take(ip string, now time.Time) (suppressed int, ok bool) { return f.f.take(ip, now) }
