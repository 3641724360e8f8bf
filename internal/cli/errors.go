package cli

import (
	"fmt"

	"github.com/xferbench/xferbench/internal/fault"
)

// silent is the end of a command that another process did, and that has said why:
// only its exit code is left to pass on.
type silent int

// Error implements error.
func (s silent) Error() string { return fmt.Sprintf("exit code %d", int(s)) }

// usagef is an error with exit code 2: the command line was wrong.
func usagef(format string, args ...any) error { return fault.Usagef(format, args...) }

// unavailable gives err the exit code 3.
func unavailable(err error) error { return &fault.Error{Kind: fault.Unavailable, Err: err} }
