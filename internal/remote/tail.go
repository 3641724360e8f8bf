package remote

import (
	"strings"
	"sync"
)

// Tail is an [io.Writer] that keeps the first and the last part of what is
// written to it. Its zero value is ready, and several goroutines may use it.
type Tail struct {
	mu   sync.Mutex
	head []byte
	b    []byte
}

const headLen, tailLen = 1 << 10, 4 << 10

// Write takes p; it never fails.
func (t *Tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := min(len(p), headLen-len(t.head))
	t.head = append(t.head, p[:n]...)
	t.b = append(t.b, p[n:]...)
	if len(t.b) > tailLen {
		t.b = append(t.b[:0], t.b[len(t.b)-tailLen:]...)
	}
	return len(p), nil
}

// String is what was kept, at most 5 KiB. Of a crash it has the reason, not the
// state of each goroutine.
func (t *Tail) String() string {
	s := t.all()
	if cut, _, crash := strings.Cut(s[:min(len(s), headLen)], "\ngoroutine "); crash {
		return cut
	}
	return s
}

// all is what was kept, a crash whole.
func (t *Tail) all() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.head) + string(t.b)
}
