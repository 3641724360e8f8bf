// Package remote runs processes, on this host and through ssh.
//
// There is one policy for all of them ([Start]): a process leads a group, and
// ends with all of it, by SIGTERM, a grace period and SIGKILL, whatever ends
// this process or the connection; the end of its words and how it ended are
// kept. A process of this program is a [Worker]: it gets what it is to do as a
// value on standard input.
//
// A measuring command is two processes of one binary. The keeper loads no
// library and holds no buffer, so it outlives whatever becomes of the other:
// it starts that one ([Keep]), passes signals on to it, and says how it ended.
// The kept process ([Kept]) does the work, and ends in order when its keeper is
// gone. Between them is a socket pair: JSON lines, and from a kept process that
// dies, the Go runtime's own words.
package remote

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// keeperVar names the descriptor that leads to a process's keeper. It is not
// passed on.
const keeperVar = "XFERBENCH_KEEPER"

// message is a line between the two; one key is set.
type message struct {
	// To the kept process.
	Setup *Setup `json:"setup,omitempty"` // the first
	Stop  string `json:"stop,omitempty"`  // end in order: the signal's name
	// To the keeper.
	Refused string `json:"refused,omitempty"` // why there can be no namespace
	Record  string `json:"record,omitempty"`  // the record's path, once it is there
	Done    *int   `json:"done,omitempty"`    // the exit code, last
}

// Setup is what a kept process is told of itself.
type Setup struct {
	// Namespace: it is in a network and IPC namespace of its own, whose
	// loopback is still down.
	Namespace bool `json:"namespace,omitempty"`
	// Refused is why it is not, although that was asked for.
	Refused string `json:"refused,omitempty"`
}

// Options are how a process is kept.
type Options struct {
	// Argv is the command that the process runs, this one's own: its name and
	// its arguments.
	Argv []string
	// Stdin is what it reads; nil: this process's standard input.
	Stdin []byte
	// Namespace asks for a network and IPC namespace of its own. Where the
	// kernel refuses one, the process runs without.
	Namespace bool
	// Linger is how long Keep waits, when the process did not end by itself, for
	// what that had started.
	Linger time.Duration
}

// Ended is how a kept process ended.
type Ended struct {
	Code        int    // its exit code, where it ended by itself
	Err         error  // nil then; else what became of it: see [Ending]
	Interrupted bool   // a signal asked for the end, so Err is no news
	Record      string // the record that it began, "" for none
}

// ErrAlone is matched by the error of a process that could not be started: the
// caller is all there is.
var ErrAlone = errors.New("no second process")

// grace is how long a process that said its exit code may take to exit.
const grace = 10 * time.Second

// Keep runs this program once more, in a second process with the same standard
// streams and process group, and waits for its end.
func Keep(o Options) (Ended, error) {
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, Stops()...)
	signal.Notify(signals, syscall.SIGQUIT)
	defer signal.Stop(signals)
	// What a kept process leaves behind comes to this one.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return Ended{}, fmt.Errorf("%w: prctl(PR_SET_CHILD_SUBREAPER): %w", ErrAlone, err)
	}
	var setup Setup
	k := &keeper{o: o, signals: signals}
	for _, attr := range attributes(o.Namespace) {
		setup.Namespace = attr.Cloneflags&unix.CLONE_NEWNET != 0
		if err := k.start(attr, setup); err != nil {
			if !setup.Namespace {
				return Ended{}, fmt.Errorf("%w: %w", ErrAlone, err)
			}
			setup.Refused = "this kernel or container refuses one (" + cause(err) + ")"
			continue
		}
		e := k.attend()
		if k.refused == "" || e.Interrupted {
			return e, nil
		}
		setup.Refused = k.refused
	}
	return Ended{}, ErrAlone // not reached: the last try asks for no namespace
}

// cause is err without the names of the call and the file.
func cause(err error) string {
	var p *os.PathError
	if errors.As(err, &p) {
		err = p.Err
	}
	return err.Error()
}

// keeper is a try to run the process.
type keeper struct {
	o       Options
	signals <-chan os.Signal
	cmd     *exec.Cmd
	pipe    *os.File

	mu      sync.Mutex
	record  string
	done    *int
	refused string
	words   Tail // not JSON: a crash
}

// start starts the process with attr. Its setup waits for it in the pipe.
func (k *keeper) start(attr *syscall.SysProcAttr, setup Setup) error {
	k.record, k.done, k.refused = "", nil, ""
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	ends, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("socketpair: %w", err)
	}
	k.pipe = os.NewFile(uintptr(ends[0]), "kept process")
	theirs := os.NewFile(uintptr(ends[1]), "keeper")
	k.cmd = exec.Command(exe)
	k.cmd.Args = k.o.Argv
	k.cmd.Stdin, k.cmd.Stdout, k.cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	if k.o.Stdin != nil {
		k.cmd.Stdin = bytes.NewReader(k.o.Stdin)
	}
	k.cmd.ExtraFiles = []*os.File{theirs} // descriptor 3
	k.cmd.Env = append(os.Environ(), keeperVar+"=3")
	k.cmd.SysProcAttr = attr
	if err = k.send(message{Setup: &setup}); err == nil {
		err = k.cmd.Start()
	}
	err = errors.Join(err, theirs.Close())
	if err != nil {
		return errors.Join(err, k.pipe.Close())
	}
	return nil
}

func (k *keeper) send(m message) error { return json.NewEncoder(k.pipe).Encode(m) }

// attend passes signals on until the process has ended.
func (k *keeper) attend() (e Ended) {
	read, ended := make(chan struct{}), make(chan error, 1)
	said := make(chan struct{})
	go func() { defer close(read); k.read(said) }()
	go func() { ended <- k.cmd.Wait() }()
	var late <-chan time.Time
	var werr error
	impatient := false
	for running := true; running; {
		select {
		case werr = <-ended:
			running = false
		case <-said:
			said, late = nil, time.After(grace)
		case <-late:
			k.kill()
		case s := <-k.signals:
			switch {
			case s == syscall.SIGQUIT:
				k.signal(syscall.SIGQUIT) // for its goroutines
			case e.Interrupted:
				impatient = true
				k.kill()
			default:
				e.Interrupted = true
				if err := k.send(message{Stop: s.String()}); err != nil {
					k.kill() // it does not listen any more
				}
			}
		}
	}
	// A process that it forked may hold the pipe open.
	select {
	case <-read:
	case <-time.After(time.Second):
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	e.Record = k.record
	if k.done != nil {
		e.Code = *k.done
	} else if k.refused == "" || e.Interrupted {
		if !impatient {
			k.reap()
		}
		// A terminal's signal reaches both, and that process before it has a
		// handler, or this one later.
		e.Interrupted = e.Interrupted || stopped(werr)
		e.Err = fmt.Errorf("the measuring process %w", Ending(werr, k.words.ends(crashLen)))
	}
	if err := k.pipe.Close(); err != nil && e.Err == nil && k.done == nil {
		e.Err = err
	}
	return e
}

// read takes what the process says, and closes said at its exit code.
func (k *keeper) read(said chan<- struct{}) {
	r := bufio.NewReader(k.pipe)
	for {
		line, err := r.ReadString('\n')
		var m message
		if jerr := json.Unmarshal([]byte(line), &m); jerr != nil {
			m = message{}
			fmt.Fprint(&k.words, line)
		}
		k.mu.Lock()
		if m.Record != "" {
			k.record = m.Record
		}
		if m.Refused != "" {
			k.refused = m.Refused
		}
		if m.Done != nil && k.done == nil {
			k.done = m.Done
			close(said)
		}
		k.mu.Unlock()
		if err != nil {
			return // the other end is gone
		}
	}
}

// stopped reports whether err is the end of a process by a signal that asks for
// an end in order.
func stopped(err error) bool {
	var x *exec.ExitError
	if !errors.As(err, &x) {
		return false
	}
	ws, ok := x.Sys().(syscall.WaitStatus)
	return ok && ws.Signaled() && slices.Contains(Stops(), os.Signal(ws.Signal()))
}

// signal sends s to the process; one that is over needs none.
func (k *keeper) signal(s syscall.Signal) {
	if err := k.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		fmt.Fprintf(os.Stderr, "xferbench: signal %v to the measuring process: %v\n", s, err)
	}
}

func (k *keeper) kill() { k.signal(syscall.SIGKILL) }

// reap waits for what the process had started: a peer ends in order once its
// initiator is gone.
func (k *keeper) reap() {
	for end := time.Now().Add(k.o.Linger); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		_, err := unix.Wait4(-1, nil, unix.WNOHANG, nil)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return // ECHILD: none is left
		}
	}
}

// Stops are the signals that ask a process of this program for an end in order.
// A hang-up that was ignored when it began (nohup) stays so.
func Stops() []os.Signal {
	out := []os.Signal{os.Interrupt, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) {
		out = append(out, syscall.SIGHUP)
	}
	return out
}
