package twoleg

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
)

// Member is one key of a JSON object and the bytes of its value as they came.
type Member struct {
	Key   string
	Value json.RawMessage
}

// Object is a JSON object's members in their order, the values untouched. A
// prompt of 8,000 token ids is 50 kB: decoding it would cost more than the
// whole hand-over, so that only the outermost level is looked at, and numbers keep
// the digits that the sender gave them.
type Object []Member

// ErrNotObject is wrapped by the errors of [ParseObject].
var ErrNotObject = errors.New("not a JSON object")

// ParseObject splits data into members. The members keep referring to data.
// Brackets and strings are followed, but what stands in a value is not
// validated: that is left to whoever reads the value.
func ParseObject(data []byte) (Object, error) {
	s := scanner{data: data}
	obj, err := s.object()
	if err != nil {
		return nil, fmt.Errorf("%w: %s at byte %d", ErrNotObject, err.Error(), s.at)
	}
	return obj, nil
}

// Get returns the value of key, the last one if it stands there twice, as
// encoding/json and Python's json take it; nil if it is missing.
func (o Object) Get(key string) json.RawMessage {
	for i := len(o) - 1; i >= 0; i-- {
		if o[i].Key == key {
			return o[i].Value
		}
	}
	return nil
}

// Without returns a copy of the object that has none of keys.
func (o Object) Without(keys ...string) Object {
	out := make(Object, 0, len(o))
members:
	for _, m := range o {
		for _, k := range keys {
			if m.Key == k {
				continue members
			}
		}
		out = append(out, m)
	}
	return out
}

// With returns a copy in which key has value, at the end.
func (o Object) With(key string, value json.RawMessage) Object {
	return append(o.Without(key), Member{key, value})
}

// Bytes is the object as JSON.
func (o Object) Bytes() ([]byte, error) {
	n := 2
	for _, m := range o {
		n += len(m.Key) + len(m.Value) + 4
	}
	out := make([]byte, 0, n)
	out = append(out, '{')
	for i, m := range o {
		if i > 0 {
			out = append(out, ',')
		}
		key, err := json.Marshal(m.Key)
		if err != nil {
			return nil, fmt.Errorf("JSON key %q: %w", m.Key, err)
		}
		out = append(append(append(out, key...), ':'), m.Value...)
	}
	return append(out, '}'), nil
}

// scanner walks over the outermost object of a JSON text.
type scanner struct {
	data []byte
	at   int
}

var errEnd = errors.New("it ends too early")

func (s *scanner) space() {
	for s.at < len(s.data) {
		switch s.data[s.at] {
		case ' ', '\t', '\n', '\r':
			s.at++
		default:
			return
		}
	}
}

// next returns the next byte that is no space without taking it.
func (s *scanner) next() (byte, error) {
	s.space()
	if s.at == len(s.data) {
		return 0, errEnd
	}
	return s.data[s.at], nil
}

func (s *scanner) expect(c byte) error {
	got, err := s.next()
	if err != nil {
		return err
	}
	if got != c {
		return fmt.Errorf("%q where %q belongs", got, c)
	}
	s.at++
	return nil
}

func (s *scanner) object() (Object, error) {
	if err := s.expect('{'); err != nil {
		return nil, err
	}
	var obj Object
	c, err := s.next()
	if err != nil {
		return nil, err
	}
	for more := c != '}'; more; {
		m, err := s.member()
		if err != nil {
			return nil, err
		}
		obj = append(obj, m)
		if c, err = s.next(); err != nil {
			return nil, err
		}
		if more = c == ','; more {
			s.at++
		}
	}
	if err := s.expect('}'); err != nil {
		return nil, err
	}
	if s.space(); s.at != len(s.data) {
		return nil, errors.New("something follows the object")
	}
	return obj, nil
}

func (s *scanner) member() (Member, error) {
	if c, err := s.next(); err != nil {
		return Member{}, err
	} else if c != '"' {
		return Member{}, fmt.Errorf("%q where a key belongs", c)
	}
	from := s.at
	if err := s.text(); err != nil {
		return Member{}, err
	}
	var m Member
	if err := json.Unmarshal(s.data[from:s.at], &m.Key); err != nil {
		return Member{}, err
	}
	if err := s.expect(':'); err != nil {
		return Member{}, err
	}
	if _, err := s.next(); err != nil {
		return Member{}, err
	}
	from = s.at
	if err := s.value(); err != nil {
		return Member{}, err
	}
	m.Value = s.data[from:s.at:s.at]
	return m, nil
}

// text walks over a string; the scanner stands on its opening quote.
func (s *scanner) text() error {
	s.at++
	for {
		i := bytes.IndexByte(s.data[s.at:], '"')
		if i < 0 {
			s.at = len(s.data)
			return errEnd
		}
		// An odd number of backslashes before the quote makes it part of the text.
		end, slashes := s.at+i, 0
		for end-1-slashes >= s.at && s.data[end-1-slashes] == '\\' {
			slashes++
		}
		s.at = end + 1
		if slashes%2 == 0 {
			return nil
		}
	}
}

// value walks over one value of any kind.
func (s *scanner) value() error {
	switch s.data[s.at] {
	case '"':
		return s.text()
	case '{', '[':
		return s.nested()
	}
	from := s.at
	for s.at < len(s.data) {
		switch s.data[s.at] {
		case ',', '}', ']', ' ', '\t', '\n', '\r':
			if s.at == from {
				return errors.New("a value is missing")
			}
			return nil
		case '"', ':', '{', '[':
			return fmt.Errorf("%q inside a value", s.data[s.at])
		}
		s.at++
	}
	return errEnd
}

// maxDepth bounds the nesting of a value.
const maxDepth = 10_000

// plain marks the bytes that neither open nor close anything.
var plain = func() (t [256]bool) {
	for i := range t {
		t[i] = bytes.IndexByte([]byte(`"{}[]`), byte(i)) < 0
	}
	return t
}()

// nested walks over an object or array by counting brackets.
func (s *scanner) nested() error {
	var open []byte
	for s.at < len(s.data) {
		// Token ids are by far most of a request: run over what has no meaning here.
		rest := s.data[s.at:]
		i := 0
		for i < len(rest) && plain[rest[i]] {
			i++
		}
		if s.at += i; s.at == len(s.data) {
			return errEnd
		}
		switch c := s.data[s.at]; c {
		case '"':
			if err := s.text(); err != nil {
				return err
			}
			continue
		case '{', '[':
			if len(open) == maxDepth {
				return fmt.Errorf("more than %d levels", maxDepth)
			}
			open = append(open, c+2) // in ASCII '}' is '{'+2 and ']' is '['+2
		case '}', ']':
			if open[len(open)-1] != c {
				return fmt.Errorf("%q where %q belongs", c, open[len(open)-1])
			}
			if open = open[:len(open)-1]; len(open) == 0 {
				s.at++
				return nil
			}
		}
		s.at++
	}
	return errEnd
}

// several reports whether raw is a list of more than one text or list. What the
// elements are is looked at only as far as needed for that.
func several(raw json.RawMessage) bool {
	s := scanner{data: raw}
	if s.expect('[') != nil {
		return false
	}
	if c, err := s.next(); err != nil || c != '"' && c != '[' {
		return false
	}
	if s.value() != nil {
		return false // the engine's to refuse
	}
	c, err := s.next()
	return err == nil && c == ','
}
