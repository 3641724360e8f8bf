package mem

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/xferbench/xferbench/internal/testenv"
)

func TestSharedShortage(t *testing.T) {
	testenv.NeedRoot(t)
	mount := func(options string) string {
		dir := t.TempDir()
		testenv.Need(t, "mount", unix.Mount("xferbench-test", dir, "tmpfs", 0, options))
		t.Cleanup(func() {
			if err := unix.Unmount(dir, 0); err != nil {
				t.Error(err)
			}
		})
		return dir
	}
	if what, next := sharedShortage(mount("size=64k"), 64<<10); what+next != "" {
		t.Errorf("64 KiB for 64 KiB: %s; %s", what, next)
	}
	full := mount("size=64k")
	if err := os.WriteFile(filepath.Join(full, "x"), make([]byte, 64<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	inodes := mount("size=64k,nr_inodes=2")
	if err := os.WriteFile(filepath.Join(inodes, "x"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	only := mount("size=64k")
	if err := unix.Mount("", only, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	for dir, want := range map[string]string{
		full:                          "is full: 0 of its 65536 bytes are free, and 4096 are needed",
		inodes:                        "none of its 2 inodes",
		only:                          "is read-only",
		filepath.Join(full, "no", ""): "there is no",
	} {
		if what, next := sharedShortage(dir, 4096); !strings.Contains(what, want) || next == "" {
			t.Errorf("%s: %q, %q; want %q", dir, what, next, want)
		}
	}
}

func TestFiles(t *testing.T) {
	used, limit := Files()
	f, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if now, _ := Files(); now != used+1 {
		t.Errorf("%d files open, then %d with one more", used, now)
	}
	if err := NeedFiles(limit - used - 1); err != nil {
		t.Error(err)
	}
	if err := NeedFiles(limit); !errors.Is(err, syscall.EMFILE) || !strings.Contains(err.Error(), "ulimit -n") {
		t.Errorf("as many as the limit: %v", err)
	}
	if what, next := Shortage(syscall.EINVAL, 0); what+next != "" {
		t.Errorf("nothing is short: %s; %s", what, next)
	}
}
