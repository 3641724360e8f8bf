package fabric

// #include <rdma/fi_errno.h>
// #include "ofi.h"
import "C"

import (
	"errors"
	"syscall"
)

// Errno is a code of fi_errno(3), positive. An [*Error] wraps the one that the
// call returned, so that errors.Is(err, fabric.ErrAgain) asks for it. Codes below
// 256 are those of errno(3): errors.Is matches the syscall.Errno of the same
// number, and what that matches.
type Errno int

// Codes that callers tell apart; fi_errno(3) has all.
const (
	ErrNotPermitted   Errno = C.FI_EPERM
	ErrIO             Errno = C.FI_EIO
	ErrAgain          Errno = C.FI_EAGAIN // the queue is full, or not connected yet: poll, then try again
	ErrNoMemory       Errno = C.FI_ENOMEM
	ErrAccess         Errno = C.FI_EACCES
	ErrBusy           Errno = C.FI_EBUSY
	ErrInvalid        Errno = C.FI_EINVAL
	ErrTooManyFiles   Errno = C.FI_EMFILE
	ErrNoSpace        Errno = C.FI_ENOSPC
	ErrNotImplemented Errno = C.FI_ENOSYS
	ErrNoData         Errno = C.FI_ENODATA // fi_getinfo found nothing that fits
	ErrTooLong        Errno = C.FI_EMSGSIZE
	ErrNotSupported   Errno = C.FI_EOPNOTSUPP
	ErrNoAddress      Errno = C.FI_EADDRNOTAVAIL
	ErrUnreachable    Errno = C.FI_EHOSTUNREACH
	ErrAborted        Errno = C.FI_ECONNABORTED
	ErrReset          Errno = C.FI_ECONNRESET
	ErrNotConnected   Errno = C.FI_ENOTCONN
	ErrShutdown       Errno = C.FI_ESHUTDOWN
	ErrTimedOut       Errno = C.FI_ETIMEDOUT
	ErrRefused        Errno = C.FI_ECONNREFUSED
	ErrCanceled       Errno = C.FI_ECANCELED
	ErrTooSmall       Errno = C.FI_ETOOSMALL
	ErrBadState       Errno = C.FI_EOPBADSTATE
	ErrAvailable      Errno = C.FI_EAVAIL // a queue holds an error
	ErrTruncated      Errno = C.FI_ETRUNC
	ErrNoKey          Errno = C.FI_ENOKEY
	ErrOverrun        Errno = C.FI_EOVERRUN
)

// ownWords are fi_strerror's for codes that errno(3) does not have.
var ownWords = map[Errno]string{
	C.FI_EOTHER: "Unspecified error", ErrTooSmall: "Provided buffer is too small", ErrBadState: "Operation not permitted in current state",
	ErrAvailable: "Error available", C.FI_EBADFLAGS: "Flags not supported", C.FI_ENOEQ: "Missing or unavailable event queue",
	C.FI_EDOMAIN: "Invalid resource domain", C.FI_ENOCQ: "Missing or unavailable completion queue", C.FI_ECRC: "CRC error",
	ErrTruncated: "Truncation error", ErrNoKey: "Required key not available", C.FI_ENOAV: "Missing or unavailable address vector",
	ErrOverrun: "Queue has been overrun",
}

// Error is the words of a library that is loaded, else those of errno(3).
// Wraps: fi_strerror (fi_errno(3)).
func (e Errno) Error() string {
	loaded.Lock()
	defer loaded.Unlock()
	for _, l := range loaded.by {
		return C.GoString(C.xb_ofi_strerror(l.table, C.int(e)))
	}
	return e.words()
}

// words are the code's where no library is loaded.
func (e Errno) words() string {
	if w, ok := ownWords[e]; ok {
		return w
	}
	return syscall.Errno(e).Error()
}

// Is matches the error of the operating system with the same number.
func (e Errno) Is(target error) bool { return e > 0 && e < 256 && errors.Is(syscall.Errno(e), target) }
