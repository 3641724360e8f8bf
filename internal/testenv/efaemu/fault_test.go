package efaemu

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/xferbench/xferbench/internal/testenv"
)

// exitCQError is the test client's status after a completion in error.
const exitCQError = 3

// fabrics are the libraries and fabrics that a test runs on.
var fabrics = []struct {
	lib    library
	fabric string
}{
	{installed, "efa"},
	{newer, "efa"},
	{newer, "efa-direct"},
}

// wantCQError expects the side to have met one completion in error with the
// device's status word.
func wantCQError(t *testing.T, s *side, status int) {
	t.Helper()
	if s.exit != exitCQError || len(s.transfers) == 0 {
		t.Fatalf("exit %d, want %d (a completion in error)\n%s", s.exit, exitCQError, s.stderr)
	}
	if got := s.transfers[len(s.transfers)-1]["prov_errno"]; got != strconv.Itoa(status) {
		t.Errorf("prov_errno=%s, want %d", got, status)
	}
}

// TestFailure has the initiator's device fail in the middle of a transfer.
func TestFailure(t *testing.T) {
	for _, f := range fabrics {
		for name, opt := range map[string]Options{
			"only-device":   {FailAfter: 30},
			"second-of-two": {FailAfter: 30, FailDevice: 1, Devices: 2, FailStatus: 7},
		} {
			t.Run(f.lib.name+"/"+f.fabric+"/"+name, func(t *testing.T) {
				t.Parallel()
				want := opt.FailStatus
				if want == 0 {
					want = 13
				}
				failing := opt
				opt.FailAfter, opt.FailDevice, opt.FailStatus = 0, 0, 0
				_, env := setup(t, opt)
				args := []string{"-f", f.fabric, "-s", "4000000", "-c", "8000", "-n", strconv.Itoa(max(opt.Devices, 1)), "send"}
				target, initiator := &side{args: args}, &side{args: args}
				// The target's device stays whole: a provider whose replies fail ends its process.
				initiator.env = slices.DeleteFunc(failing.environment("", ""), func(v string) bool {
					return !strings.HasPrefix(v, "XFERBENCH_EFAEMU_FAIL")
				})
				run(t, f.lib, client(t), env, target, initiator)
				wantCQError(t, initiator, want)
				if failing.FailDevice == 1 && initiator.transfers[0]["domain"] != DeviceName(1) {
					t.Errorf("the error is of %s, want %s", initiator.transfers[0]["domain"], DeviceName(1))
				}
			})
		}
	}
}

// TestOversize posts more than max_rdma_size over efa-direct, which passes it
// on to the device: status 6, message too long.
func TestOversize(t *testing.T) {
	for _, op := range []string{"read", "write", "writedata"} {
		t.Run(op, func(t *testing.T) {
			t.Parallel()
			_, env := setup(t, Options{MaxRDMASize: 4096})
			args := []string{"-f", "efa-direct", "-s", "8192", "-c", "4097", op}
			target, initiator := &side{args: args}, &side{args: args}
			run(t, newer, client(t), env, target, initiator)
			wantCQError(t, initiator, 6)
		})
	}
}

// TestKilledPeer kills the target once it is connected. The initiator must end
// with an error, not hang, and nothing may be left outside the scratch folder.
func TestKilledPeer(t *testing.T) {
	for _, f := range fabrics {
		t.Run(f.lib.name+"/"+f.fabric, func(t *testing.T) {
			dir, env := setup(t, Options{})
			args := []string{"-f", f.fabric, "-s", "1000000", "-c", "8000", "send"}
			target, initiator := &side{args: append([]string{"-k"}, args...)}, &side{args: args}
			run(t, f.lib, client(t), env, target, initiator)
			if initiator.exit == -1 {
				// efa sends to peers of one host through shm. A process that is killed
				// inside a lock of that leaves it locked, and the other side waits for ever.
				target, initiator = &side{args: append([]string{"-k"}, args...)}, &side{args: args}
				run(t, f.lib, client(t), env, target, initiator)
			}
			if target.exit != -1 {
				t.Fatalf("the target exited with %d, want a signal\n%s", target.exit, target.stderr)
			}
			wantCQError(t, initiator, 13)

			// All of the emulator's state is in its folder …
			left, err := filepath.Glob("/dev/shm/*efaemu*")
			if err != nil || len(left) > 0 {
				t.Errorf("left in shared memory: %v, %v", left, err)
			}
			// libfabric's own is taken away.
			if err := CleanUp(dir); err != nil {
				t.Error(err)
			}
			left, err = filepath.Glob(fmt.Sprintf("/dev/shm/fe80::efa0:*:%x:*", networkID(dir)))
			if err != nil || len(left) > 0 {
				t.Errorf("left in shared memory: %v, %v", left, err)
			}
			// … and what the dead process left there is no obstacle to the next ones.
			target, initiator = &side{args: args}, &side{args: args}
			run(t, f.lib, client(t), env, target, initiator)
			if target.exit != 0 || initiator.exit != 0 {
				t.Errorf("the next run: exit %d and %d\n%s%s", target.exit, initiator.exit, target.stderr, initiator.stderr)
			}
			if sockets, err := filepath.Glob(filepath.Join(dir, "net", "qp*")); err != nil || len(sockets) > 2 {
				t.Errorf("sockets left after a clean end: %v, %v; want at most those of the first run", sockets, err)
			}
		})
	}
}

// TestRefusals starts clients with settings that the emulator must refuse.
func TestRefusals(t *testing.T) {
	for name, tt := range map[string]struct{ variable, message string }{
		"profile":  {"XFERBENCH_EFAEMU_PROFILE=p6", "PROFILE=p6: want p5, p4d or g5"},
		"number":   {"XFERBENCH_EFAEMU_SQ_DEPTH=many", "SQ_DEPTH=many: want a number from 2 to 4096"},
		"negative": {"XFERBENCH_EFAEMU_SHUFFLE=-1", "SHUFFLE=-1: want a number"},
		"range":    {"XFERBENCH_EFAEMU_DEVICES=17", "DEVICES=17: want a number from 1 to 16"},
		"folder":   {"XFERBENCH_EFAEMU_DIR=", "XFERBENCH_EFAEMU_DIR is not set"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, env := setup(t, Options{})
			cmd := exec.Command(client(t), "-r", "initiator", "read") // ends before it needs its peer
			cmd.Env = append(append(os.Environ(), env...), tt.variable)
			out, err := cmd.CombinedOutput()
			if code := cmd.ProcessState.ExitCode(); code != 1 || !strings.Contains(string(out), tt.message) {
				t.Errorf("%v, output %q; want exit 1 and %q", err, out, tt.message)
			}
		})
	}
}

// TestNoLeaks runs emulator and client under AddressSanitizer: no invalid
// access, and no memory of the emulator's left at the end. (What libfabric
// itself leaves is not counted.)
func TestNoLeaks(t *testing.T) {
	runtime, err := exec.Command("cc", "-print-file-name=libasan.so").Output()
	if err == nil && !filepath.IsAbs(strings.TrimSpace(string(runtime))) {
		err = os.ErrNotExist
	}
	testenv.Need(t, "asan", err)
	Build(t) // compilers and headers are there, so that the next build can fail for no want of them
	sanitized, err := compileInto(clients.dir, "CFLAGS=-O1 -g -fno-omit-frame-pointer -fsanitize=address", "LDFLAGS=-Wl,-z,undefs")
	if err != nil {
		t.Fatal(err)
	}
	plain := client(t)

	_, env := setup(t, Options{Devices: 2, Shuffle: 3, SendQueue: 16, RNREvery: 7})
	env = append(env,
		"LD_PRELOAD="+strings.TrimSpace(string(runtime))+" "+sanitized,
		// libfabric's providers replace handlers and leave memory behind; only reports that name the emulator count.
		"ASAN_OPTIONS=detect_leaks=1:fast_unwind_on_malloc=0", "LSAN_OPTIONS=exitcode=0")
	args := []string{"-s", "200001", "-c", "4096", "-n", "3", "-t", "read", "write", "writedata", "send"}
	target, initiator := &side{args: args}, &side{args: args}
	run(t, installed, plain, env, target, initiator)
	for _, s := range []*side{target, initiator} {
		if s.exit != 0 || len(s.transfers) != 4 {
			t.Fatalf("exit %d\n%s", s.exit, s.stderr)
		}
		for block := range strings.SplitSeq(s.stderr, "\n\n") {
			if allocatedByEmulator(block) {
				t.Errorf("leak:\n%s", block)
			}
		}
		if strings.Contains(s.stderr, "ERROR: AddressSanitizer") {
			t.Errorf("invalid access:\n%s", s.stderr)
		}
	}
}

// allocatedByEmulator matches a block of LeakSanitizer's report about memory
// that the emulator asked for: its source file is in the frame above malloc's.
var allocatedByEmulator = regexp.MustCompile(`(?m)leak of (.*\n)+?\s*#1 .* src/\w+\.c:\d+`).MatchString
