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
		e.Status += ": " + what
		e.Hint = next
	}
}

// sharedWords are those of UCX's log about shared memory.
var sharedWords = regexp.MustCompile(`/dev/shm|shm_open|\bmd posix\b|\bmm_|[Ss]hared memory`)

// environmentWords names the settings that the user's environment has, of those
// in force.
func environmentWords(inForce map[string]string) string {
	var set []string
	for k, v := range inForce {
		if env, ok := os.LookupEnv(k); ok && env == v && strings.HasPrefix(k, "UCX_") {
			set = append(set, k+"="+v)
		}
	}
	if set == nil {
		return ""
	}
	slices.Sort(set)
	return "; the environment has " + strings.Join(set, ", ")
}

// Unwrap is the sentinel that the error belongs to, or nil.
func (e *Error) Unwrap() error { return e.kind }
