package remote

import (
	"errors"
	"fmt"
	"os/exec"
	"regexp"
	"strings"
	"syscall"

	"github.com/xferbench/xferbench/internal/fault"
)

// ErrCrashed is matched by the ending of a process that a library or the kernel
// ended, not a fault of this program.
var ErrCrashed = fault.New(fault.Unavailable, "was ended")

// ErrFault is matched by the ending of a process that this program's own fault
// ended.
var ErrFault = errors.New("failed")

var (
	signalLine = regexp.MustCompile(`(?m)^(SIG[A-Z0-9]+): (.*)$`)
	faultLine  = regexp.MustCompile(`(?m)^(?:panic|fatal error): .*$`)
	// cgoFrame is the first line of a Go trace that names a call into C.
	cgoFrame = regexp.MustCompile(`(?m)\._Cfunc_(\w+)\(`)
)

// Ending says how a process of this program ended that did not tell an exit
// code of its own: err is what Wait returned, words what it wrote last. A crash
// of the Go runtime exits with 2, as usage errors do, so codes say nothing.
func Ending(err error, words string) error {
	sig, fault := signalLine.FindStringSubmatchIndex(words), faultLine.FindStringIndex(words)
	switch {
	case fault != nil && (sig == nil || fault[0] < sig[0]):
		return fmt.Errorf("%w: %s", ErrFault, words[fault[0]:fault[1]])
	case sig != nil:
		name, what := words[sig[2]:sig[3]], words[sig[4]:sig[5]]
		if name == "SIGQUIT" {
			return fmt.Errorf("%w: %s", ErrFault, name)
		}
		where := ""
		if c := cgoFrame.FindStringSubmatch(words); c != nil {
			where = ", inside " + c[1]
		} else if strings.Contains(words, "during cgo execution") {
			where = ", inside a library"
		}
		return fmt.Errorf("%w by %s (%s)%s", ErrCrashed, name, what, where)
	}
	var e *exec.ExitError
	if !errors.As(err, &e) {
		if err == nil {
			return fmt.Errorf("%w without a word, exit status 0: a library may have ended it", ErrCrashed)
		}
		return fmt.Errorf("%w: %w", ErrFault, err)
	}
	ws, ok := e.Sys().(syscall.WaitStatus)
	switch {
	case ok && ws.Signaled() && ws.Signal() == syscall.SIGKILL:
		return fmt.Errorf("%w by SIGKILL: perhaps by the kernel, for want of memory (dmesg says so)", ErrCrashed)
	case ok && ws.Signaled():
		return fmt.Errorf("%w by signal %d (%v)", ErrCrashed, int(ws.Signal()), ws.Signal())
	}
	return fmt.Errorf("%w without a word, %w: a library may have ended it", ErrCrashed, err)
}
