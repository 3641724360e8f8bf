package live

import (
	"os"
	"path/filepath"
	"strconv"
)

// openElsewhere tells whether a process but this one has the file path open, as
// far as this user may see: known is false where there is no /proc to look at.
func openElsewhere(path string) (open, known bool) {
	want, err := os.Stat(path)
	if err != nil {
		return false, false
	}
	procs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil || len(procs) == 0 {
		return false, false
	}
	self := filepath.Join("/proc", strconv.Itoa(os.Getpid()))
	for _, p := range procs {
		if p == self {
			continue
		}
		fds, err := os.ReadDir(filepath.Join(p, "fd"))
		if err != nil {
			continue // another user's, or gone
		}
		for _, fd := range fds {
			is, err := os.Stat(filepath.Join(p, "fd", fd.Name()))
			if err == nil && os.SameFile(is, want) {
				return true, true
			}
		}
	}
	return false, true
}
