package fabric

import (
	"errors"
	"fmt"
	"strings"
)

// Kinds of failure, for errors.Is.
var (
	// ErrNoLibrary: no libfabric could be loaded.
	ErrNoLibrary = errors.New("libfabric cannot be loaded")
	// ErrNoDevice: this host has nothing that the provider could run on.
	ErrNoDevice = errors.New("no device")
	// ErrTooOld: the library has not yet what was asked for.
	ErrTooOld = errors.New("libfabric is too old")
	// ErrPermission: the device is there but this user may not open it.
	ErrPermission = errors.New("no permission")
	// ErrHidden: FI_PROVIDER keeps the provider from being seen.
	ErrHidden = errors.New("hidden by FI_PROVIDER")
	// ErrMemlock: the limit of locked memory is too small for a registration.
	ErrMemlock = errors.New("locked-memory limit")
	// ErrUnsupported: the provider is there and cannot do what was asked.
	ErrUnsupported = errors.New("not supported by the provider")
	// ErrUnavailable: the provider is not there, or cannot be opened: the
	// process or host is out of something, or the reason is not known better.
	ErrUnavailable = errors.New("provider unavailable")
)

// Error is a call that libfabric refused, or a host that cannot run a provider.
type Error struct {
	Op       string // the call: "fi_getinfo", "fi_mr_regattr"; "" when none was made
	Provider string // as the user named it
	Errno    int    // a positive FI_E* code, 0 for none
	Detail   string // the cause, in the library's words where it had any
	Hint     string // the next step
	Kind     error  // one of the Err values, or nil
}

// Error is "provider: call: detail; hint".
func (e *Error) Error() string {
	var b strings.Builder
	if e.Provider != "" {
		b.WriteString(e.Provider + ": ")
	}
	if e.Op != "" {
		b.WriteString(e.Op + ": ")
	}
	b.WriteString(e.Detail)
	if e.Errno != 0 {
		fmt.Fprintf(&b, " (%d)", e.Errno)
	}
	if e.Hint != "" {
		b.WriteString("; " + e.Hint)
	}
	return b.String()
}

// Unwrap is the error's Kind.
func (e *Error) Unwrap() error { return e.Kind }
