package mem

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// sharedDir is where the C library keeps POSIX shared memory.
const sharedDir = "/dev/shm"

// fewFiles is how many descriptors a library may want at once: with fewer left,
// their lack is the likely cause of whatever failed. Libraries give the code
// that the kernel gave them for some calls, and others for most.
const fewFiles = 16

// Shortage explains a native library's call that failed with errno, 0 where the
// library has none, by what this process or host has run out of: in words, with
// the next step. Both are "" where nothing is short. shared is how many bytes of
// /dev/shm the call needs, 0 where it does not use it.
func Shortage(errno syscall.Errno, shared uint64) (what, next string) {
	if used, limit := Files(); errno == syscall.EMFILE || used+fewFiles > limit {
		return fmt.Sprintf("%d of the %d files that this process may have open are open", used, limit), moreFiles
	}
	if shared > 0 {
		if what, next = sharedShortage(sharedDir, shared); what != "" {
			return what, next
		}
	}
	switch errno {
	case syscall.ENFILE:
		return "this host's table of open files is full", "raise fs.file-max (sysctl), or end what holds files open (lsof)"
	case syscall.ENOSPC:
		return "a file system is full", "see `df` and `df -i`, for /dev/shm, /tmp and /dev/hugepages first"
	case syscall.EROFS:
		return "a file system is read-only", "mount /dev/shm and /tmp to be written to (`mount | grep ro,`; in containers a tmpfs or an emptyDir)"
	case syscall.EAGAIN:
		return "this user or control group may have no more threads or processes", "raise ulimit -u, or pids.max of the control group (docker --pids-limit)"
	case syscall.ENOMEM:
		return "no memory" + addressLimit(), "see `free`, ulimit -v, ulimit -l and the control group's memory.max; use fewer streams or a smaller size"
	}
	return "", ""
}

// The next steps where descriptors are short: for every command, and for one with
// transports.
const (
	raiseFiles = "raise ulimit -n (LimitNOFILE= of a systemd unit, docker --ulimit nofile=N)"
	moreFiles  = raiseFiles + ", or use fewer streams"
)

// MoreFiles is the next step where err is for want of descriptors, "" else.
func MoreFiles(err error) string {
	if errors.Is(err, syscall.EMFILE) {
		return raiseFiles
	}
	return ""
}

// NeedFiles is the error of a process that cannot open n more files, nil if it
// can: libraries crash for want of them.
func NeedFiles(n int) error {
	if used, limit := Files(); used+n > limit {
		return fmt.Errorf("%w: it takes about %d more, and %d of the %d that this process may have are open; %s",
			syscall.EMFILE, n, used, limit, moreFiles)
	}
	return nil
}

// Files is how many descriptors this process has, and how many it may have.
func Files() (used, limit int) {
	var r unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &r); err != nil {
		return 0, 1 << 30
	}
	limit = int(min(r.Cur, 1<<30))
	names, err := os.ReadDir("/proc/self/fd")
	switch {
	case errors.Is(err, syscall.EMFILE):
		return limit, limit
	case err != nil:
		return 0, limit
	}
	return len(names) - 1, limit // without the one that read them
}

// addressLimit is the limit of the address space in words, "" where there is none.
func addressLimit() string {
	var r unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_AS, &r); err != nil || r.Cur == unix.RLIM_INFINITY {
		return ""
	}
	return fmt.Sprintf(": this process may have %d bytes of address space (ulimit -v)", r.Cur)
}

// sharedShortage is [Shortage] for need bytes in dir.
func sharedShortage(dir string, need uint64) (what, next string) {
	var fs unix.Statfs_t
	err := unix.Statfs(dir, &fs)
	size := fs.Blocks * uint64(fs.Bsize)
	free := fs.Bavail * uint64(fs.Bsize)
	switch {
	case errors.Is(err, syscall.ENOENT):
		return "there is no " + dir, "mount one: mkdir -p " + dir + " && mount -t tmpfs tmpfs " + dir
	case err != nil:
		return fmt.Sprintf("%s: %v", dir, err), "see `ls -ld " + dir + "`"
	case fs.Flags&unix.ST_RDONLY != 0:
		return dir + " is read-only", "mount -o remount,rw " + dir + " (in containers: a tmpfs or an emptyDir with medium Memory there)"
	case unix.Access(dir, unix.W_OK|unix.X_OK) != nil:
		return "this user may not write to " + dir, "see `ls -ld " + dir + "`: chmod 1777 is usual"
	case fs.Blocks > 0 && free < need:
		state := "too small or too full"
		if free == 0 {
			state = "full"
		}
		return fmt.Sprintf("%s is %s: %d of its %d bytes are free, and %d are needed", dir, state, free, size, need),
			"remove what was left there (df " + dir + "; ls -l " + dir + "), or enlarge it: mount -o remount,size=N " + dir +
				", docker --shm-size, or an emptyDir with medium Memory"
	case fs.Files > 0 && fs.Ffree == 0:
		return fmt.Sprintf("%s is full: none of its %d inodes is free", dir, fs.Files), "remove what was left there (df -i " + dir + ")"
	}
	return "", ""
}
