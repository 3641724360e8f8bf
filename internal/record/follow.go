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
			lines, more, err := t.next()
			for _, l := range lines {
				if !yield(l, nil) {
					return
				}
			}
			if err != nil {
				yield(nil, fmt.Errorf("record %s: %w", path, err))
				return
			}
			if more {
				continue
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

// followAtOnce is how much of a file is read before its lines are given out, but
// for a longer line.
const followAtOnce = 1 << 20

// next are lines that are whole now, with an error of what follows them; more: there
// are others. Of a last line without its newline nothing is kept: a resumed run may
// replace it.
func (t *follower) next() (lines []Line, more bool, err error) {
	is, err := t.f.Stat()
	if err != nil {
		return nil, false, err
	}
	left := is.Size() - t.at
	if left < 0 {
		return nil, false, fmt.Errorf("%w: %d bytes are left of %d", ErrShrank, is.Size(), t.at)
	}
	b, err := t.read(left)
	if err != nil {
		return nil, false, err
	}
	lines, err = t.lines(b)
	return lines, err == nil && int64(len(b)) < left, err
}

// read is the next of left bytes: followAtOnce of them up to the last newline, or
// all.
func (t *follower) read(left int64) ([]byte, error) {
	for n := int64(followAtOnce); n < left; n *= 4 {
		b, err := io.ReadAll(io.NewSectionReader(t.f, t.at, n))
		if err != nil {
			return nil, err
		}
		if i := bytes.LastIndexByte(b, '\n'); i >= 0 {
			return b[:i+1], nil
		}
		if n > maxLine {
			return b, nil // an error
		}
	}
	return io.ReadAll(io.NewSectionReader(t.f, t.at, left))
}

// lines are those of b, which begins where the last line ended.
func (t *follower) lines(b []byte) (lines []Line, err error) {
	if t.at == 0 {
		if err := refusePacked(b); err != nil {
			return nil, err
		}
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
