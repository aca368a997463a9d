package e2etest

import (
	"bytes"
	"sync"
)

// lineLog keeps the lines that a process writes, for many readers.
type lineLog struct {
	mu    sync.Mutex    // guards all below
	lines [][]byte      // whole lines, without their ends
	part  []byte        // of a line that has not ended
	more  chan struct{} // closed by the next line; nil if nobody waits
}

// Write is for exec.Cmd.
func (l *lineLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.part = append(l.part, p...)
	for {
		line, rest, found := bytes.Cut(l.part, []byte("\n"))
		if !found {
			return len(p), nil
		}
		l.lines = append(l.lines, bytes.Clone(line))
		l.part = rest
		if l.more != nil {
			close(l.more)
			l.more = nil
		}
	}
}

// since returns the lines after the first n, and a channel that is closed when there
// are more than these.
func (l *lineLog) since(n int) (lines [][]byte, more <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.more == nil {
		l.more = make(chan struct{})
	}
	return l.lines[n:len(l.lines):len(l.lines)], l.more
}
