package remote

import (
	"strings"
	"sync"
)

// Tail is an [io.Writer] that keeps the first and the last part of what is
// written to it. Its zero value is ready, and several goroutines may use it.
type Tail struct {
	mu   sync.Mutex
	n    int    // bytes written
	head []byte // the first of them
	tail []byte // the last of them
}

const (
	// crashLen is how much of the beginning is kept: a crash of Go has its reason
	// there, and after some frames the call into C.
	crashLen = 64 << 10
	// headLen and tailLen are how much of both ends is shown.
	headLen, tailLen = 1 << 10, 4 << 10
)

// Write takes p; it never fails.
func (t *Tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.n += len(p)
	t.head = append(t.head, p[:min(len(p), crashLen-len(t.head))]...)
	t.tail = append(t.tail, p...)
	if len(t.tail) > tailLen {
		t.tail = append(t.tail[:0], t.tail[len(t.tail)-tailLen:]...)
	}
	return len(p), nil
}

// String is both ends of what was written, at most 5 KiB. Of a crash it has the
// reason, not the state of each goroutine.
func (t *Tail) String() string {
	s := t.ends(headLen)
	if cut, _, crash := strings.Cut(s[:min(len(s), headLen)], "\ngoroutine "); crash {
		return cut
	}
	return s
}

// ends is the first n bytes, or fewer, and the last 4 KiB of the rest.
func (t *Tail) ends(n int) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	head := t.head[:min(n, len(t.head))]
	rest := min(t.n-len(head), len(t.tail))
	return string(head) + string(t.tail[len(t.tail)-rest:])
}
