package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/xferbench/xferbench/internal/record"
	"github.com/xferbench/xferbench/internal/testenv"
)

// groupLimit is the memory limit of the group that memoryGroup makes.
const groupLimit = 400 << 20

// memoryGroup makes a control group of processes with a limit of memory, below
// this process's own, and returns its folder.
func memoryGroup(t *testing.T) string {
	t.Helper()
	testenv.NeedRoot(t)
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	err = fmt.Errorf("no memory controller in /proc/self/cgroup")
	for line := range strings.Lines(string(own)) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		base, file := "/sys/fs/cgroup"+f[2], "memory.max"
		if f[1] == "memory" {
			base, file = "/sys/fs/cgroup/memory"+f[2], "memory.limit_in_bytes"
		} else if f[1] != "" {
			continue
		}
		// A group of version 2 that has processes can have no groups with
		// controllers below it: then beside it.
		for _, parent := range []string{base, filepath.Dir(base)} {
			dir := filepath.Join(parent, fmt.Sprintf("xferbench-test-%d", os.Getpid()))
			if err = os.Mkdir(dir, 0o755); err != nil {
				continue
			}
			if err = os.WriteFile(filepath.Join(dir, file), []byte(fmt.Sprint(groupLimit)), 0o644); err == nil {
				t.Cleanup(func() {
					for end := time.Now().Add(limit); os.Remove(dir) != nil; time.Sleep(50 * time.Millisecond) {
						if time.Now().After(end) {
							t.Errorf("%s: cannot be removed", dir)
							return
						}
					}
				})
				return dir
			}
			if rerr := os.Remove(dir); rerr != nil {
				t.Error(rerr)
			}
		}
	}
	testenv.Need(t, "memory-cgroup", err)
	return ""
}

// inGroup is the command line that runs xferbench within a group.
func inGroup(dir string, args ...string) []string {
	return append([]string{"-c", `echo $$ > "$0/cgroup.procs" && exec "$@"`, dir, bin}, args...)
}

// Both buffers of a local run are of one memory: what does not fit is refused
// before anything is allocated, where the kernel would kill a process otherwise.
func TestTooLargeForTheControlGroup(t *testing.T) {
	dir := memoryGroup(t)
	for _, args := range [][]string{{"--size", "438MB"}, {"--size", "300MB"}, {"--size", "150MB"}} {
		// 150 MB fit twice, but not with memcpy's source.
		rec := filepath.Join(t.TempDir(), "r.jsonl")
		r := spawn(t, exec.Command("sh", inGroup(dir, append(args, "--shape", "contiguous", "--blocks", "1", "--record", rec)...)...))
		r.record = rec
		r.exits(2)
		r.says("memory available", dir, fmt.Sprint(groupLimit), "--size")
		r.closed(record.StatusFailed, 2)
	}
	r := spawn(t, exec.Command("sh", inGroup(dir, "--size", "100MB", "--shape", "contiguous", "--blocks", "1", "--no-ceiling", "--no-record")...))
	r.exits(0)
}

// The target looks at its own host, before the initiator has allocated anything.
func TestTooLargeForThePeersControlGroup(t *testing.T) {
	dir := memoryGroup(t)
	s := spawn(t, exec.Command("sh", inGroup(dir, "serve", "--listen", "127.0.0.1:0")...))
	r := xferbench(t, "--size", "380MB", "--shape", "contiguous", "--blocks", "1", "--no-ceiling", "--no-record", s.line())
	r.exits(2)
	r.says("peer: ", "memory available", dir, "--size")
	s.Signal(syscall.SIGTERM)
	s.exits(130)
}

// A limit of the process's own: the shell's ulimit.
func TestTooLargeForTheAddressSpace(t *testing.T) {
	r := spawn(t, exec.Command("sh", "-c", `ulimit -d 1000000 && exec "$0" "$@"`, bin, "--size", "1GB", "--shape", "contiguous", "--no-ceiling", "--no-record"))
	r.exits(2)
	r.says("memory available", "ulimit -d", "--size")
}

// An allocation of gigabytes ends with the first signal, not with its last page.
func TestInterruptWhileAllocating(t *testing.T) {
	const size = 3 << 30
	rec := filepath.Join(t.TempDir(), "r.jsonl")
	r := xferbench(t, "--provider", "socket", "--size", fmt.Sprint(size), "--shape", "contiguous", "--no-ceiling", "--record", rec)
	r.record = rec
	most := 0
	resident := func() int {
		for _, pid := range append(r.children(), r.Cmd.Process.Pid) {
			b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
			var all, pages int
			if _, serr := fmt.Sscan(string(b), &all, &pages); err == nil && serr == nil {
				most = max(most, pages*os.Getpagesize())
			}
		}
		return most
	}
	r.Until("a side allocates", func() bool { return resident() > 128<<20 })
	r.Signal(syscall.SIGINT)
	for over := false; !over; time.Sleep(time.Millisecond) {
		resident()
		select {
		case <-r.Done:
			over = true
		default:
		}
	}
	r.exits(130)
	r.closed(record.StatusInterrupted, 130)
	if most >= size {
		t.Errorf("a side allocated %d of %d bytes", most, size)
	}
}

// A target that something killed is not called silent.
func TestPeerKilledByTheKernel(t *testing.T) {
	r := endless(t, "tcp")
	kill(t, syscall.SIGKILL, r.peers()...)
	r.exits(3)
	r.says("peer unavailable", "was killed (signal 9): perhaps out of memory")
	r.closed(record.StatusFailed, 3)

	s, line := serve(t)
	r = endless(t, "tcp", line)
	kill(t, syscall.SIGKILL, s.children()...)
	r.exits(3)
	r.says("peer unavailable", "was killed (signal 9): perhaps out of memory")
	s.Signal(syscall.SIGTERM)
	s.exits(130)
}

// Time in which a process did not run, or its runtime waited for the kernel, is
// not its peer's silence.
func TestStoppedTogetherIsNoSilence(t *testing.T) {
	for _, provider := range []string{"memcpy", "tcp", "ucx:tcp", "socket"} {
		t.Run(provider, func(t *testing.T) { stoppedTogether(t, provider) })
	}
}

func stoppedTogether(t *testing.T, provider string) {
	t.Parallel() // it waits more than it works
	r := endless(t, provider)
	all := append(r.peers(), r.measurer())
	if len(all) != 2 {
		t.Fatalf("processes %v, want two", all)
	}
	for range 2 {
		kill(t, syscall.SIGSTOP, all...)
		time.Sleep(timeout + timeout/2)
		kill(t, syscall.SIGCONT, all...)
		select {
		case <-r.Done:
			t.Fatalf("ended: %s", r.Errs.String())
		case <-time.After(timeout):
		}
	}
	r.Signal(syscall.SIGINT)
	r.exits(130)
}
