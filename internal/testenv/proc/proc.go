// Package proc runs processes for tests: their output captured, each killed when
// its test ends. It helps a process in nothing else, so that tests see what is
// left behind.
package proc

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Output is what a process wrote; it may be read while the process writes.
type Output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

// Write implements [io.Writer].
func (o *Output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

// String is all of it so far.
func (o *Output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// Proc is a process of a test.
type Proc struct {
	Cmd *exec.Cmd
	// Out and Errs have standard output and standard error, unless Cmd led them
	// elsewhere.
	Out, Errs Output
	// Done is closed when it has ended.
	Done <-chan struct{}

	t     testing.TB
	limit time.Duration
	err   error
}

// Start starts cmd. limit bounds what the methods wait for. It fails the test
// where cmd cannot be started.
func Start(t testing.TB, cmd *exec.Cmd, limit time.Duration) *Proc {
	t.Helper()
	done := make(chan struct{})
	p := &Proc{Cmd: cmd, Done: done, t: t, limit: limit}
	if cmd.Stdout == nil {
		cmd.Stdout = &p.Out
	}
	if cmd.Stderr == nil {
		cmd.Stderr = &p.Errs
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { p.err = cmd.Wait(); close(done) }()
	t.Cleanup(func() {
		if !p.Ended() {
			p.Signal(syscall.SIGKILL)
			<-done
		}
	})
	return p
}

// Ended reports whether the process has.
func (p *Proc) Ended() bool {
	select {
	case <-p.Done:
		return true
	default:
		return false
	}
}

// Err is what Wait returned for a process that has ended.
func (p *Proc) Err() error { <-p.Done; return p.err }

// Signal sends s to the process, if it has not ended.
func (p *Proc) Signal(s syscall.Signal) {
	p.t.Helper()
	if err := p.Cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		p.t.Errorf("signal %v: %v", s, err)
	}
}

// Code waits for the end and returns the exit code, -1 for a signal.
func (p *Proc) Code() int {
	p.t.Helper()
	select {
	case <-p.Done:
	case <-time.After(p.limit):
		p.t.Fatalf("still running after %v\n%s%s", p.limit, p.Out.String(), p.Errs.String())
	}
	return p.Cmd.ProcessState.ExitCode()
}

// Until waits for what ok says while the process runs.
func (p *Proc) Until(what string, ok func() bool) {
	p.t.Helper()
	for end := time.Now().Add(p.limit); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		// The order counts: what holds at its end counts too.
		ended := p.Ended()
		if ok() {
			return
		}
		if ended {
			p.t.Fatalf("ended before %s: %v\n%s%s", what, p.Cmd.ProcessState, p.Out.String(), p.Errs.String())
		}
	}
	p.t.Fatalf("not within %v: %s\n%s%s", p.limit, what, p.Out.String(), p.Errs.String())
}
