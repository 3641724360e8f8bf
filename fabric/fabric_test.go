package fabric

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/xferbench/xferbench/internal/testenv"
)

// source is a local address for providers that are given their NIC by one.
func source(provider string) string {
	if provider == "shm" {
		return ""
	}
	return "127.0.0.1"
}

func need(t testing.TB) *Library {
	t.Helper()
	lib, err := Load("")
	testenv.Need(t, "libfabric", err)
	return lib
}

// Of the files in /dev/shm only those are removed that the shm provider made in a
// process of this user that is gone.
func TestRemoveShared(t *testing.T) {
	const dead, mapped, alive = 101, 102, 103
	uid := os.Geteuid()
	mine := func(pid int) string { return fmt.Sprintf("%d:%d:0", pid, uid) }
	fill := func(t *testing.T) string {
		dir := t.TempDir()
		for _, n := range []string{mine(dead), mine(dead) + "_77", mine(mapped), mine(alive), fmt.Sprintf("%d:%d:0", dead, uid+1),
			"101", "101:x:0", mine(dead) + ".bak", "sem.101:0:0"} {
			if err := os.WriteFile(filepath.Join(dir, n), make([]byte, 4096), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Symlink("/dev/null", filepath.Join(dir, fmt.Sprintf("%d:%d:9", dead, uid))); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	gone := func(pid int) bool { return pid != alive }
	removed := func(t *testing.T, dir string, want ...string) {
		t.Helper()
		es, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		if len(es) != 10-len(want) {
			t.Errorf("%d files are left of 10, want %v removed", len(es), want)
		}
		for _, n := range want {
			if _, err := os.Lstat(filepath.Join(dir, n)); !os.IsNotExist(err) {
				t.Errorf("%s: %v, want it removed", n, err)
			}
		}
	}
	t.Run("a peer that is gone", func(t *testing.T) {
		dir := fill(t)
		if left, err := removeShared(dir, dead, gone); left != 0 || err != nil {
			t.Errorf("%d left, %v", left, err)
		}
		removed(t, dir, mine(dead), mine(dead)+"_77")
	})
	t.Run("a peer that lives", func(t *testing.T) {
		dir := fill(t)
		if left, err := removeShared(dir, alive, gone); left != 1 || err != nil {
			t.Errorf("%d left, %v", left, err)
		}
		removed(t, dir)
	})
	t.Run("both gone", func(t *testing.T) {
		dir := fill(t)
		f, err := os.OpenFile(filepath.Join(dir, mine(mapped)), os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		m, err := syscall.Mmap(int(f.Fd()), 0, 4096, syscall.PROT_READ, syscall.MAP_SHARED)
		if err != nil {
			t.Fatal(err)
		}
		if err := removeStale(dir, gone); err != nil {
			t.Error(err)
		}
		removed(t, dir, mine(dead), mine(dead)+"_77")
		if err := syscall.Munmap(m); err != nil {
			t.Fatal(err)
		}
		if err := removeStale(dir, gone); err != nil {
			t.Error(err)
		}
		removed(t, dir, mine(dead), mine(dead)+"_77", mine(mapped))
	})
	t.Run("an endpoint of this process", func(t *testing.T) {
		dir := t.TempDir()
		for _, n := range []string{"0", "1"} {
			if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("%d:%d:%s", os.Getpid(), uid, n)), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := removeOwn(dir, fmt.Appendf(nil, "fi_shm://%d:%d:1\x00", os.Getpid(), uid)); err != nil {
			t.Error(err)
		}
		if es, err := os.ReadDir(dir); err != nil || len(es) != 1 || !strings.HasSuffix(es[0].Name(), ":0") {
			t.Errorf("%v, %v are left, want endpoint 0 alone", es, err)
		}
	})
}

// The names are those that libfabric 1.17 and 2.1 gave to files of endpoints
// with these addresses.
func TestSweepEFA(t *testing.T) {
	cmd := exec.Command("true")
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	dead, alive := cmd.Process.Pid, os.Getpid()
	name := []byte{0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0xef, 0xa0, 0, 0, 0x31, 0x2f, 0x80, 0, 1, 0, 0, 0, 0xa6, 0x35, 0x27, 0x6f, 0, 0, 0, 0, 0, 0, 0, 0}
	file := fmt.Sprintf("fe80::efa0:0:312f:8000_0001_6f2735a6_%04x", os.Getuid())
	for word, c := range map[string]struct {
		peer    Address
		removed bool
	}{
		"dead":      {Address{Name: name, PID: dead}, true},
		"alive":     {Address{Name: name, PID: alive}, false},
		"no number": {Address{Name: name}, false},
		"short":     {Address{Name: name[:23], PID: dead}, false},
		"another":   {Address{Name: append([]byte{0xfd}, name[1:]...), PID: dead}, false},
	} {
		t.Run(word, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, file)
			if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := sweepEFA(dir, c.peer); err != nil {
				t.Fatal(err)
			}
			if _, err := os.Lstat(path); os.IsNotExist(err) != c.removed {
				t.Errorf("removed: %v, want %v", os.IsNotExist(err), c.removed)
			}
		})
	}
}

func TestErrorWords(t *testing.T) {
	e := &Error{Call: "fi_mr_regattr", Provider: "efa", Errno: ErrNoMemory, Detail: "438566912 bytes of host memory: Cannot allocate memory"}
	got := hinted(e, "efa").Error()
	for _, w := range []string{"efa: fi_mr_regattr: 438566912 bytes of host memory: Cannot allocate memory (12); raise the limit of locked memory", "ulimit -l"} {
		if !strings.Contains(got, w) {
			t.Errorf("%q does not say %q", got, w)
		}
	}
	if !errors.Is(e, ErrMemlock) || errors.Is(e, ErrNoLibrary) {
		t.Errorf("%v is of kind %v", e, e.Kind)
	}
	if !errors.Is(e, ErrNoMemory) || !errors.Is(e, syscall.ENOMEM) || errors.Is(e, ErrAgain) {
		t.Errorf("%v: errors.Is does not tell its code", e)
	}
}

// Whatever a library refuses while an endpoint is opened has a kind, and so no
// code of it is an internal error, and a next step.
func TestHinted(t *testing.T) {
	for errno, want := range map[syscall.Errno]string{
		syscall.EMFILE: "ulimit -n", syscall.ENFILE: "fs.file-max", syscall.EROFS: "read-only", syscall.ENOMEM: "memory.max",
		syscall.ENOSPC: "df", syscall.ENOENT: "FI_LOG_LEVEL", syscall.EIO: "FI_LOG_LEVEL", syscall.EINVAL: "FI_LOG_LEVEL",
		syscall.EACCES: "who may open", syscall.EADDRNOTAVAIL: "local IP address", syscall.EAGAIN: "ulimit -u",
	} {
		e := hinted(&Error{Call: "fi_domain", Provider: "tcp", Errno: Errno(errno), Detail: errno.Error()}, "tcp")
		if e.Kind == nil || !strings.Contains(e.Error(), want) || !strings.Contains(e.Error(), errno.Error()) {
			t.Errorf("%v: %v of kind %v, want the next step %q", errno, e, e.Kind, want)
		}
	}
}

func TestLoad(t *testing.T) {
	lib := need(t)
	again, err := Load("")
	if err != nil || again != lib {
		t.Errorf("a second Load: %v %v", again, err)
	}
	if !strings.Contains(lib.Path(), "libfabric.so") || lib.Version().Less(Version{Major: 1, Minor: 10}) || api.Less(lib.API()) {
		t.Errorf("%s is %v, asked for %v", lib.Path(), lib.Version(), lib.API())
	}
	for path, want := range map[string]struct {
		word string
		hint Hint
	}{"/nonexistent/libfabric.so.1": {"/nonexistent", HintLoad}, "libm.so.6": {"fi_getinfo", HintOther}} {
		_, err := Load(path)
		var e *Error
		if !errors.Is(err, ErrNoLibrary) || !errors.As(err, &e) || !strings.Contains(e.Detail, want.word) || e.Hint != want.hint {
			t.Errorf("%s: %v", path, err)
		}
	}
}
