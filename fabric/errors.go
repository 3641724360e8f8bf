package fabric

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Kinds of failure, for errors.Is.
var (
	// ErrNoLibrary: no libfabric could be loaded.
	ErrNoLibrary = errors.New("libfabric cannot be loaded")
	// ErrPermission: the device is there but this user may not open it.
	ErrPermission = errors.New("no permission")
	// ErrMemlock: the limit of locked memory is too small for a registration.
	ErrMemlock = errors.New("locked-memory limit")
	// ErrUnsupported: the provider is there and cannot do what was asked.
	ErrUnsupported = errors.New("not supported by the provider")
	// ErrUnavailable: the provider is not there, or cannot be opened: the
	// process or host is out of something, or the reason is not known better.
	ErrUnavailable = errors.New("provider unavailable")
)

// Hint is the next step after a failure, in words. Those that a program may word
// with settings of its own are constants, to be compared with.
type Hint string

const (
	// HintLoad follows where no library was found.
	HintLoad Hint = "install it (Debian: apt install libfabric1; on EC2 the EFA installer), or load one by its path"
	// HintOther follows where the file is not a libfabric.
	HintOther Hint = "this is not a libfabric; load another file"
	// HintNone follows where nothing fits what was asked for.
	HintNone Hint = "`fi_info` lists what there is, FI_LOG_LEVEL=info says more"
	// HintLanding follows where WRITE has no proof of landing.
	HintLanding Hint = "run READ or SEND instead"
	// HintGPUDirect follows where GPU memory cannot be registered.
	HintGPUDirect Hint = "GPUDirect needs a libfabric built with CUDA and dmabuf or nv_peer_mem in the kernel; or use pinned host memory"
)

// Error is a call that libfabric refused, or a host that cannot run a provider.
// ucx.Error has the same shape. errors.Is finds Kind and Errno in it.
type Error struct {
	Call     string // "fi_getinfo", "fi_mr_regattr"; "" when none was made
	Provider string // as the caller named it
	Errno    Errno  // 0 for none
	Kind     error  // one of the Err values of type error, or nil
	Detail   string // the cause, in the library's words where it had any
	Hint     Hint   // the next step, or ""
	// Environment holds what is set of the variables that libfabric reads
	// ("FI_PROVIDER=tcp"), where one of them may be the cause.
	Environment []string
}

// Error is "provider: call: detail (errno); next step".
func (e *Error) Error() string {
	var b strings.Builder
	if e.Provider != "" {
		b.WriteString(e.Provider + ": ")
	}
	if e.Call != "" {
		b.WriteString(e.Call + ": ")
	}
	b.WriteString(e.Detail)
	if e.Errno != 0 {
		fmt.Fprintf(&b, " (%d)", int(e.Errno))
	}
	if next := e.Next(); next != "" {
		b.WriteString("; " + next)
	}
	return b.String()
}

// Next is the next step in words: the hint, and the environment.
func (e *Error) Next() string {
	var parts []string
	if e.Hint != "" {
		parts = append(parts, string(e.Hint))
	}
	if len(e.Environment) > 0 {
		parts = append(parts, "the environment has "+strings.Join(e.Environment, ", "))
	}
	return strings.Join(parts, "; ")
}

// Unwrap is the error's Kind and its Errno, those that it has.
func (e *Error) Unwrap() []error {
	var errs []error
	if e.Errno != 0 {
		errs = append(errs, e.Errno)
	}
	return slices.DeleteFunc(append(errs, e.Kind), func(err error) bool { return err == nil })
}
