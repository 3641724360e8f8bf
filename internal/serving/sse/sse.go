// Package sse reads a stream of server-sent events, as OpenAI-compatible
// engines send them: one JSON document in the data of each event, and
// "data: [DONE]" at the end.
//
// Source: WHATWG HTML Living Standard, §9.2.6, Interpreting an event stream.
package sse

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
)

// MaxEvent is the longest event, in bytes of data, that a [Reader] accepts.
const MaxEvent = 16 << 20

// ErrTooLong is wrapped by the error of a stream whose event is longer than
// [MaxEvent].
var ErrTooLong = errors.New("event too long")

// Done is the data of the event that ends an OpenAI stream.
var Done = []byte("[DONE]")

// Reader takes events from a byte stream, however it is split into reads. It
// is for one goroutine.
type Reader struct {
	in       *bufio.Reader
	data     []byte
	started  bool // the first line was read: a byte order mark is data from here on
	skipLF   bool // the last line ended in CR: an LF now belongs to it
	comments int
}

// NewReader reads events from r, which stays the caller's to close.
func NewReader(r io.Reader) *Reader {
	return &Reader{in: bufio.NewReaderSize(r, 16<<10)}
}

// Comments is the number of comment lines so far; engines send them to keep a
// connection alive.
func (r *Reader) Comments() int { return r.comments }

// Next returns the data of the next event that has any, several data lines
// joined by a newline. The slice is valid until the next call. At the end it
// returns [io.EOF], and [io.ErrUnexpectedEOF] if the stream ended inside an
// event: the sender died or the connection was cut.
func (r *Reader) Next() ([]byte, error) {
	r.data = r.data[:0]
	inside, hasData := false, false // an event; one with data
	for {
		line, err := r.line()
		if err != nil {
			if errors.Is(err, io.EOF) && (inside || len(line) > 0) {
				return nil, io.ErrUnexpectedEOF
			}
			return nil, err
		}
		if len(line) == 0 {
			if hasData {
				return r.data[:len(r.data)-1], nil
			}
			inside = false
			continue
		}
		if line[0] == ':' {
			r.comments++
			continue
		}
		inside = true
		field, value, _ := bytes.Cut(line, []byte(":"))
		value = bytes.TrimPrefix(value, []byte(" "))
		if string(field) != "data" {
			continue // event, id, retry and unknown fields carry nothing for us
		}
		if len(r.data)+len(value) > MaxEvent {
			return nil, fmt.Errorf("sse: more than %d bytes: %w", MaxEvent, ErrTooLong)
		}
		hasData = true
		r.data = append(append(r.data, value...), '\n')
	}
}

// line returns the next line without its end, which is LF, CR or CR LF. At the
// end of the stream it returns what is left of an unfinished line and io.EOF.
// It never waits for a byte behind a line's end: an event must not be held back
// until the one after it arrives.
func (r *Reader) line() ([]byte, error) {
	var line []byte
	for {
		c, err := r.in.ReadByte()
		if err != nil {
			return line, err
		}
		if r.skipLF {
			r.skipLF = false
			if c == '\n' {
				continue
			}
		}
		if c != '\n' && c != '\r' {
			if err := r.in.UnreadByte(); err != nil {
				return line, err
			}
			n := r.in.Buffered()
			chunk, err := r.in.Peek(n)
			if err != nil {
				return line, err
			}
			if i := bytes.IndexAny(chunk, "\r\n"); i >= 0 {
				n = i
			}
			if len(line)+n > MaxEvent+64 {
				return line, fmt.Errorf("sse: a line of more than %d bytes: %w", MaxEvent, ErrTooLong)
			}
			line = append(line, chunk[:n]...)
			if _, err := r.in.Discard(n); err != nil {
				return line, err
			}
			continue
		}
		r.skipLF = c == '\r'
		if !r.started {
			r.started = true
			line = bytes.TrimPrefix(line, []byte("\ufeff"))
		}
		return line, nil
	}
}
