// Package fault holds what kinds of failure there are, as values: an error
// carries its kind and the next step in fields, so that nobody reads them out of
// its text, and each kind has its exit code here and nowhere else.
package fault

import (
	"context"
	"errors"
	"fmt"
	"syscall"
)

// Kind is what a failure means to whoever started the command.
type Kind int

// Kinds, in no order.
const (
	None        Kind = iota // no failure
	Internal                // a fault of this program
	Usage                   // what was asked for cannot be done: nothing was measured
	Unavailable             // a transport, peer or engine failed or is not there
	Data                    // what arrived is not what was sent
	Threshold               // measured, and it misses a limit that was given
	TooFew                  // measured, but too little for a verdict
	Interrupted             // a person, or a signal, ended it
)

// ExitCode is the process's exit code for a failure of kind k.
func (k Kind) ExitCode() int {
	switch k {
	case None:
		return 0
	case Usage:
		return 2
	case Unavailable:
		return 3
	case Data:
		return 4
	case Threshold:
		return 5
	case TooFew:
		return 6
	case Interrupted:
		return 130
	}
	return 1
}

// OfExitCode is the kind that a process ended with.
func OfExitCode(code int) Kind {
	for _, k := range []Kind{None, Usage, Unavailable, Data, Threshold, TooFew, Interrupted} {
		if k.ExitCode() == code {
			return k
		}
	}
	return Internal
}

// ErrInterrupted is the cause of a context that a person ended.
var ErrInterrupted = New(Interrupted, "interrupted")

// Error is a failure of a known kind. Its text is Err's and, where there is one,
// the Hint after a semicolon; the kind is not in the text.
type Error struct {
	Kind Kind
	Err  error  // what was tried and what came back, in the library's own words
	Hint string // the next step
}

// Error returns the text.
func (e *Error) Error() string {
	if e.Hint == "" {
		return e.Err.Error()
	}
	return e.Err.Error() + "; " + e.Hint
}

// Unwrap returns Err.
func (e *Error) Unwrap() error { return e.Err }

// Errorf is fmt.Errorf with a kind.
func Errorf(k Kind, format string, args ...any) error {
	return &Error{Kind: k, Err: fmt.Errorf(format, args...)}
}

// Usagef is [Errorf] of kind Usage.
func Usagef(format string, args ...any) error { return Errorf(Usage, format, args...) }

// New returns a sentinel: an error to be matched by errors.Is that gives its kind
// to each error that wraps it.
func New(k Kind, text string) error { return &Error{Kind: k, Err: errors.New(text)} }

// KindOf is the kind of err. Of several joined errors an interruption wins, since
// the others follow from it, then the first that has a kind: the cause is joined
// first. A lack of file descriptors is Unavailable whatever met it, a cancelled
// context is an interruption, and an error without a kind is Internal.
func KindOf(err error) Kind {
	switch {
	case err == nil:
		return None
	case has(err, Interrupted):
		return Interrupted
	case errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE):
		return Unavailable
	}
	if k := first(err); k != None {
		return k
	}
	if errors.Is(err, context.Canceled) {
		return Interrupted
	}
	return Internal
}

// has reports whether an error of kind k is in the tree of err.
func has(err error, k Kind) bool {
	if e, is := err.(*Error); is && e.Kind == k { //nolint:errorlint // the tree is walked here
		return true
	}
	for _, c := range causes(err) {
		if has(c, k) {
			return true
		}
	}
	return false
}

// first is the kind nearest to the root of err's tree, from the left.
func first(err error) Kind {
	if e, is := err.(*Error); is && e.Kind != None { //nolint:errorlint // the tree is walked here
		return e.Kind
	}
	for _, c := range causes(err) {
		if k := first(c); k != None {
			return k
		}
	}
	return None
}

func causes(err error) []error {
	switch e := err.(type) { //nolint:errorlint // one step down the tree
	case interface{ Unwrap() []error }:
		return e.Unwrap()
	case interface{ Unwrap() error }:
		if c := e.Unwrap(); c != nil {
			return []error{c}
		}
	}
	return nil
}
