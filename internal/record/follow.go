package record

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"time"
)

// followPause is how often a growing file is looked at.
const followPause = 50 * time.Millisecond

// ErrShrank is matched by the error of [Follow] for a file that lost lines that
// were given out.
var ErrShrank = errors.New("the record lost lines that were read")

// Follow yields the lines of the record file path from its first on and waits for
// those that a run has yet to write. It ends after an end line that nothing
// follows, or with an error, which comes with a nil line and last: of ctx, of the
// file, or of a line that cannot be read, named by its number. A line that is not
// whole is waited for. A run that died writes no end line: bound the wait by ctx.
func Follow(ctx context.Context, path string) iter.Seq2[Line, error] {
	return func(yield func(Line, error) bool) {
		f, err := os.Open(path)
		if err != nil {
			yield(nil, fmt.Errorf("record: %w", err))
			return
		}
		defer f.Close()
		t := follower{f: f}
		for {
			lines, err := t.next()
			for _, l := range lines {
				if !yield(l, nil) {
					return
				}
			}
			if err != nil {
				yield(nil, fmt.Errorf("record %s: %w", path, err))
				return
			}
			if t.ended {
				return
			}
			select {
			case <-ctx.Done():
				yield(nil, fmt.Errorf("record %s: %w", path, context.Cause(ctx)))
				return
			case <-time.After(followPause):
			}
		}
	}
}

// follower reads on where it was.
type follower struct {
	f     *os.File
	at    int64  // bytes that were read as whole lines
	n     int    // lines in them
	id    string // of the run
	began bool
	ended bool // the last line was the end
	open  bool // the last line had no newline yet
}

// next are the lines that are whole now, with an error of what follows them. Of
// a last line without its newline nothing is kept: a resumed run may replace it.
func (t *follower) next() (lines []Line, err error) {
	is, err := t.f.Stat()
	if err != nil {
		return nil, err
	}
	if is.Size() < t.at {
		return nil, fmt.Errorf("%w: %d bytes are left of %d", ErrShrank, is.Size(), t.at)
	}
	b, err := io.ReadAll(io.NewSectionReader(t.f, t.at, is.Size()-t.at))
	if err != nil {
		return nil, err
	}
	if t.open && len(b) > 0 && b[0] == '\n' {
		t.open, t.at, b = false, t.at+1, b[1:]
	}
	for len(b) > 0 {
		text, rest, whole := bytes.Cut(b, []byte{'\n'})
		switch {
		case len(text) > maxLine:
			return lines, fmt.Errorf("line %d: longer than %d bytes", t.n+1, maxLine)
		case !whole && !json.Valid(text):
			return lines, nil
		}
		t.at, t.open, b = t.at+int64(len(b)-len(rest)), !whole, rest
		l, err := t.line(text)
		if err != nil {
			return lines, fmt.Errorf("line %d: %w", t.n, err)
		}
		if l != nil {
			lines = append(lines, l)
		}
	}
	return lines, nil
}

// line reads one line; nil for a blank one, and for a type of a later version.
func (t *follower) line(text []byte) (Line, error) {
	if t.n++; t.n == 1 {
		text = bytes.TrimPrefix(text, []byte("\ufeff"))
	}
	if text = bytes.TrimSpace(text); len(text) == 0 {
		return nil, nil
	}
	l, err := Parse(text)
	if err != nil {
		return nil, err
	}
	t.ended = false
	switch l := l.(type) {
	case Run:
		if err := readable(l); err != nil {
			return nil, err
		}
		if t.began && !goesOn(l, t.id) {
			return nil, fmt.Errorf("%w: run %s after %s", ErrSeveral, l.ID, t.id)
		}
		if !t.began {
			t.began, t.id = true, l.ID
		}
	case End:
		t.ended = true
	default:
		if !t.began {
			return nil, errNoRun
		}
	}
	return l, nil
}
