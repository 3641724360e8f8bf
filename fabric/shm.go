package fabric

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// shmDir is where the shm provider and older efa keep their files.
const shmDir = "/dev/shm"

// shmName is a file's name as the shm provider makes it from its process: process
// id, user id, and the endpoint's number, for some messages with theirs.
var shmName = regexp.MustCompile(`^([1-9][0-9]{0,9}):([0-9]{1,10}):[0-9]{1,10}(_[0-9]{1,20})?$`)

// RemoveShared removes the shared-memory files of the shm provider that process
// pid, of this process's pid namespace, has left. It returns how many there are
// that it did not: of a process that lives, and may still open or remove them.
func RemoveShared(pid int) (left int, err error) { return removeShared(shmDir, pid, gone) }

func removeShared(dir string, pid int, gone func(int) bool) (left int, err error) {
	names, err := shared(dir, func(p int) bool { return p == pid })
	if err != nil || len(names) == 0 {
		return 0, err
	}
	if !gone(pid) {
		return len(names), nil
	}
	var errs []error
	for _, n := range names {
		errs = append(errs, remove(dir, n))
	}
	return 0, errors.Join(errs...)
}

// removeOwn removes the file of an endpoint of this process; name is its address.
func removeOwn(dir string, name []byte) error {
	s := strings.TrimRight(string(name), "\x00")
	if _, after, ok := strings.Cut(s, "://"); ok {
		s = after
	}
	if m := shmName.FindStringSubmatch(s); m == nil || m[1] != strconv.Itoa(os.Getpid()) {
		return nil
	}
	return remove(dir, s)
}

// RemoveStale removes this user's shared-memory files of the shm provider whose
// process is gone and which no process maps: both sides of a run were killed.
// Within a pid namespace it does nothing, since a process that lives may not be
// seen there.
func RemoveStale() error {
	const initial = "pid:[4026531836]" // PROC_PID_INIT_INO
	if ns, err := os.Readlink("/proc/self/ns/pid"); err != nil || ns != initial {
		return nil
	}
	return removeStale(shmDir, gone)
}

func removeStale(dir string, gone func(int) bool) error {
	names, err := shared(dir, gone)
	if err != nil || len(names) == 0 {
		return err
	}
	maps, err := filepath.Glob("/proc/[0-9]*/maps")
	if err != nil {
		return err
	}
	for _, m := range maps {
		b, err := os.ReadFile(m)
		if err != nil {
			continue // it ended, or is another user's, who cannot open this one's files
		}
		names = slices.DeleteFunc(names, func(n string) bool { return bytes.Contains(b, []byte(filepath.Join(dir, n)+"\n")) })
	}
	var errs []error
	for _, n := range names {
		errs = append(errs, remove(dir, n))
	}
	return errors.Join(errs...)
}

// shared lists the files in dir that have the shm provider's form, this user's
// number, and a process that of says yes to.
func shared(dir string, of func(pid int) bool) ([]string, error) {
	es, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return nil, nil // then the provider cannot have made any
	}
	if err != nil {
		return nil, fmt.Errorf("shared memory: %w", err)
	}
	var out []string
	for _, e := range es {
		m := shmName.FindStringSubmatch(e.Name())
		if m == nil || m[2] != strconv.Itoa(os.Geteuid()) {
			continue
		}
		if pid, err := strconv.Atoi(m[1]); err == nil && of(pid) {
			out = append(out, e.Name())
		}
	}
	return out, nil
}

// sweepEFA removes the shared-memory file of a peer over efa that was killed
// before it could: efa keeps one an endpoint for its same-host shortcut, used or
// not. peer proves nothing but what sweep checks.
func sweepEFA(dir string, peer Address) error {
	const gidLen, qkeyAt = 16, 20 // then 2 bytes of queue pair number, 2 of padding, 4 of key
	if len(peer.Name) < qkeyAt+4 || peer.PID <= 1 {
		return nil
	}
	gid, qpn := netip.AddrFrom16([gidLen]byte(peer.Name)), binary.NativeEndian.Uint16(peer.Name[gidLen:])
	if !gone(peer.PID) {
		return nil
	}
	return remove(dir, fmt.Sprintf("%s_%04x_%08x_%04x", gid, qpn, binary.NativeEndian.Uint32(peer.Name[qkeyAt:]), os.Getuid()))
}

// remove removes the regular file of this user named name in dir.
func remove(dir, name string) error {
	path := filepath.Join(dir, name)
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("shared memory %s: %w", path, err)
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !info.Mode().IsRegular() || !ok || int(st.Uid) != os.Geteuid() {
		return nil
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("shared memory %s: %w", path, err)
	}
	return nil
}

// gone reports whether a process has ended, be it unreaped.
func gone(pid int) bool {
	if errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
		return true
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return errors.Is(err, fs.ErrNotExist)
	}
	// The state follows the command's name, which is in parentheses.
	_, after, _ := strings.Cut(string(b[strings.LastIndexByte(string(b), ')')+1:]), " ")
	return strings.HasPrefix(after, "Z") || strings.HasPrefix(after, "X")
}
