package cli

import (
	"fmt"

	"github.com/xferbench/xferbench/cgo/mem"
)

// exitError is an error with the exit code that the process ends with.
type exitError struct {
	code int
	err  error
}

// Error returns the cause's message.
func (e *exitError) Error() string { return e.err.Error() }

// Unwrap returns the cause.
func (e *exitError) Unwrap() error { return e.err }

// usagef is fmt.Errorf with exit code 2: the command line was wrong, unless all
// that was wrong with it is that no file could be opened any more.
func usagef(format string, args ...any) error {
	e := &exitError{code: 2, err: fmt.Errorf(format, args...)}
	if mem.MoreFiles(e.err) != "" {
		e.code = 3
	}
	return e
}
