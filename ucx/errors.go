package ucx

import (
	"errors"
	"os"
	"regexp"
	"slices"
	"strings"
	"syscall"

	"github.com/xferbench/xferbench/cgo/mem"
)

// Kinds of failure, for errors.Is.
var (
	// ErrUnavailable: the library, or a transport that was asked for, is not
	// on this host.
	ErrUnavailable = errors.New("UCX unavailable")
	// ErrUnsupported: this build of UCX cannot do it.
	ErrUnsupported = errors.New("not supported by this UCX")
	// ErrSetting: a setting that UCX does not know or a value that it refuses.
	ErrSetting = errors.New("UCX refuses the setting")
)

// Hint is the next step after a failure, in words. Those that a program may word
// with settings of its own are constants, to be compared with.
type Hint string

const (
	// HintLoad follows where no library was found.
	HintLoad Hint = "install UCX (Debian: libucx0) or load a build by its path"
	// HintSettings follows where UCX refuses a setting.
	HintSettings Hint = "`ucx_info -cf` lists the settings"
	// HintCUDA follows where UCX moves host memory only.
	HintCUDA Hint = "use a UCX built with CUDA, such as the one in the nixl wheel, and name cuda_copy among the transports: UCX_TLS=tcp,cuda_copy"
	// HintCopy follows where the transports cannot tell GPU memory from host memory.
	HintCopy Hint = "name cuda_copy among the transports: UCX_TLS=tcp,cuda_copy"
)

// Error is a failed call: what was tried, UCX's own words, and the next step.
// fabric.Error has the same shape. errors.Is finds Kind and Status in it.
type Error struct {
	Call   string // "ucp_init", "loading libucp.so.0"
	Status Status // 0 for none
	Kind   error  // one of the Err values of type error, or nil
	Detail string // the cause, in UCX's words where it had any
	Log    string // what UCX logged meanwhile, one line each
	Hint   Hint   // the next step, or ""
	// Environment holds what is set of the variables that UCX reads
	// ("UCX_TLS=rc"), where one of them may be the cause.
	Environment []string
}

// Error is "call: detail: log; next step".
func (e *Error) Error() string {
	parts := []string{e.Call}
	if e.Detail != "" {
		parts = append(parts, e.Detail)
	}
	if e.Log != "" {
		parts = append(parts, strings.ReplaceAll(e.Log, "\n", "; "))
	}
	s := strings.Join(parts, ": ")
	if next := e.Next(); next != "" {
		s += "; " + next
	}
	return s
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

// Unwrap is the error's Kind and its Status, those that it has.
func (e *Error) Unwrap() []error {
	var errs []error
	if e.Status != 0 {
		errs = append(errs, e.Status)
	}
	return slices.DeleteFunc(append(errs, e.Kind), func(err error) bool { return err == nil })
}

// sharedBytes is what a worker takes of /dev/shm at least, rounded up: UCX 1.13
// wants 4,292,720 bytes for its descriptors and a queue beside.
const sharedBytes = 5 << 20

// explain adds what this process or host has run out of, where that shows: as
// errno, or in the words of UCX's log.
func (e *Error) explain(errno syscall.Errno) {
	for _, w := range []struct {
		words string
		errno syscall.Errno
	}{
		{"Too many open files in system", syscall.ENFILE}, {"Too many open files", syscall.EMFILE}, {"maximal number of files", syscall.EMFILE},
		{"No space left", syscall.ENOSPC}, {"Read-only file system", syscall.EROFS}, {"Cannot allocate memory", syscall.ENOMEM},
	} {
		if strings.Contains(e.Log, w.words) {
			errno = w.errno
			break
		}
	}
	shared := uint64(0)
	if sharedWords.MatchString(e.Log) {
		shared = sharedBytes
	}
	if what, next := mem.Shortage(errno, shared); what != "" {
		e.Detail += ": " + what
		e.Hint, e.Environment = Hint(next), nil
	}
}

// sharedWords are those of UCX's log about shared memory.
var sharedWords = regexp.MustCompile(`/dev/shm|shm_open|\bmd posix\b|\bmm_|[Ss]hared memory`)

// environmentWords lists the settings that the user's environment has, of those
// in force.
func environmentWords(inForce map[string]string) []string {
	var set []string
	for k, v := range inForce {
		if env, ok := os.LookupEnv(k); ok && env == v && strings.HasPrefix(k, "UCX_") {
			set = append(set, k+"="+v)
		}
	}
	slices.Sort(set)
	return set
}
