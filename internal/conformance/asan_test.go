package conformance

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/xferbench/xferbench/internal/testenv"
	"github.com/xferbench/xferbench/internal/testenv/efaemu"
)

// asanLibrary is the address sanitizer's runtime, which must stand in front of
// the emulated device's library.
func asanLibrary(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("cc", "-print-file-name=libasan.so").Output()
	path := strings.TrimSpace(string(out))
	if err == nil && !filepath.IsAbs(path) {
		err = fmt.Errorf("cc has no libasan.so")
	}
	testenv.Need(t, "asan", err)
	return path
}

// TestSanitized runs a part of the matrix with all of xferbench's C under the
// address sanitizer: no invalid access, and nothing of its own left at the end.
func TestSanitized(t *testing.T) {
	t.Parallel()
	asan := asanLibrary(t)
	sanitized, err := build(filepath.Join(t.TempDir(), "xferbench"), "-asan")
	if err != nil {
		t.Fatal(err)
	}
	checkout, err := testenv.Checkout()
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range []row{
		{"tcp", "", 2, host, nil},
		{"tcp;ofi_rxm", "", 1, host, nil},
		{"shm", "", 1, host, nil},
		{"ucx:tcp", "", 1, host, nil},
		{"efa", efaemu.P5, 2, host, nil},
		{"efa", efaemu.G5, 1, host, nil},
	} {
		t.Run(r.label(), func(t *testing.T) {
			env := []string{"ASAN_OPTIONS=detect_leaks=1", "LSAN_OPTIONS=suppressions=" + filepath.Join(checkout, "scripts/lsan.supp") + ":print_suppressions=0"}
			if r.profile != "" {
				for _, kv := range emulate(t, r.knobs()).env {
					if emu, ok := strings.CutPrefix(kv, "LD_PRELOAD="); ok {
						kv = "LD_PRELOAD=" + asan + " " + emu
					}
					env = append(env, kv)
				}
			}
			serve := start(t, host, sanitized, env, "serve", "--listen", "127.0.0.1:0", "--once")
			run := start(t, host, sanitized, env, append(r.args(filepath.Join(t.TempDir(), "r.jsonl"), ops), serve.peer())...)
			run.want(0)
			serve.want(0)
			for _, p := range []*proc{serve, run} {
				if strings.Contains(p.Errs.String(), "Sanitizer") {
					t.Errorf("%s", p.Errs.String())
				}
			}
			if t.Failed() {
				return
			}
			samples := run.read().Samples
			for s := range samples.All() {
				if s.Verified == nil || !*s.Verified {
					t.Errorf("not verified: %+v", s)
				}
			}
		})
	}
	t.Run("control", func(t *testing.T) {
		p := start(t, host, sanitized, nil, "serve", "--listen", "127.0.0.1:0")
		p.peer()
		maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", p.Cmd.Process.Pid))
		if err != nil || !strings.Contains(string(maps), "libasan") {
			t.Errorf("the sanitizer's runtime is not loaded: %v", err)
		}
		p.Signal(syscall.SIGTERM)
		p.want(130)
	})
}
