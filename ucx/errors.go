package ucx

import (
	"errors"
	"strings"
)

// Sentinels that an [*Error] matches.
var (
	// ErrUnavailable: the library, or a transport that was asked for, is not
	// on this host.
	ErrUnavailable = errors.New("UCX unavailable")
	// ErrUnsupported: this build of UCX cannot do it.
	ErrUnsupported = errors.New("not supported by this UCX")
	// ErrSetting: a setting that UCX does not know or a value that it refuses.
	ErrSetting = errors.New("UCX refuses the setting")
)

// Error is a failed call: what was tried, UCX's own words, and the next step.
type Error struct {
	Call   string // "ucp_init", "loading libucp.so.0"
	Status string // ucs_status_string's words
	Log    string // what UCX logged meanwhile, one line each
	Hint   string // what to do about it
	kind   error
}

func (e *Error) Error() string {
	parts := []string{e.Call}
	if e.Status != "" {
		parts = append(parts, e.Status)
	}
	if e.Log != "" {
		parts = append(parts, strings.ReplaceAll(e.Log, "\n", "; "))
	}
	s := strings.Join(parts, ": ")
	if e.Hint != "" {
		s += "; " + e.Hint
	}
	return s
}

// Unwrap is the sentinel that the error belongs to, or nil.
func (e *Error) Unwrap() error { return e.kind }
