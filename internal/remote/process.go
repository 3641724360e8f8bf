package remote

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Command is what a process runs.
type Command struct {
	// Argv is the program and its arguments. Argv[0] "" is this binary: of
	// another host a copy, which is left nowhere.
	Argv []string
	// Env is added to the environment, KEY=VALUE.
	Env []string
	// Environ is the environment of a process on this host; nil: this process's.
	Environ []string
	// Stdin is what it reads, and then the end.
	Stdin []byte
	// Stdout and Stderr are told what it writes; nil: nobody is.
	// [Process.Words] has the end of standard error anyway.
	Stdout, Stderr io.Writer
	// Stream makes [Process.Stdout] of standard output. It must be read to its
	// end, or closed.
	Stream bool
	// Guard has a shell beside the process that ends its whole group whatever
	// becomes of this process, for programs that would not notice. Over ssh there
	// always is one.
	Guard bool
	// Grace is the time from SIGTERM to SIGKILL; 0: 10 s.
	Grace time.Duration
}

const (
	defaultGrace = 10 * time.Second
	// confirm is how long a guard may take to say that all is over, beyond what
	// it waits for.
	confirm = 10 * time.Second
	// buried bounds what the kernel may take to end a process that was killed.
	buried = 10 * time.Second
)

// ErrKilled is matched by the error of [Process.Stop] where SIGTERM was not
// enough.
var ErrKilled = errors.New("was killed")

// ErrLost is matched by the error of [Process.Stop] where nothing says that the
// process has ended: the connection to its host is gone.
var ErrLost = errors.New("look there for processes that are left")

// Process is a process that this one started, and the group that it leads. It
// is asked to end by SIGTERM, here or by its guard, and after the grace period
// the group is killed. What the process leaves in its group when it ends by
// itself goes the same way, and so does all of it when this process dies: a
// process of this host gets SIGTERM then.
type Process struct {
	// Stdout is for the command's Stream, else nil.
	Stdout io.ReadCloser

	host  Host
	grace time.Duration
	guard io.Closer // the guard's standard input; nil: none
	cmd   *exec.Cmd
	words Tail

	done   chan struct{}
	err    error       // of Wait, once done
	asked  atomic.Bool // to end, by Stop
	killed atomic.Bool // by Stop, or by the guard that it told
	once   sync.Once
	stop   error // of the first Stop
}

// Start starts a process, and stops it when ctx ends. Whoever starts one waits
// for its end: with [Process.Stop], [Process.Wait] or [Process.Done].
func Start(ctx context.Context, h Host, c Command) (*Process, error) {
	p := &Process{host: h, grace: c.Grace, done: make(chan struct{})}
	if p.grace <= 0 {
		p.grace = defaultGrace
	}
	feed, err := p.prepare(c)
	if err != nil {
		return nil, err
	}
	var pipe *io.PipeWriter
	p.cmd.Stdout = c.Stdout
	if c.Stream {
		p.Stdout, pipe = io.Pipe()
		p.cmd.Stdout = pipe
	}
	p.cmd.Stderr = &p.words
	if c.Stderr != nil {
		p.cmd.Stderr = io.MultiWriter(&p.words, c.Stderr)
	}
	// What it leaves behind may keep its output open.
	p.cmd.WaitDelay = time.Second
	// A terminal's Ctrl-C is for this process, which ends its own in order.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: !h.Ask, Pdeathsig: syscall.SIGTERM}
	started := make(chan error)
	go p.attend(started, pipe)
	if err := <-started; err != nil {
		feed.close()
		return nil, fmt.Errorf("starting %s: %w", p.cmd.Path, err)
	}
	go feed.send(&p.words)
	stopped := context.AfterFunc(ctx, func() {
		// Its error is that of the caller's own Stop, or no news beside ctx's.
		_ = p.Stop()
	})
	go func() { <-p.done; stopped() }()
	return p, nil
}

// feed is what a guarded process gets before its standard input is kept open.
type feed struct {
	from   io.Reader
	to     io.WriteCloser
	binary io.Closer
}

// send sends it. A process that ends early says why; the broken pipe is no news.
func (f *feed) send(words io.Writer) {
	if f == nil {
		return
	}
	_, err := io.Copy(f.to, f.from)
	if f.binary != nil {
		err = errors.Join(err, f.binary.Close())
	}
	if err != nil && !errors.Is(err, syscall.EPIPE) && !errors.Is(err, os.ErrClosed) {
		fmt.Fprintf(words, "\nsending what it reads: %v", err)
	}
}

func (f *feed) close() {
	if f == nil {
		return
	}
	// They have carried nothing.
	_ = f.to.Close()
	if f.binary != nil {
		_ = f.binary.Close()
	}
}

// prepare makes p.cmd of c.
func (p *Process) prepare(c Command) (*feed, error) {
	argv := slices.Clone(c.Argv)
	if p.host.here() && argv[0] == "" {
		exe, err := os.Executable()
		if err != nil {
			return nil, fmt.Errorf("this binary: %w", err)
		}
		argv[0] = exe
	}
	if p.host.here() && !c.Guard {
		p.cmd = exec.Command(argv[0], argv[1:]...)
		if len(c.Stdin) > 0 {
			p.cmd.Stdin = bytes.NewReader(c.Stdin)
		}
		p.cmd.Env = environ(c)
		return nil, nil
	}
	if len(c.Stdin) > 0 && c.Stdin[len(c.Stdin)-1] != '\n' {
		return nil, errors.New("remote: what a guarded process reads is a line")
	}
	f := &feed{from: bytes.NewReader(c.Stdin)}
	var size int64
	if argv[0] == "" {
		exe, n, err := self()
		if err != nil {
			return nil, fmt.Errorf("this binary: %w", err)
		}
		f.from, f.binary, size = io.MultiReader(f.from, exe), exe, n
	}
	if !p.host.here() && len(c.Env) > 0 {
		if size > 0 {
			return nil, errors.New("remote: a binary that is sent takes no environment")
		}
		argv = slices.Concat([]string{"env"}, c.Env, argv)
	}
	words := guarded(p.grace, len(c.Stdin), size, argv)
	var err error
	if p.host.here() {
		p.cmd = exec.Command(words[0], words[1:]...)
		p.cmd.Env = environ(c)
	} else {
		p.cmd, err = p.host.ssh(words)
	}
	if err == nil {
		f.to, err = p.cmd.StdinPipe()
	}
	if err != nil {
		if f.binary != nil {
			err = errors.Join(err, f.binary.Close())
		}
		return nil, err
	}
	p.guard = f.to
	return f, nil
}

func environ(c Command) []string {
	if c.Environ == nil {
		return append(os.Environ(), c.Env...)
	}
	return slices.Concat(c.Environ, c.Env)
}

// self opens this process's binary.
func self() (*os.File, int64, error) {
	f, err := os.Open("/proc/self/exe")
	if err != nil {
		return nil, 0, err
	}
	i, err := f.Stat()
	if err != nil {
		return nil, 0, errors.Join(err, f.Close())
	}
	return f, i.Size(), nil
}

// attend starts the process and waits for its end, and for that of what it
// leaves in its group.
func (p *Process) attend(started chan<- error, pipe *io.PipeWriter) {
	// The kernel sends Pdeathsig when the thread ends that started the process.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	err := p.cmd.Start()
	started <- err
	if err != nil {
		return
	}
	pid := p.cmd.Process.Pid
	// Until it is reaped, its group can be no other's.
	for err = unix.EINTR; errors.Is(err, unix.EINTR); {
		err = unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
	}
	p.group(syscall.SIGTERM)
	if p.err = p.cmd.Wait(); errors.Is(p.err, exec.ErrWaitDelay) {
		p.err = nil
	}
	for end := time.Now().Add(min(p.grace, afterwards)); p.cmd.SysProcAttr.Setpgid && inGroup(pid); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			p.group(syscall.SIGKILL)
			break
		}
	}
	if p.guard != nil {
		_ = p.guard.Close() // nobody reads it any more
	}
	close(p.done)
	if pipe != nil {
		_ = pipe.Close() // it never fails
	}
}

// group sends s to the process and its group; ssh at the terminal has none of
// its own. Where nothing is left, none is needed.
func (p *Process) group(s syscall.Signal) {
	pid := p.cmd.Process.Pid
	if !p.cmd.SysProcAttr.Setpgid {
		// The only error is that it has ended.
		_ = p.cmd.Process.Signal(s)
		return
	}
	_ = syscall.Kill(-pid, s)
}

// inGroup reports whether a process of the group lives. One that has ended stays
// until its new parent looks, which may take long.
func inGroup(group int) bool {
	if syscall.Kill(-group, 0) != nil {
		return false
	}
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return true
	}
	for _, f := range stats {
		b, err := os.ReadFile(f)
		if err != nil {
			continue // it just ended
		}
		// pid (name) state ppid pgrp …
		words := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
		if len(words) > 2 && words[2] == strconv.Itoa(group) && words[0] != "Z" && words[0] != "X" {
			return true
		}
	}
	return false
}

// Done is closed when the process and its group have ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Wait waits for the end, which comes at the latest some time after that of
// Start's ctx. Its error is that of [exec.Cmd.Wait], nil for a process that did
// what SIGTERM does when it was asked to end.
func (p *Process) Wait() error {
	<-p.done
	var e *exec.ExitError
	if p.asked.Load() && errors.As(p.err, &e) {
		ws, ok := e.Sys().(syscall.WaitStatus)
		if ok && (ws.Signaled() && ws.Signal() == syscall.SIGTERM || ws.ExitStatus() == 128+int(syscall.SIGTERM)) {
			return nil
		}
	}
	return p.err
}

// Ended says that the process has ended, and with which exit code: -1 for a
// signal.
func (p *Process) Ended() (code int, ended bool) {
	select {
	case <-p.done:
		return p.cmd.ProcessState.ExitCode(), true
	default:
		return 0, false
	}
}

// Pid is the number of the process here: of ssh, where it is on another host.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// Signal sends s to the process alone; one that has ended needs none.
func (p *Process) Signal(s syscall.Signal) error {
	if err := p.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("signal %v to process %d: %w", s, p.Pid(), err)
	}
	return nil
}

// Said is the first and the last part of what the process wrote to standard
// error.
func (p *Process) Said() string { return strings.TrimSpace(p.words.String()) }

// Words is what the process said, and how it ended, once it has.
func (p *Process) Words() string {
	s := p.Said()
	if _, ended := p.Ended(); !ended {
		return s
	}
	if err := p.Wait(); err != nil {
		s = strings.TrimSpace(s + " (" + p.ending(err) + ")")
	}
	return s
}

// Ending says how a process of this program ended that told no exit code of its
// own; see [Ending].
func (p *Process) Ending() error { return Ending(p.Wait(), p.words.ends(crashLen)) }

// ending is err in words; a kill that was not this process's is most often the
// kernel's, for want of memory.
func (p *Process) ending(err error) string {
	if p.wasKilled() && !p.killed.Load() {
		return "its process was killed (signal 9): perhaps out of memory"
	}
	return err.Error()
}

// wasKilled reports an end by SIGKILL; a guard, as a shell, says 128 + 9.
func (p *Process) wasKilled() bool {
	var e *exec.ExitError
	if !errors.As(p.err, &e) {
		return false
	}
	ws, ok := e.Sys().(syscall.WaitStatus)
	return ok && (ws.Signaled() && ws.Signal() == syscall.SIGKILL || ws.ExitStatus() == 128+int(syscall.SIGKILL))
}

// sshFailed is ssh's exit code for its own failures.
const sshFailed = 255

// Stop asks the process to end, and kills it and its group after the grace
// period: the error then matches [ErrKilled]. It returns when they have ended,
// or when that could not be confirmed, with an error that matches [ErrLost]. A
// process that ended by itself is no error. It may be called twice; the second
// call returns the first one's error.
func (p *Process) Stop() error {
	p.once.Do(func() { p.stop = p.end(false) })
	return p.stop
}

// Abandon is Stop for a process that has not said anything yet. An ssh that
// still waits for a network or a person does not look at its standard input.
func (p *Process) Abandon() error {
	p.once.Do(func() { p.stop = p.end(true) })
	return p.stop
}

func (p *Process) end(abandon bool) error {
	if _, ended := p.Ended(); ended {
		return p.lost(abandon)
	}
	p.asked.Store(true)
	begin, limit := time.Now(), p.grace
	if p.guard != nil {
		if err := p.guard.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
			return err
		}
		limit += afterwards + confirm
	}
	if p.guard == nil || abandon && !p.host.here() {
		p.group(syscall.SIGTERM)
	}
	t := time.NewTimer(limit)
	defer t.Stop()
	select {
	case <-p.done:
		// The guard kills nothing sooner; an earlier end was another's doing.
		if p.guard != nil && p.wasKilled() && time.Since(begin) >= min(p.grace, afterwards) {
			p.killed.Store(true)
			return p.errKilled()
		}
		return p.lost(abandon)
	case <-t.C:
	}
	p.killed.Store(true)
	p.group(syscall.SIGKILL)
	t.Reset(buried)
	select {
	case <-p.done:
	case <-t.C:
		return fmt.Errorf("process %d does not end, although it was killed: the kernel may wait for a device (ps says D)", p.Pid())
	}
	if p.guard == nil {
		return p.errKilled()
	}
	return fmt.Errorf("%s did not confirm that it was stopped; %w", p.host, ErrLost)
}

// lost tells an ssh that ended without the word of its guard.
func (p *Process) lost(abandon bool) error {
	if code := p.cmd.ProcessState.ExitCode(); p.host.here() || abandon || code >= 0 && code != sshFailed {
		return nil
	}
	return fmt.Errorf("the connection to %s ended before it was stopped (%w); %w", p.host, p.err, ErrLost)
}

func (p *Process) errKilled() error {
	return fmt.Errorf("it did not end within %v of SIGTERM and %w", p.grace, ErrKilled)
}
