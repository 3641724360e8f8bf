package live

import (
	"bufio"
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// written tells whether a process but this one has the file path open to write, as
// far as this user may see: known is false where there is no /proc to look at.
func written(path string) (open, known bool) {
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
			if err == nil && os.SameFile(is, want) && writes(filepath.Join(p, "fdinfo", fd.Name())) {
				return true, true
			}
		}
	}
	return false, true
}

// writes reads how a descriptor was opened: the last two bits of its octal flags are
// O_RDONLY, O_WRONLY or O_RDWR (proc_pid_fdinfo(5)). One that cannot be read may be
// written to.
func writes(info string) bool {
	b, err := os.ReadFile(info)
	if err != nil {
		return true
	}
	for sc := bufio.NewScanner(bytes.NewReader(b)); sc.Scan(); {
		if text, is := strings.CutPrefix(sc.Text(), "flags:"); is {
			flags, err := strconv.ParseUint(strings.TrimSpace(text), 8, 64)
			return err != nil || flags&3 != 0
		}
	}
	return true
}
