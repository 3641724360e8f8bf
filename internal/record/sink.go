package record

import (
	"io"
	"sync"
)

// Sink is the one way out of a run: each line goes, in one order and made into
// text once, to all that are set. Its methods may be called from several
// goroutines.
type Sink struct {
	Record *Record   // in memory, read only between calls of Write; nil: none
	File   *Writer   // which the caller closes; nil: none
	Stream io.Writer // the same lines; nil: none

	mu sync.Mutex
}

// Write gives out one line. What fails keeps the line from none of the others;
// the error is the first.
func (s *Sink) Write(l Line) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var b []byte
	var first error
	keep := func(err error) {
		if first == nil {
			first = err
		}
	}
	if s.File != nil || s.Stream != nil {
		var err error
		if b, err = Marshal(l); err != nil {
			return err
		}
	}
	if s.Record != nil {
		keep(s.Record.Add(l))
	}
	if s.File != nil {
		_, closing := l.(End)
		keep(s.File.append(b, closing))
	}
	if s.Stream != nil {
		_, err := s.Stream.Write(b)
		keep(err)
	}
	return first
}
