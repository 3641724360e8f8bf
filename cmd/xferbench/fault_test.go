package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/xferbench/xferbench/internal/record"
	"github.com/xferbench/xferbench/internal/testenv"
	testproc "github.com/xferbench/xferbench/internal/testenv/proc"
)

// limit is how long anything here may take that should end at once or within
// its timeout; these machines are slow and shared.
const limit = 60 * time.Second

// timeout is the --timeout of runs that wait for it.
const timeout = 2 * time.Second

// proc is a running xferbench.
type proc struct {
	*testproc.Proc
	t      *testing.T
	stdin  io.WriteCloser
	record string
}

// spawn starts a command; it is killed at the end of the test if it still runs.
func spawn(t *testing.T, cmd *exec.Cmd) *proc { t.Helper(); return spawnAs(t, cmd, nil) }

// spawnAs is spawn for another user.
func spawnAs(t *testing.T, cmd *exec.Cmd, user *syscall.Credential) *proc {
	t.Helper()
	p := &proc{t: t}
	cmd.Env = append(os.Environ(), "XDG_STATE_HOME="+t.TempDir())
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Credential: user}
	var err error
	if p.stdin, err = cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	p.Proc = testproc.Start(t, cmd, limit)
	return p
}

func xferbench(t *testing.T, args ...string) *proc {
	t.Helper()
	return spawn(t, exec.Command(bin, args...))
}

// endless starts a raw run that goes on until something ends it, and waits
// until it measures.
func endless(t *testing.T, provider string, args ...string) *proc {
	t.Helper()
	rec := filepath.Join(t.TempDir(), "r.jsonl")
	p := xferbench(t, append([]string{"--provider", provider, "--size", "16MB", "--shape", "merged", "--no-ceiling", "--blocks", "1000000",
		"--budget", "0", "--seed", "1", "--timeout", timeout.String(), "--record", rec}, args...)...)
	p.record = rec
	p.measuring()
	return p
}

func (p *proc) measuring() {
	p.t.Helper()
	p.Until("the run measures", func() bool {
		b, err := os.ReadFile(p.record)
		return err == nil && bytes.Contains(b, []byte(`"phase":"measure"`))
	})
}

// exits waits for the end and holds the exit code to want.
func (p *proc) exits(want int) {
	p.t.Helper()
	if got := p.Code(); got != want {
		p.t.Errorf("exit code %d, want %d\n%s%s", got, want, p.Out.String(), p.Errs.String())
	}
}

func (p *proc) says(words ...string) {
	p.t.Helper()
	for _, w := range words {
		if !strings.Contains(p.Errs.String(), w) {
			p.t.Errorf("stderr does not say %q:\n%s", w, p.Errs.String())
		}
	}
}

// closed holds the record to be valid line by line and closed with status.
func (p *proc) closed(status string, code int) *record.Record {
	p.t.Helper()
	f, err := os.Open(p.record)
	if err != nil {
		p.t.Fatal(err)
	}
	defer f.Close()
	sc := bufio.NewScanner(f)
	sc.Buffer(nil, 1<<24)
	for n := 1; sc.Scan(); n++ {
		if !json.Valid(sc.Bytes()) {
			p.t.Errorf("record line %d is not JSON: %.80s", n, sc.Text())
		}
	}
	r, err := record.Open(p.record)
	if err != nil {
		p.t.Fatal(err)
	}
	if r.End == nil || r.End.Status != status || r.End.ExitCode != code || (status != record.StatusOK) != (r.End.Error != "") {
		p.t.Errorf("the record's end is %+v, want status %s, code %d", r.End, status, code)
	}
	return r
}

// children lists the processes that p started and that still live.
func (p *proc) children() []int { p.t.Helper(); return children(p.t, p.Cmd.Process.Pid) }

// measurer is the process of a run that measures; p itself is its keeper.
func (p *proc) measurer() int {
	p.t.Helper()
	kids := p.children()
	if len(kids) != 1 {
		p.t.Fatalf("children %v, want the measuring process alone", kids)
	}
	return kids[0]
}

// peers lists the processes that a run's measuring process started.
func (p *proc) peers() []int { p.t.Helper(); return children(p.t, p.measurer()) }

func children(t *testing.T, pid int) []int {
	t.Helper()
	var out []int
	// Children are listed by the thread that forked them.
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range tasks {
		b, err := os.ReadFile(f)
		if err != nil {
			continue // a thread that just ended
		}
		for _, w := range strings.Fields(string(b)) {
			var pid int
			if _, err := fmt.Sscan(w, &pid); err == nil && !slices.Contains(out, pid) {
				out = append(out, pid)
			}
		}
	}
	return out
}

func alive(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !strings.Contains(string(b), ") Z ")
}

// end waits for processes whose parent is gone already.
func end(t *testing.T, pids []int) {
	t.Helper()
	for late := time.Now().Add(limit); slices.ContainsFunc(pids, alive); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(late) {
			t.Fatalf("of processes %v some still live after %v", pids, limit)
		}
	}
}

// serve starts a peer and returns the last word of its line.
func serve(t *testing.T, args ...string) (*proc, string) {
	t.Helper()
	p := xferbench(t, append([]string{"serve", "--listen", "127.0.0.1:0"}, args...)...)
	return p, p.line()
}

func (p *proc) line() string {
	p.t.Helper()
	var peer string
	p.Until("serve prints its line", func() bool {
		for l := range strings.Lines(p.Out.String()) {
			if f := strings.Fields(l); len(f) > 1 && f[0] == "xferbench" && strings.HasSuffix(l, "\n") {
				peer = strings.Trim(f[len(f)-1], "'")
				return true
			}
		}
		return false
	})
	return peer
}

// leftovers fails t for files that appear in the shared places while it runs.
func leftovers(t *testing.T) {
	t.Helper()
	list := func() []string {
		var out []string
		for _, dir := range []string{"/dev/shm", "/tmp"} {
			es, err := os.ReadDir(dir)
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range es {
				n := e.Name()
				// Other tests make their own files here meanwhile; these are
				// the names of the tool and of the libraries that it loads.
				if dir == "/dev/shm" || strings.HasPrefix(n, "xferbench.") || strings.HasPrefix(n, "ucx_shm") {
					out = append(out, filepath.Join(dir, n))
				}
			}
		}
		return out
	}
	before := list()
	t.Cleanup(func() {
		var left []string
		for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
			left = slices.DeleteFunc(list(), func(f string) bool { return slices.Contains(before, f) })
			if len(left) == 0 {
				return
			}
		}
		t.Errorf("left behind: %v", left)
	})
}

var providers = []string{"tcp", "tcp;ofi_rxm", "shm", "ucx:tcp", "ucx:shm", "socket"}

func TestPeerKilled(t *testing.T) {
	for _, p := range providers {
		t.Run(p, func(t *testing.T) {
			leftovers(t)
			s, line := serve(t)
			r := endless(t, p, line)
			start := time.Now()
			s.Signal(syscall.SIGKILL)
			r.exits(3)
			if d := time.Since(start); d > timeout+limit/2 {
				t.Errorf("took %v", d)
			}
			r.says("peer unavailable")
			r.closed(record.StatusFailed, 3)
		})
	}
}

func TestPeerStuck(t *testing.T) {
	for _, p := range []string{"tcp", "ucx:tcp", "socket"} {
		t.Run(p, func(t *testing.T) {
			leftovers(t)
			s, line := serve(t)
			r := endless(t, p, line)
			all := append(s.children(), s.Cmd.Process.Pid)
			if len(all) != 2 {
				t.Fatalf("serve and its session are processes %v, want two", all)
			}
			kill(t, syscall.SIGSTOP, all...)
			r.exits(3)
			r.closed(record.StatusFailed, 3)
			kill(t, syscall.SIGCONT, all...)
			s.Signal(syscall.SIGTERM)
			s.exits(130)
			end(t, all)
		})
	}
}

// A library may end its process: that of the session, not serve.
func TestSessionAborts(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGABRT, syscall.SIGKILL} {
		t.Run(sig.String(), func(t *testing.T) {
			leftovers(t)
			s, line := serve(t)
			r := endless(t, "ucx:tcp", line)
			kill(t, sig, s.children()...)
			r.exits(3)
			r.says("peer unavailable", "the session's process: it is gone", "its last words")
			r.closed(record.StatusFailed, 3)
			s.Until("serve notices", func() bool { return strings.Contains(s.Errs.String(), "it is gone") })
			xferbench(t, "--provider", "socket", "--size", "1MB", "--shape", "contiguous", "--no-ceiling", "--blocks", "1", "--no-record", line).exits(0)
			s.Signal(syscall.SIGTERM)
			s.exits(130)
		})
	}
}

func kill(t *testing.T, sig syscall.Signal, pids ...int) {
	t.Helper()
	for _, pid := range pids {
		if err := syscall.Kill(pid, sig); err != nil {
			t.Fatalf("process %d: %v", pid, err)
		}
	}
}

// The local child is this process's own: stuck or killed, it goes with it.
func TestLocalChildStuck(t *testing.T) {
	r := endless(t, "tcp")
	kids := r.peers()
	if len(kids) != 1 {
		t.Fatalf("children %v, want one", kids)
	}
	kill(t, syscall.SIGSTOP, kids...)
	r.exits(3)
	r.closed(record.StatusFailed, 3)
	if alive(kids[0]) {
		t.Errorf("child %d outlived its parent", kids[0])
	}
}

func TestInitiatorKilled(t *testing.T) {
	for _, p := range providers {
		t.Run(p, func(t *testing.T) {
			s, line := serve(t)
			r := endless(t, p, line)
			r.Signal(syscall.SIGKILL)
			s.Until("serve notices", func() bool { return strings.Contains(s.Errs.String(), "gone") })
			// It serves the next one.
			next := xferbench(t, "--provider", "socket", "--size", "1MB", "--shape", "contiguous", "--no-ceiling", "--blocks", "1", "--no-record", line)
			next.exits(0)
			s.Signal(syscall.SIGTERM)
			s.exits(130)
		})
	}
}

func TestInitiatorKilledTakesItsChildAlong(t *testing.T) {
	r := endless(t, "tcp")
	kids := append(r.peers(), r.measurer())
	r.Signal(syscall.SIGKILL)
	end(t, kids)
}

func TestServeOnceEndsWithItsSession(t *testing.T) {
	s, line := serve(t, "--once")
	r := xferbench(t, "--provider", "tcp", "--size", "1MB", "--shape", "merged", "--no-ceiling", "--blocks", "1", "--no-record", line)
	r.exits(0)
	s.exits(0)
	s, line = serve(t, "--once")
	k := endless(t, "tcp", line)
	k.Signal(syscall.SIGKILL)
	s.exits(3)
	s.says("gone")
}

func TestInterrupt(t *testing.T) {
	leftovers(t)
	r := endless(t, "tcp,ucx:tcp,shm")
	kids := append(r.peers(), r.measurer())
	r.Signal(syscall.SIGINT)
	r.exits(130)
	rec := r.closed(record.StatusInterrupted, 130)
	if rec.Samples.Len() == 0 {
		t.Error("what was measured is not in the record")
	}
	if !strings.Contains(r.Out.String(), "ucx:tcp") {
		t.Errorf("what was measured is not shown:\n%s", r.Out.String())
	}
	if slices.ContainsFunc(kids, alive) {
		t.Errorf("children %v outlived the run", kids)
	}
}

func TestSecondInterruptKills(t *testing.T) {
	r := endless(t, "tcp", "--timeout", "30s")
	kids := r.peers()
	// A stopped peer makes the orderly end wait.
	kill(t, syscall.SIGSTOP, kids...)
	r.Signal(syscall.SIGINT)
	time.Sleep(300 * time.Millisecond)
	select {
	case <-r.Done:
		t.Fatalf("ended already: the second interrupt tests nothing\n%s", r.Errs.String())
	default:
	}
	r.Signal(syscall.SIGINT)
	select {
	case <-r.Done:
	case <-time.After(10 * time.Second):
		t.Error("the second interrupt did not kill it")
	}
	for _, k := range kids {
		if err := syscall.Kill(k, syscall.SIGCONT); err != nil {
			t.Error(err)
		}
	}
	end(t, kids)
}

func TestFullDisk(t *testing.T) {
	testenv.NeedRoot(t)
	dir := t.TempDir()
	testenv.Need(t, "mount", unix.Mount("xferbench-test", dir, "tmpfs", 0, "size=512k"))
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	rec := filepath.Join(dir, "r.jsonl")
	r := xferbench(t, "--provider", "socket", "--size", "4KiB", "--shape", "contiguous", "--no-ceiling", "--blocks", "1000000", "--budget", "0", "--record", rec)
	r.record = rec
	r.exits(1)
	r.says("no space left on device")
	r.closed(record.StatusFailed, 1)
	// No room at all: nothing runs.
	if err := os.WriteFile(filepath.Join(dir, "filler"), make([]byte, 1<<20), 0o600); err == nil {
		t.Fatal("the disk is not full")
	}
	again := xferbench(t, "--provider", "socket", "--size", "4KiB", "--record", filepath.Join(dir, "s.jsonl"))
	again.exits(2)
	again.says("no space left on device")
}

func TestWrongToken(t *testing.T) {
	_, line := serve(t)
	_, other := serve(t)
	address, _, _ := strings.Cut(line, "#")
	_, token, _ := strings.Cut(other, "#")
	r := xferbench(t, "--no-record", address+"#"+token)
	r.exits(3)
	r.says("does not belong to this token")
	if strings.Contains(r.Errs.String(), token) {
		t.Error("the message shows the token")
	}
}

func TestOtherVersion(t *testing.T) {
	t.Parallel() // it waits more than it works
	old := filepath.Join(t.TempDir(), "xferbench")
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, "go", "build", "-ldflags", "-X github.com/xferbench/xferbench/internal/version.Version=0.0.1-old", "-o", old, ".").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	p := spawn(t, exec.Command(old, "serve", "--listen", "127.0.0.1:0"))
	r := xferbench(t, "--no-record", p.line())
	r.exits(3)
	r.says("0.0.1-old", "same build on both sides")
}

func TestGarbageOnTheControlPort(t *testing.T) {
	s, line := serve(t)
	address, _, _ := strings.Cut(line, "#")
	for range 3 {
		c, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Write(bytes.Repeat([]byte("\x16\x03\x01garbage\r\n"), 1000)); err != nil {
			t.Logf("write: %v", err)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
	r := xferbench(t, "--provider", "socket", "--size", "1MB", "--shape", "contiguous", "--no-ceiling", "--blocks", "1", "--no-record", line)
	r.exits(0)
	s.Signal(syscall.SIGTERM)
	s.exits(130)
}

func TestPortInUse(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	r := xferbench(t, "serve", "--listen", l.Addr().String())
	r.exits(3)
	r.says("address already in use", "--listen")
}

func TestNobodyListens(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	r := xferbench(t, "--no-record", address+"#AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")
	r.exits(3)
	r.says("connection refused", "xferbench serve")
}

func TestTooLargeForMemory(t *testing.T) {
	r := xferbench(t, "--size", "900GB", "--shape", "contiguous", "--no-record", "--no-ceiling")
	r.exits(2)
	r.says("memory available", "--size")
	_, line := serve(t, "--max-memory", "1MiB")
	r = xferbench(t, "--size", "2MB", "--no-record", "--no-ceiling", line)
	r.exits(2)
	r.says("--max-memory")
}

// More operations than any queue holds: refused posts are counted and tried
// again, and every byte arrives.
func TestQueueOverflow(t *testing.T) {
	for _, p := range []string{"tcp", "tcp;ofi_rxm", "ucx:tcp"} {
		t.Run(p, func(t *testing.T) {
			rec := filepath.Join(t.TempDir(), "r.jsonl")
			r := xferbench(t, "--provider", p, "--op", "read,write", "--size", "32MiB", "--shape", "contiguous", "--chunk", "4KiB",
				"--depth", "65536", "--timeout", "40s", "--no-ceiling", "--blocks", "2", "--record", rec)
			r.record = rec
			r.exits(0)
			got := r.closed(record.StatusOK, 0)
			var refused uint64
			for s := range got.Samples.All() {
				refused += s.EAgain
				if s.Verified == nil || !*s.Verified || s.Ops != 8192 {
					t.Errorf("sample %+v", s)
				}
			}
			if refused == 0 && p != "ucx:tcp" { // UCX queues what a transport refuses
				t.Error("no post was refused: the queue did not overflow")
			}
		})
	}
}

// cut pulls the cable between two hosts in the middle of a run.
func TestLinkCut(t *testing.T) {
	t.Parallel() // it waits more than it works
	for _, p := range []string{"tcp", "ucx:tcp", "socket"} {
		t.Run(p, func(t *testing.T) {
			a, b, links := testenv.Hosts(t, testenv.Link{})
			ctx := context.Background()
			s := spawn(t, b.Command(ctx, bin, "serve", "--listen", links[0].AddrB+":0"))
			rec := filepath.Join(t.TempDir(), "r.jsonl")
			r := spawn(t, a.Command(ctx, bin, "--provider", p, "--size", "16MB", "--shape", "merged", "--no-ceiling", "--blocks", "1000000", "--budget", "0",
				"--timeout", timeout.String(), "--record", rec, s.line()))
			r.record = rec
			r.measuring()
			links[0].Cut(t)
			r.exits(3)
			r.closed(record.StatusFailed, 3)
			s.Until("serve gives the initiator up", func() bool {
				return strings.Contains(s.Errs.String(), "has not answered") || strings.Contains(s.Errs.String(), "gone")
			})
			s.Signal(syscall.SIGTERM)
			s.exits(130)
		})
	}
}
