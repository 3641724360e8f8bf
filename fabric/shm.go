package fabric

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
)

// shmName is a region's file name as the shm provider makes it from its
// process: process id, user id, and the endpoint's number.
var shmName = regexp.MustCompile(`^([1-9][0-9]{0,9}):([0-9]{1,10}):[0-9]{1,10}$`)

// sweepShared removes the shared-memory file of a peer of the shm provider that
// was killed before it could. name is the peer's address, so it proves nothing
// but what is checked: it must have the provider's form, the process must be
// gone, and the file must be a regular one of this user in dir.
func sweepShared(dir string, name []byte) error {
	if s, pid := shmFile(name); s != "" && gone(pid) {
		return remove(dir, s, pid)
	}
	return nil
}

// removeShared removes the shared-memory file of an endpoint of this process.
func removeShared(dir string, name []byte) error {
	if s, pid := shmFile(name); s != "" && pid == os.Getpid() {
		return remove(dir, s, pid)
	}
	return nil
}

// shmFile is the file and the process that an address of the shm provider
// names; none if it has another form.
func shmFile(name []byte) (file string, pid int) {
	s := strings.TrimRight(string(name), "\x00")
	if _, after, ok := strings.Cut(s, "://"); ok {
		s = after
	}
	m := shmName.FindStringSubmatch(s)
	if m == nil {
		return "", 0
	}
	pid, err := strconv.Atoi(m[1])
	if err != nil {
		return "", 0
	}
	return s, pid
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
	return remove(dir, fmt.Sprintf("%s_%04x_%08x_%04x", gid, qpn, binary.NativeEndian.Uint32(peer.Name[qkeyAt:]), os.Getuid()), peer.PID)
}

// remove removes the regular file of this user named name in dir, which process
// pid will not.
func remove(dir, name string, pid int) error {
	path := filepath.Join(dir, name)
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("shared memory of process %d: %w", pid, err)
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !info.Mode().IsRegular() || !ok || int(st.Uid) != os.Geteuid() {
		return nil
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("shared memory of process %d: %w", pid, err)
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
