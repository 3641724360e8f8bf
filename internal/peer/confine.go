package peer

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A session's process runs libraries on what another host sends, and who reaches
// a UCX port can have it run anything. So it gives up what it does not need:
// before it loads a library, since what is given up holds for a process's later
// threads only, and for a program that it becomes.

// Confinement is how much a session's process gives up.
type Confinement string

// Shared memory between two processes needs that each can reach the other's
// files and memory, which Landlock forbids to a confined one; so initiators of
// this host leave it out.
const (
	ConfineLocal  Confinement = "local"  // the initiator is on this host
	ConfineRemote Confinement = "remote" // it is elsewhere
)

// confinementFor is how to confine the session of a client.
func confinementFor(local, remote net.Addr) Confinement {
	l, ok1 := local.(*net.TCPAddr)
	r, ok2 := remote.(*net.TCPAddr)
	if ok1 && ok2 && (r.IP.IsLoopback() || r.IP.Equal(l.IP)) {
		return ConfineLocal
	}
	return ConfineRemote
}

// passed are the environment variables that a session's process gets, besides
// those with a prefix of passedPrefixes.
var passed = []string{"PATH", "HOME", "USER", "LOGNAME", "LANG", "LANGUAGE", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "LD_PRELOAD", "SYSFS_PATH", "MALLOC_ARENA_MAX",
	"GOMAXPROCS", "GODEBUG", "GOGC", "GOMEMLIMIT", "GOTRACEBACK", "GOCOVERDIR", "ASAN_OPTIONS", "LSAN_OPTIONS"}

var passedPrefixes = []string{"LC_", "XDG_", "FI_", "UCX_", "NCCL_", "NIXL_", "CUDA_", "NVIDIA_", "RDMAV_", "IBV_", "MLX4_", "MLX5_", "EFA_",
	"PSM2_", "PSM3_", "HFI_", "IPATH_", "OMP_", "XFERBENCH_"}

// sessionEnvironment is the part of environ that a session's process gets. What
// is called a secret never is in it.
func sessionEnvironment(environ []string) []string {
	return slices.DeleteFunc(slices.Clone(environ), func(kv string) bool {
		k, _, _ := strings.Cut(kv, "=")
		for _, word := range []string{"SECRET", "TOKEN", "PASSWORD", "CREDENTIAL"} {
			if strings.Contains(k, word) {
				return true
			}
		}
		return strings.HasSuffix(k, "_KEY") || !slices.Contains(passed, k) &&
			!slices.ContainsFunc(passedPrefixes, func(p string) bool { return strings.HasPrefix(k, p) })
	})
}

// unconfined says what this kernel lacks, or does not let this process do.
func unconfined() []string {
	var out []string
	if _, err := landlockABI(); err != nil {
		out = append(out, fmt.Sprintf("no Landlock (%v): sessions can write wherever this user can", err))
	}
	if err := seccompAvailable(); err != nil {
		out = append(out, fmt.Sprintf("no seccomp filters (%v): sessions can start programs", err))
	}
	return out
}

// becomeConfined gives up what a session's process does not need and becomes the
// same program again, with argv and what it then reads from standard input: so
// all its threads are confined. libraries are files that it will load. It
// returns only an error.
func becomeConfined(how Confinement, argv []string, stdin []byte, libraries ...string) error {
	// What this thread gives up is the new program's.
	runtime.LockOSThread()
	if err := refill(stdin); err != nil {
		return fmt.Errorf("confining the session: standard input: %w", err)
	}
	if err := unix.CloseRange(3, ^uint(0), unix.CLOSE_RANGE_CLOEXEC); err != nil && !errors.Is(err, unix.ENOSYS) && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("confining the session: descriptors: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("confining the session: no_new_privs: %w", err)
	}
	if how == ConfineRemote {
		if err := landlock(libraries); err != nil {
			return fmt.Errorf("confining the session: Landlock: %w", err)
		}
	}
	err := unix.Exec("/proc/self/exe", argv, os.Environ())
	return fmt.Errorf("confining the session: starting again: %w", err)
}

// refill makes b, which a pipe holds, what standard input has.
func refill(b []byte) error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	// A full pipe is an error, and not a wait.
	if err := unix.SetNonblock(int(w.Fd()), true); err != nil {
		return errors.Join(err, r.Close(), w.Close())
	}
	n, err := unix.Write(int(w.Fd()), b)
	if err == nil && n < len(b) {
		err = io.ErrShortWrite
	}
	return errors.Join(err, w.Close(), unix.Dup3(int(r.Fd()), 0, 0))
}

// confineSession is what is left to give up in the program that becomeConfined
// became.
func confineSession(how Confinement) error {
	if how == ConfineRemote {
		// No other process of this user may look into this one; nor does it leave
		// its memory in a file.
		if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
			return fmt.Errorf("confining the session: dumpable: %w", err)
		}
	}
	if seccompAvailable() != nil {
		return nil
	}
	if err := seccomp(deniedCalls(how)); err != nil {
		return fmt.Errorf("confining the session: seccomp: %w", err)
	}
	return nil
}

// deniedCalls are system calls that no transfer needs: to start programs, to
// look into processes, to change what the host or this process sees of files,
// and the kernel's less used entrances.
func deniedCalls(how Confinement) []uint32 {
	calls := []uint32{
		unix.SYS_EXECVE, unix.SYS_EXECVEAT,
		unix.SYS_MOUNT, unix.SYS_UMOUNT2, unix.SYS_PIVOT_ROOT, unix.SYS_CHROOT, unix.SYS_UNSHARE, unix.SYS_SETNS,
		unix.SYS_MOVE_MOUNT, unix.SYS_OPEN_TREE, unix.SYS_FSOPEN, unix.SYS_FSMOUNT, unix.SYS_FSCONFIG, unix.SYS_FSPICK, unix.SYS_MOUNT_SETATTR,
		unix.SYS_KEXEC_LOAD, unix.SYS_KEXEC_FILE_LOAD, unix.SYS_INIT_MODULE, unix.SYS_FINIT_MODULE, unix.SYS_DELETE_MODULE,
		unix.SYS_BPF, unix.SYS_USERFAULTFD, unix.SYS_PERF_EVENT_OPEN, unix.SYS_OPEN_BY_HANDLE_AT,
		unix.SYS_ADD_KEY, unix.SYS_REQUEST_KEY, unix.SYS_KEYCTL,
		unix.SYS_REBOOT, unix.SYS_SWAPON, unix.SYS_SWAPOFF, unix.SYS_ACCT, unix.SYS_QUOTACTL,
	}
	if !leakChecked {
		calls = append(calls, unix.SYS_PTRACE)
	}
	if how == ConfineRemote {
		// Shared memory's other way into a process.
		calls = append(calls, unix.SYS_PROCESS_VM_READV, unix.SYS_PROCESS_VM_WRITEV, unix.SYS_KCMP, unix.SYS_PIDFD_GETFD)
	}
	return calls
}

func seccompAvailable() error {
	action := uint32(unix.SECCOMP_RET_ERRNO)
	if _, _, e := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_GET_ACTION_AVAIL, 0, uintptr(unsafe.Pointer(&action))); e != 0 {
		return e
	}
	return nil
}

// Offsets in struct seccomp_data, and the bit of amd64's x32 calls.
const (
	seccompNr   = 0
	seccompArch = 4
	x32Bit      = 0x40000000
)

// seccomp makes calls fail with EPERM in all threads of this process, and those
// of another architecture's numbers too.
func seccomp(calls []uint32) error {
	arch := map[string]uint32{"amd64": unix.AUDIT_ARCH_X86_64, "arm64": unix.AUDIT_ARCH_AARCH64}[runtime.GOARCH]
	if arch == 0 {
		return fmt.Errorf("not known for %s", runtime.GOARCH)
	}
	deny := uint8(len(calls) + 1) // from the first jump to the last instruction
	f := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: seccompArch},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: arch, Jf: deny + 2},
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: seccompNr},
		{Code: unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K, K: x32Bit, Jt: deny},
	}
	for i, nr := range calls {
		f = append(f, unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: nr, Jt: uint8(len(calls) - i)})
	}
	f = append(f, unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
		unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)})
	prog := unix.SockFprog{Len: uint16(len(f)), Filter: &f[0]}
	r, _, e := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&prog)))
	runtime.KeepAlive(f)
	switch {
	case e != 0:
		return e
	case r != 0:
		return fmt.Errorf("thread %d has a filter of its own", r)
	}
	return nil
}

func landlockABI() (int, error) {
	v, _, e := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if e != 0 {
		return 0, e
	}
	return int(v), nil
}

// What Landlock decides on here. Reading folders and executing stay free: a
// folder's names are little, and seccomp keeps programs from starting.
const (
	landlockWrite = unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_REMOVE_DIR | unix.LANDLOCK_ACCESS_FS_REMOVE_FILE |
		unix.LANDLOCK_ACCESS_FS_MAKE_CHAR | unix.LANDLOCK_ACCESS_FS_MAKE_DIR | unix.LANDLOCK_ACCESS_FS_MAKE_REG |
		unix.LANDLOCK_ACCESS_FS_MAKE_SOCK | unix.LANDLOCK_ACCESS_FS_MAKE_FIFO | unix.LANDLOCK_ACCESS_FS_MAKE_BLOCK |
		unix.LANDLOCK_ACCESS_FS_MAKE_SYM
	landlockRead = unix.LANDLOCK_ACCESS_FS_READ_FILE
)

// landlock leaves this thread, and what comes of it, files to read outside of
// home folders, files to write in /dev, and new files in /dev/shm. A kernel
// without Landlock is no error: serve's log says so.
func landlock(libraries []string) error {
	abi, err := landlockABI()
	if err != nil {
		return nil
	}
	attr := unix.LandlockRulesetAttr{Handled_access_fs: landlockWrite | landlockRead}
	size := unsafe.Offsetof(attr.Handled_access_net) // the first version's
	write := uint64(landlockWrite)
	if abi >= 2 {
		write |= unix.LANDLOCK_ACCESS_FS_REFER
	}
	if abi >= 3 {
		write |= unix.LANDLOCK_ACCESS_FS_TRUNCATE
	}
	if abi >= 6 {
		attr.Scoped = unix.LANDLOCK_SCOPE_SIGNAL // signals to processes that are not confined with it
		size = unsafe.Offsetof(attr.Quiet_access_fs)
	}
	attr.Handled_access_fs = write | landlockRead
	fd, _, e := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(&attr)), size, 0)
	if e != 0 {
		return e
	}
	defer unix.Close(int(fd))
	for _, p := range readable(libraries) {
		if err := landlockRule(int(fd), p, landlockRead); err != nil {
			return err
		}
	}
	file := write & (unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_TRUNCATE)
	for path, access := range map[string]uint64{"/dev": file, "/dev/shm": write} {
		if err := landlockRule(int(fd), path, access); err != nil {
			return err
		}
	}
	if _, _, e := unix.Syscall(unix.SYS_LANDLOCK_RESTRICT_SELF, fd, 0, 0); e != 0 {
		return e
	}
	return nil
}

// landlockRule allows access below path; a path that is not there needs none.
func landlockRule(ruleset int, path string, access uint64) error {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	defer unix.Close(fd)
	rule := unix.LandlockPathBeneathAttr{Allowed_access: access, Parent_fd: int32(fd)}
	if _, _, e := unix.Syscall6(unix.SYS_LANDLOCK_ADD_RULE, uintptr(ruleset), unix.LANDLOCK_RULE_PATH_BENEATH, uintptr(unsafe.Pointer(&rule)), 0, 0, 0); e != 0 {
		return fmt.Errorf("%s: %w", path, e)
	}
	return nil
}

// systemFolders hold no user's files, whatever $HOME says.
var systemFolders = []string{"bin", "boot", "dev", "etc", "gnu", "lib", "lib32", "lib64", "nix", "opt", "proc", "run", "sbin", "snap", "sys", "usr", "var"}

// readable are the files and folders that a session's process may read: all but
// home folders, and in those the program and the libraries that were named.
func readable(libraries []string) []string {
	out := []string{"/proc/self/exe"}
	top, _, _ := strings.Cut(strings.TrimPrefix(filepath.Clean(os.Getenv("HOME")), "/"), "/")
	hidden := []string{"home", "root"}
	if !slices.Contains(systemFolders, top) {
		hidden = append(hidden, top)
	}
	entries, err := os.ReadDir("/")
	if err != nil {
		entries = nil
		for _, f := range systemFolders {
			out = append(out, "/"+f)
		}
	}
	for _, e := range entries {
		// A file of the root folder takes the right to read too; a link is what it
		// points to.
		if !slices.Contains(hidden, e.Name()) {
			out = append(out, "/"+e.Name())
		}
	}
	libraries = append(slices.Clone(libraries), os.Getenv("XFERBENCH_LIBFABRIC"), os.Getenv("XFERBENCH_LIBUCP"))
	libraries = append(libraries, strings.FieldsFunc(os.Getenv("LD_PRELOAD"), func(r rune) bool { return r == ':' || r == ' ' })...)
	for _, l := range libraries {
		if strings.HasPrefix(l, "/") {
			out = append(out, filepath.Dir(l))
			if target, err := filepath.EvalSymlinks(l); err == nil {
				out = append(out, filepath.Dir(target))
			}
		}
	}
	for _, list := range []string{"LD_LIBRARY_PATH", "UCX_MODULE_DIR", "FI_PROVIDER_PATH"} {
		for _, d := range filepath.SplitList(os.Getenv(list)) {
			if strings.HasPrefix(d, "/") {
				out = append(out, d)
			}
		}
	}
	return out
}
