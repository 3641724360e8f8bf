package conformance

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/xferbench/xferbench/internal/record"
	"github.com/xferbench/xferbench/internal/testenv"
	testproc "github.com/xferbench/xferbench/internal/testenv/proc"
)

// limit is how long a process may take that should end at once or within its
// own timeout, on slow machines with other work.
const limit = 90 * time.Second

// system is the set of libraries that a process runs with.
type system struct {
	name    string
	command func(t *testing.T, ctx context.Context, bin string, args ...string) *exec.Cmd
}

var (
	host = &system{"host", func(_ *testing.T, ctx context.Context, bin string, args ...string) *exec.Cmd {
		return exec.CommandContext(ctx, bin, args...)
	}}
	debian13 = &system{"debian13", func(t *testing.T, ctx context.Context, bin string, args ...string) *exec.Cmd {
		return testenv.Debian13(t).Command(ctx, bin, args...)
	}}
)

// began is when this test process started.
var began = time.Now()

// markVar is set in the processes of one test, to find those that outlive it.
const markVar = "XFERBENCH_CONFORMANCE_MARK"

// proc is a running xferbench.
type proc struct {
	*testproc.Proc
	t      *testing.T
	record string
}

// start runs program with env added to this process's; it is killed when the
// test ends, if it still runs.
func start(t *testing.T, s *system, program string, env []string, args ...string) *proc {
	t.Helper()
	cmd := s.command(t, context.Background(), program, args...)
	cmd.Env = append(append(os.Environ(), "XDG_STATE_HOME="+t.TempDir(), markVar+"="+mark(t)), env...)
	p := &proc{t: t}
	if i := slices.Index(args, "--record"); i >= 0 {
		p.record = args[i+1]
	}
	p.Proc = testproc.Start(t, cmd, limit)
	return p
}

// mark names a test in its processes' environment.
func mark(t *testing.T) string { return fmt.Sprintf("%d/%s", os.Getpid(), t.Name()) }

func (p *proc) want(code int) {
	p.t.Helper()
	if got := p.Code(); got != code {
		p.t.Errorf("%s, want exit code %d\n%s%s", p.Cmd.ProcessState, code, p.Out.String(), p.Errs.String())
	}
}

// measuring waits until samples are in the record.
func (p *proc) measuring() {
	p.t.Helper()
	p.Until("the run measures", func() bool {
		b, err := os.ReadFile(p.record)
		return err == nil && bytes.Contains(b, []byte(`"phase":"measure"`))
	})
}

// peer is the last word of the line that serve prints.
func (p *proc) peer() string {
	p.t.Helper()
	var word string
	p.Until("serve prints its line", func() bool {
		for l := range strings.Lines(p.Out.String()) {
			if f := strings.Fields(l); len(f) > 1 && f[0] == "xferbench" && strings.HasSuffix(l, "\n") {
				word = strings.Trim(f[len(f)-1], "'")
				return true
			}
		}
		return false
	})
	return word
}

// read returns the record of a process that ended.
func (p *proc) read() *record.Record {
	p.t.Helper()
	r, err := record.Open(p.record)
	if err != nil {
		p.t.Fatalf("%v\n%s%s", err, p.Out.String(), p.Errs.String())
	}
	return r
}

// family lists the process and those below it, as long as it runs.
func (p *proc) family() []int {
	pids := []int{p.Cmd.Process.Pid}
	for i := 0; i < len(pids); i++ {
		tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pids[i]))
		if err != nil {
			p.t.Error(err)
		}
		for _, f := range tasks {
			b, err := os.ReadFile(f)
			if err != nil {
				continue // a thread that just ended
			}
			for _, w := range strings.Fields(string(b)) {
				if n, err := strconv.Atoi(w); err == nil {
					pids = append(pids, n)
				}
			}
		}
	}
	return pids
}

// watch collects family until the process ends.
func (p *proc) watch() []int {
	p.t.Helper()
	var all []int
	for end := time.Now().Add(limit); time.Now().Before(end); {
		for _, pid := range p.family() {
			if !slices.Contains(all, pid) {
				all = append(all, pid)
			}
		}
		select {
		case <-p.Done:
			return all
		case <-time.After(10 * time.Millisecond):
		}
	}
	p.t.Fatalf("still running after %v\n%s%s", limit, p.Out.String(), p.Errs.String())
	return nil
}

// noneLeft fails the test for processes of it that still run and for files of
// pids, or of an emulated network (0: none), in /dev/shm.
func noneLeft(t *testing.T, pids []int, network int) {
	t.Helper()
	var left []string
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if left = append(marked(t), sharedFiles(t, pids, network)...); len(left) == 0 {
			return
		}
	}
	t.Errorf("left behind: %v", left)
}

// marked lists the running processes that have the test's mark.
func marked(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			continue // another user's, or gone
		}
		if slices.Contains(strings.Split(string(b), "\x00"), markVar+"="+mark(t)) {
			found = append(found, "process "+filepath.Base(filepath.Dir(f)))
		}
	}
	return found
}

func sharedFiles(t *testing.T, pids []int, network int) []string {
	t.Helper()
	entries, err := os.ReadDir("/dev/shm")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, e := range entries {
		if info, err := e.Info(); err != nil || info.ModTime().Before(began) {
			continue // gone meanwhile, or left by an earlier process of that number
		}
		owner, _, _ := strings.Cut(e.Name(), ":")
		pid, err := strconv.Atoi(owner)
		of := err == nil && slices.Contains(pids, pid)
		if network != 0 {
			of = of || strings.HasPrefix(e.Name(), "fe80::efa0:") && strings.Contains(e.Name(), fmt.Sprintf(":%x:", network))
		}
		if of {
			found = append(found, e.Name())
		}
	}
	return found
}
