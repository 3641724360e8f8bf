package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/xferbench/xferbench/internal/remote"
)

// proc is an xferbench that runs. No supervisor of package remote is between: it
// would end what this soak looks for.
type proc struct {
	cmd            *exec.Cmd
	record         string
	stdout, stderr remote.Tail
	done           chan struct{}
	err            error // of starting or waiting
}

// hung is the exit code of a process that had to be killed.
const hung = -2

// start runs the binary; a failure to start shows in wait.
func (s *soak) start(args ...string) *proc {
	p := &proc{cmd: exec.CommandContext(s.ctx, s.bin, args...), done: make(chan struct{})}
	p.cmd.Env = append(os.Environ(), s.mark, "XDG_STATE_HOME="+s.dir)
	p.cmd.Stdout, p.cmd.Stderr = &p.stdout, &p.stderr
	// A group of its own, and output that a grandchild may hold open.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	p.cmd.WaitDelay = time.Second
	if p.err = p.cmd.Start(); p.err != nil {
		close(p.done)
		return p
	}
	go func() { p.err = p.cmd.Wait(); close(p.done) }()
	return p
}

// run starts a raw run with a record; args say what is moved, and where.
func (s *soak) run(provider string, args ...string) *proc {
	f, err := os.CreateTemp(s.dir, "*.jsonl")
	if err != nil {
		p := &proc{err: err, done: make(chan struct{})}
		close(p.done)
		return p
	}
	name := f.Name()
	// The run makes it anew, or leaves none.
	if err := errors.Join(f.Close(), os.Remove(name)); err != nil {
		fmt.Fprintln(os.Stderr, "soak:", err)
	}
	p := s.start(append([]string{"--provider", provider, "--no-ceiling", "--timeout", timeout.String(), "--record", name}, args...)...)
	p.record = name
	return p
}

// measure starts a run that lasts about a second.
func (s *soak) measure(provider string, args ...string) *proc {
	return s.run(provider, append([]string{"--op", "read,write", "--size", "4MB", "--blocks", "12"}, args...)...)
}

// wait returns the exit code, -1 for an end by signal, or hung after limit.
func (p *proc) wait(limit time.Duration) int {
	t := time.NewTimer(limit)
	defer t.Stop()
	select {
	case <-p.done:
	case <-t.C:
		p.signal(syscall.SIGKILL)
		<-p.done
		return hung
	}
	if p.cmd == nil || p.cmd.ProcessState == nil {
		return hung
	}
	return p.cmd.ProcessState.ExitCode()
}

func (p *proc) running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

func (p *proc) signal(sig syscall.Signal) {
	if p.cmd == nil || p.cmd.Process == nil {
		return
	}
	if err := p.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		fmt.Fprintf(os.Stderr, "soak: signal %v to %d: %v\n", sig, p.cmd.Process.Pid, err)
	}
}

// line is the PEER that a serve prints.
func (p *proc) line() (string, error) {
	for end := time.Now().Add(late); time.Now().Before(end) && p.running(); time.Sleep(5 * time.Millisecond) {
		for l := range strings.Lines(p.stdout.String()) {
			if f := strings.Fields(l); len(f) > 1 && f[0] == "xferbench" && strings.HasSuffix(l, "\n") {
				return strings.Trim(f[len(f)-1], "'"), nil
			}
		}
	}
	return "", fmt.Errorf("serve printed no line: %s", oneLine(p.stderr.String()))
}

// marked are the processes that carry this soak's mark and live, without those in but.
func (s *soak) marked(but ...int) ([]int, error) {
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil, err
	}
	var out []int
	for _, d := range dirs {
		env, err := os.ReadFile(d + "/environ")
		if err != nil || !bytes.Contains(env, []byte(s.mark)) {
			continue // gone, or another user's
		}
		if pid, err := strconv.Atoi(filepath.Base(d)); err == nil && alive(pid) && !slices.Contains(but, pid) {
			out = append(out, pid)
		}
	}
	return out, nil
}

func alive(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !strings.Contains(string(b), ") Z ")
}

// children are the living processes that pid started.
func children(pid int) []int {
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil {
		return nil
	}
	var out []int
	for _, f := range tasks {
		b, err := os.ReadFile(f)
		if err != nil {
			continue // a thread that just ended
		}
		for _, w := range strings.Fields(string(b)) {
			if c, err := strconv.Atoi(w); err == nil && alive(c) {
				out = append(out, c)
			}
		}
	}
	return out
}

// killAll ends what this soak started and what is still there.
func (s *soak) killAll() error {
	pids, err := s.marked()
	for _, pid := range pids {
		if kerr := syscall.Kill(pid, syscall.SIGKILL); kerr != nil && !errors.Is(kerr, syscall.ESRCH) {
			err = errors.Join(err, kerr)
		}
	}
	return err
}

// vm is a figure of /proc/PID/status in bytes: VmHWM, VmRSS.
func vm(pid int, key string) (int64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for l := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(l, key+":"); ok {
			kb, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(v), "kB")), 10, 64)
			return kb << 10, err
		}
	}
	return 0, fmt.Errorf("process %d has no %s", pid, key)
}

// descriptors is how many files pid has open.
func descriptors(pid int) (int, error) {
	es, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	return len(es), err
}

// shared lists what lies in /dev/shm, and the System V segments of this user.
func shared() ([]string, error) {
	es, err := os.ReadDir("/dev/shm")
	if err != nil {
		return nil, err
	}
	var out []string
	for _, e := range es {
		out = append(out, "/dev/shm/"+e.Name())
	}
	b, err := os.ReadFile("/proc/sysvipc/shm")
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	for l := range strings.Lines(string(b)) {
		if f := strings.Fields(l); len(f) > 1 && f[1] != "shmid" {
			out = append(out, "System V segment "+f[1])
		}
	}
	return out, nil
}

// settled waits until no marked process but those in but is left, nor a shared
// file that was not there before, and returns what still is.
func (s *soak) settled(before []string, but ...int) (pids []int, files []string, err error) {
	for end := time.Now().Add(timeout + late); ; time.Sleep(20 * time.Millisecond) {
		if pids, err = s.marked(but...); err != nil {
			return nil, nil, err
		}
		if files, err = shared(); err != nil {
			return nil, nil, err
		}
		files = slices.DeleteFunc(files, func(f string) bool { return slices.Contains(before, f) })
		if len(pids)+len(files) == 0 || time.Now().After(end) || s.ctx.Err() != nil {
			return pids, files, nil
		}
	}
}
