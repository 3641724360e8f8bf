// Package dltest serves the tests of package dl, which cannot use cgo themselves.
package dltest

// #include <signal.h>
import "C"

import "syscall"

// Ignore sets a signal's action behind Go's back, as a native library does.
func Ignore(s syscall.Signal) { C.signal(C.int(s), C.SIG_IGN) }
