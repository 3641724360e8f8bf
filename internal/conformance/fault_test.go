package conformance

import (
	"fmt"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/xferbench/xferbench/internal/record"
	"github.com/xferbench/xferbench/internal/testenv/efaemu"
)

// patience is the --timeout of runs that wait for it, long enough that a machine
// with other work does not run into it by itself.
const patience = 5 * time.Second

// faultRow is a transport that is put through faults. cmd/xferbench does the
// same to those that need no emulated device.
type faultRow struct {
	provider string
	profile  efaemu.Profile
	system   *system
}

var faultRows = []faultRow{
	{"efa", efaemu.P5, host},
	{"efa", efaemu.P5, debian13},
	{"efa", efaemu.G5, debian13},
	{"efa-direct", efaemu.P5, debian13},
}

func (f faultRow) String() string {
	return fmt.Sprintf("%s %s %s", f.provider, f.profile, f.system.name)
}

// endless starts a serve with serveEnv and a run with runEnv to it that goes on
// until something ends it, and waits until it measures.
func (f faultRow) endless(t *testing.T, serveEnv, runEnv []string, args ...string) (serve, run *proc) {
	t.Helper()
	serve = f.serve(t, serveEnv)
	run = f.run(t, runEnv, serve.peer(), args...)
	run.measuring()
	return serve, run
}

func (f faultRow) serve(t *testing.T, env []string) *proc {
	t.Helper()
	return start(t, f.system, bin, env, "serve", "--listen", "127.0.0.1:0")
}

func (f faultRow) run(t *testing.T, env []string, peer string, args ...string) *proc {
	t.Helper()
	return start(t, f.system, bin, env, append([]string{"--provider", f.provider, "--op", "read", "--size", "8MB", "--shape", "merged", "--no-ceiling",
		"--blocks", "1000000", "--budget", "0", "--seed", "1", "--timeout", patience.String(), "--record", filepath.Join(t.TempDir(), "r.jsonl"), peer}, args...)...)
}

func (f faultRow) each(t *testing.T, test func(t *testing.T, f faultRow)) {
	t.Run(f.String(), func(t *testing.T) {
		t.Parallel()
		test(t, f)
	})
}

// closedFailed holds the record of a failed run to be closed and marked.
func closedFailed(t *testing.T, p *proc) {
	t.Helper()
	if r := p.read(); r.End == nil || r.End.Status != record.StatusFailed || r.End.ExitCode != 3 || r.End.Error == "" {
		t.Errorf("the record's end is %+v", r.End)
	}
}

// A killed target: the initiator ends in time with the reason, and takes away
// what the dead one left in shared memory.
func TestTargetKilled(t *testing.T) {
	for _, f := range faultRows {
		f.each(t, func(t *testing.T, f faultRow) {
			n := emulate(t, efaemu.Options{Profile: f.profile, Devices: 2})
			serve, run := f.endless(t, n.env, n.env, "--rails", "2")
			pids := append(serve.family(), run.family()...)
			serve.Signal(syscall.SIGKILL)
			run.want(3)
			if !strings.Contains(run.Errs.String(), "peer unavailable") {
				t.Errorf("stderr:\n%s", run.Errs.String())
			}
			closedFailed(t, run)
			noneLeft(t, pids, n.number)
		})
	}
}

// A killed initiator: serve notices, and serves the next one.
func TestInitiatorKilled(t *testing.T) {
	for _, f := range faultRows {
		f.each(t, func(t *testing.T, f faultRow) {
			n := emulate(t, efaemu.Options{Profile: f.profile, Devices: 2})
			serve, run := f.endless(t, n.env, n.env, "--rails", "2")
			pids := append(serve.family(), run.family()...)
			run.Signal(syscall.SIGKILL)
			serve.Until("serve notices", func() bool { return strings.Contains(serve.Errs.String(), "gone") })
			start(t, f.system, bin, n.env, "--provider", f.provider, "--size", "1MB", "--shape", "merged", "--no-ceiling", "--blocks", "1", "--min-blocks", "1",
				"--no-record", serve.peer()).want(0)
			serve.Signal(syscall.SIGTERM)
			serve.want(130)
			noneLeft(t, pids, n.number)
		})
	}
}

// A target that no longer runs: the deadline ends the transfer.
func TestTargetStopped(t *testing.T) {
	for _, f := range faultRows {
		f.each(t, func(t *testing.T, f faultRow) {
			n := emulate(t, efaemu.Options{Profile: f.profile})
			serve, run := f.endless(t, n.env, n.env)
			pids := append(serve.family(), run.family()...)
			serve.Signal(syscall.SIGSTOP)
			run.want(3)
			closedFailed(t, run)
			serve.Signal(syscall.SIGCONT)
			serve.Signal(syscall.SIGTERM)
			serve.want(130)
			noneLeft(t, pids, n.number)
		})
	}
}

// One of two devices fails in the middle of a run, on the initiator's side.
func TestDeviceFails(t *testing.T) {
	for _, f := range faultRows {
		f.each(t, func(t *testing.T, f faultRow) {
			n := emulate(t, efaemu.Options{Profile: f.profile, Devices: 2, FailAfter: 3000, FailDevice: 1})
			serve := f.serve(t, n.env)
			run := f.run(t, n.faulty, serve.peer(), "--rails", "2")
			run.want(3)
			// libfabric's own words for status 13 of the device, or its number.
			if s := run.Errs.String(); !strings.Contains(s, "failed: ") || !strings.Contains(s, "provider: ") {
				t.Errorf("stderr does not say what failed:\n%s", s)
			}
			closedFailed(t, run)
			if r := run.read(); r.Samples.Len() == 0 {
				t.Error("what was measured before is not in the record")
			}
			serve.Signal(syscall.SIGTERM)
			serve.want(130)
			noneLeft(t, append(serve.family(), run.family()...), n.number)
		})
	}
}

// The target's own packets fail: libfabric would abort a process that has no
// event queue to tell it to. serve must live on, and serve the next one over
// another transport.
func TestTargetDeviceFails(t *testing.T) {
	for _, after := range []int{1, 500} {
		for _, f := range faultRows {
			if after > 1 && f.profile != efaemu.G5 {
				continue // with RDMA a target sends little more than a handshake
			}
			t.Run(fmt.Sprint(after), func(t *testing.T) {
				f.each(t, func(t *testing.T, f faultRow) {
					n := emulate(t, efaemu.Options{Profile: f.profile, FailAfter: after})
					serve := f.serve(t, n.faulty)
					run := f.run(t, n.env, serve.peer(), "--op", "send", "--blocks", "2000")
					run.want(3)
					closedFailed(t, run)
					start(t, f.system, bin, n.env, "--provider", "socket", "--size", "1MB", "--shape", "merged", "--no-ceiling", "--blocks", "1",
						"--min-blocks", "1", "--no-record", serve.peer()).want(0)
					serve.Signal(syscall.SIGTERM)
					serve.want(130)
				})
			})
		}
	}
}
