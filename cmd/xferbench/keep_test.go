package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/xferbench/xferbench/internal/record"
	"github.com/xferbench/xferbench/internal/testenv"
)

// Whatever ends the measuring process, its record is closed, and the code is
// never that of a wrong command line.
func TestMeasuringProcessDies(t *testing.T) {
	for _, tt := range []struct {
		sig   syscall.Signal
		code  int
		words string
	}{
		{syscall.SIGSEGV, 3, "SIGSEGV"},
		{syscall.SIGABRT, 3, "SIGABRT"},
		{syscall.SIGKILL, 3, "perhaps by the kernel, for want of memory"},
		{syscall.SIGQUIT, 1, "SIGQUIT"}, // as a fault of Go's: exit status 2, and a trace
	} {
		t.Run(tt.sig.String(), func(t *testing.T) {
			leftovers(t)
			r := endless(t, "tcp,shm")
			all := append(r.peers(), r.measurer())
			kill(t, tt.sig, r.measurer())
			r.exits(tt.code)
			r.says("the measuring process", tt.words)
			rec := r.closed(record.StatusFailed, tt.code)
			if rec.Samples.Len() == 0 {
				t.Error("what was measured is not in the record")
			}
			end(t, all)
			xferbench(t, "report", r.record).exits(0)
		})
	}
}

// A command that measures nothing has no keeper; its crash is no usage error
// either.
func TestServeCrashes(t *testing.T) {
	p, _ := serve(t)
	p.Signal(syscall.SIGQUIT) // as a fault of Go's
	select {
	case <-p.Done:
	case <-time.After(limit):
		t.Fatal("it goes on")
	}
	if code := p.Cmd.ProcessState.ExitCode(); code != -1 {
		t.Errorf("exit code %d, want an end by a signal\n%.500s", code, p.Errs.String())
	}
	p.says("SIGQUIT", "goroutine ")
}

// On stdout the record is closed as on disk.
func TestMeasuringProcessDiesBeforeAReader(t *testing.T) {
	r := xferbench(t, "--provider", "tcp", "--size", "1MB", "--no-ceiling", "--blocks", "1000000", "--budget", "0", "--no-record", "--json", "-")
	r.Until("the run measures", func() bool { return strings.Contains(r.Out.String(), `"phase":"measure"`) })
	kill(t, syscall.SIGKILL, r.measurer())
	r.exits(3)
	lines := strings.Split(strings.TrimRight(r.Out.String(), "\n"), "\n")
	if last := lines[len(lines)-1]; !strings.Contains(last, `"type":"end"`) || !strings.Contains(last, `"exit_code":3`) {
		t.Errorf("the last line is %.200s", last)
	}
}

// The other way round: a keeper that is killed takes all along, and the record
// is closed by the one that measures.
func TestKeeperKilled(t *testing.T) {
	for _, provider := range []string{"tcp", "shm", "ucx"} {
		t.Run(provider, func(t *testing.T) {
			leftovers(t)
			r := endless(t, provider)
			all := append(r.peers(), r.measurer())
			r.Signal(syscall.SIGKILL)
			end(t, all)
			r.closed(record.StatusInterrupted, 130)
		})
	}
}

// A hang-up ends a run as Ctrl-C does; one that was told to outlive it goes on.
func TestHangUp(t *testing.T) {
	r := endless(t, "tcp")
	r.Signal(syscall.SIGHUP)
	r.exits(130)
	r.closed(record.StatusInterrupted, 130)

	rec := filepath.Join(t.TempDir(), "r.jsonl")
	n := spawn(t, exec.Command("sh", "-c", `trap "" HUP; exec "$0" "$@"`, bin, "--provider", "tcp", "--size", "1MB", "--no-ceiling",
		"--blocks", "1000000", "--budget", "0", "--record", rec))
	n.record = rec
	n.measuring()
	n.Signal(syscall.SIGHUP)
	before := size(t, rec)
	n.Until("it goes on", func() bool { return size(t, rec) > before })
	n.Signal(syscall.SIGTERM)
	n.exits(130)
}

func size(t *testing.T, file string) int64 {
	t.Helper()
	i, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	return i.Size()
}

// Ctrl-C at a terminal reaches the whole group, at any moment: it counts once,
// and what began is closed.
func TestInterruptWhileStarting(t *testing.T) {
	leftovers(t)
	start := time.Now()
	xferbench(t, "--provider", "tcp,ucx", "--size", "1MB", "--no-ceiling", "--blocks", "1", "--no-record").exits(0)
	usual := time.Since(start)
	for i := range 12 {
		rec := filepath.Join(t.TempDir(), "r.jsonl")
		r := xferbench(t, "--provider", "tcp,ucx", "--size", "1MB", "--no-ceiling", "--blocks", "1000000", "--budget", "0",
			"--record", rec)
		r.record = rec
		// The shell's own start-up is not this program's: Go's handlers are there
		// after some ms.
		r.Until("it has begun", func() bool { return len(r.children()) > 0 })
		time.Sleep(usual * time.Duration(i) / 12)
		if err := syscall.Kill(-r.Cmd.Process.Pid, syscall.SIGINT); err != nil {
			t.Fatal(err)
		}
		r.exits(130)
		if _, err := os.Stat(rec); err == nil {
			r.closed(record.StatusInterrupted, 130)
		}
	}
}

// A reader that has seen enough is no failure of the measurement.
func TestReaderGone(t *testing.T) {
	rec := filepath.Join(t.TempDir(), "r.jsonl")
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	script := fmt.Sprintf(`{ %q --provider tcp --size 1MB --no-ceiling --blocks 2 --record %q; echo "code $?" >&2; } | true`, bin, rec)
	out, err := exec.CommandContext(ctx, "sh", "-c", script).CombinedOutput()
	if err != nil || strings.TrimSpace(string(out)) != "code 0" {
		t.Errorf("%v: %s", err, out)
	}
	p := &proc{t: t, record: rec}
	p.closed(record.StatusOK, 0)
	// A stream of lines that nobody reads ends.
	script = fmt.Sprintf(`{ %q --provider tcp --size 1MB --no-ceiling --blocks 1000000 --budget 0 --no-record --json -; echo "code $?" >&2; } | head -1 >/dev/null`, bin)
	out, err = exec.CommandContext(ctx, "sh", "-c", script).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "code 130") || !strings.Contains(string(out), "nobody reads") {
		t.Errorf("%v: %s", err, out)
	}
}

// A limit on a file's size ends a run as a full disk does.
func TestFileSizeLimit(t *testing.T) {
	rec := filepath.Join(t.TempDir(), "r.jsonl")
	r := spawn(t, exec.Command("sh", "-c", `ulimit -f 512; exec "$0" "$@"`, bin, "--provider", "socket", "--size", "4KiB", "--shape", "contiguous",
		"--no-ceiling", "--blocks", "1000000", "--budget", "0", "--record", rec))
	r.record = rec
	r.exits(1)
	r.says("file too large", "ulimit -f")
	r.closed(record.StatusFailed, 1)
}

// A run within one host has a network of its own; one that uses the host's
// says so, and why.
func TestIsolation(t *testing.T) {
	isolation := func(p *proc, rec string) string {
		t.Helper()
		p.record = rec
		p.exits(0)
		r, err := record.Open(rec)
		if err != nil {
			t.Fatal(err)
		}
		if first, _, _ := strings.Cut(r.Run.Isolation, ","); !strings.Contains(p.Out.String(), "# isolation: "+first) {
			t.Errorf("the header does not say %q:\n%s", r.Run.Isolation, p.Out.String())
		}
		return r.Run.Isolation
	}
	quick := []string{"--provider", "tcp,ucx", "--size", "1MB", "--no-ceiling", "--blocks", "1"}
	run := func(args ...string) string {
		t.Helper()
		rec := filepath.Join(t.TempDir(), "r.jsonl")
		return isolation(xferbench(t, slices.Concat(quick, args, []string{"--record", rec})...), rec)
	}
	if got := run("--no-namespace"); !strings.HasPrefix(got, "none, --no-namespace") {
		t.Errorf("isolation %q", got)
	}
	if got := run("--launches", "2"); !strings.HasPrefix(got, "namespace") && !strings.Contains(got, "refuses") {
		t.Errorf("isolation of launches %q", got)
	}
	_, line := serve(t)
	rec := filepath.Join(t.TempDir(), "r.jsonl")
	far := xferbench(t, slices.Concat(quick, []string{"--record", rec, line})...)
	far.exits(0)
	if strings.Contains(far.Out.String(), "isolation") {
		t.Errorf("a run to a peer speaks of isolation:\n%s", far.Out.String())
	}

	// As root, and as a user without any right.
	testenv.NeedRoot(t)
	testenv.Need(t, "netns", exec.Command("unshare", "--net", "true").Run())
	r := endless(t, "tcp,ucx")
	mine, theirs := netns(t, os.Getpid()), netns(t, r.measurer())
	if mine == theirs {
		t.Error("the measuring process is in the host's network")
	}
	for _, pid := range r.peers() {
		if netns(t, pid) != theirs {
			t.Error("the target is in another network than the initiator")
		}
	}
	r.Signal(syscall.SIGTERM)
	r.exits(130)

	dir := t.TempDir()
	for d := dir; d != "/"; d = filepath.Dir(d) {
		if i, err := os.Stat(d); err == nil && i.Mode().Perm()&1 == 0 && strings.HasPrefix(d, os.TempDir()+"/") {
			if err := os.Chmod(d, 0o755); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	copied := filepath.Join(dir, "xferbench")
	b, err := os.ReadFile(bin)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(copied, b, 0o755); err != nil {
		t.Fatal(err)
	}
	rec = filepath.Join(dir, "user.jsonl")
	cmd := exec.Command(copied, slices.Concat(quick, []string{"--record", rec})...)
	u := spawnAs(t, cmd, &syscall.Credential{Uid: 65534, Gid: 65534})
	got := isolation(u, rec)
	usable := userNamespaces(t)
	if usable && got != "namespace" || !usable && !strings.HasPrefix(got, "none, this kernel or container") {
		t.Errorf("an ordinary user's isolation: %q; user namespaces: %v", got, usable)
	}
}

func netns(t *testing.T, pid int) string {
	t.Helper()
	s, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", pid))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// userNamespaces reports whether an ordinary user may make them here.
func userNamespaces(t *testing.T) bool {
	t.Helper()
	cmd := exec.Command("unshare", "--user", "--net", "true")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	return cmd.Run() == nil
}
