package launch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/url"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// script runs a command in a process group of its own until standard input
// ends, and then stops the whole group: TERM, a grace period, KILL. It runs the
// same on this host and over ssh, so that engines also stop when this process
// dies or the connection is lost. Control lines go to standard output, the
// command's own output to standard error.
//
// $1 is the grace period in seconds, the rest the command.
const script = `grace=$1; shift
exec 3>&1
setsid sh -c '"$@" >&2 3>&-; echo "exit $?" >&3' sh "$@" </dev/null &
pid=$!
echo "group $pid" >&3
alive() {
	kill -0 "-$pid" 2>/dev/null &&
		sed -n "s/.*) \([A-Za-z]\) [0-9]* $pid .*/\1/p" /proc/[0-9]*/stat 2>/dev/null | grep -qv '^[ZX]'
}
cat >/dev/null
kill -TERM "-$pid" 2>/dev/null
i=0
while alive && [ $i -lt $((grace * 10)) ]; do sleep 0.1; i=$((i + 1)); done
if alive; then kill -KILL "-$pid" 2>/dev/null; echo killed >&3; fi
wait "$pid" 2>/dev/null
echo stopped >&3
`

// tailBytes is how much of an engine's last output is kept for errors.
const tailBytes = 16 << 10

// process is a running engine.
type process struct {
	engine  Engine
	cmd     *exec.Cmd
	stdin   io.Closer
	log     *logFile
	control chan string   // control lines; closed when the script ends
	exited  chan struct{} // closed when the engine's command ended by itself
	code    string        // its exit status, once exited
	over    sync.Once     // guards code and exited
	done    chan error    // the script's own end
	grace   time.Duration
}

// command is what runs argv on an engine's host through script.
func command(host, ssh string, grace time.Duration, env map[string]string, argv []string) *exec.Cmd {
	args := []string{"sh", strconv.Itoa(int(grace / time.Second)), "env"}
	for _, k := range slices.Sorted(maps.Keys(env)) {
		args = append(args, k+"="+env[k])
	}
	return shell(host, ssh, script, append(args, argv...))
}

// shell runs a script of sh with arguments ($0 first) on a host.
func shell(host, ssh, script string, args []string) *exec.Cmd {
	var cmd *exec.Cmd
	if host == "" || host == "local" {
		cmd = exec.Command("sh", append([]string{"-c", script}, args...)...)
	} else {
		words := []string{"exec", "sh", "-c", quote(script)}
		for _, a := range args {
			words = append(words, quote(a))
		}
		cmd = exec.Command(ssh, append(sshArgs(host), strings.Join(words, " "))...)
	}
	// Not in this process's group: a Ctrl-C on the terminal must not reach it, so
	// that engines stop in order.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return cmd
}

// sshArgs are ssh's options and destination; host has been checked by Parse.
func sshArgs(host string) []string {
	args := []string{"-T", "-o", "BatchMode=yes", "-o", "ConnectTimeout=10", "-o", "ServerAliveInterval=15", "-o", "ServerAliveCountMax=4"}
	u, err := url.Parse(host)
	if err != nil {
		return append(args, "--", host)
	}
	if p := u.Port(); p != "" {
		args = append(args, "-p", p)
	}
	dest := u.Hostname()
	if user := u.User.Username(); user != "" {
		dest = user + "@" + dest
	}
	return append(args, "--", dest)
}

// quote makes one word of s for sh.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// logFile keeps an engine's output: all of it in a file, the end of it in memory.
type logFile struct {
	mu   sync.Mutex
	file *os.File
	tail []byte
	err  error
	// seen are the texts that have been asked for and were found.
	want []string
	seen map[string]bool
	part []byte // an unfinished line
}

func newLog(path string, want []string) (*logFile, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o644)
	if err != nil {
		return nil, fmt.Errorf("log: %w", err)
	}
	return &logFile{file: f, want: want, seen: map[string]bool{}}, nil
}

// Write implements io.Writer. It never fails, so that an engine is not stopped
// by a full disk; close reports the error.
func (l *logFile) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, err := l.file.Write(p); err != nil && l.err == nil {
		l.err = err
	}
	l.tail = append(l.tail, p...)
	if n := len(l.tail) - tailBytes; n > 0 {
		l.tail = append(l.tail[:0], l.tail[n:]...)
	}
	l.part = append(l.part, p...)
	text := string(l.part)
	for _, w := range l.want {
		if !l.seen[w] && strings.Contains(text, w) {
			l.seen[w] = true
		}
	}
	// Texts stand within a line.
	if i := strings.LastIndexByte(text, '\n'); i >= 0 {
		l.part = append(l.part[:0], l.part[i+1:]...)
	} else if len(l.part) > tailBytes {
		l.part = l.part[:0]
	}
	return len(p), nil
}

// missing are the texts of want that have not been seen.
func (l *logFile) missing(want []string) (out []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, w := range want {
		if !l.seen[w] {
			out = append(out, w)
		}
	}
	return out
}

// last returns the last n lines.
func (l *logFile) last(n int) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	lines := strings.Split(strings.TrimRight(string(l.tail), "\n"), "\n")
	return lines[max(len(lines)-n, 0):]
}

func (l *logFile) close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := errors.Join(l.err, l.file.Close()); err != nil {
		return fmt.Errorf("log: %w", err)
	}
	return nil
}

// startProcess starts an engine, whose output goes to log.
func startProcess(e Engine, ssh string, grace time.Duration, log *logFile) (*process, error) {
	p := &process{engine: e, log: log, grace: grace, control: make(chan string, 16), exited: make(chan struct{}), done: make(chan error, 1)}
	p.cmd = command(e.Host, ssh, grace, e.Env, e.Argv)
	stdin, err := p.cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	p.stdin = stdin
	p.cmd.Stdout = &lineWriter{line: p.line}
	p.cmd.Stderr = log
	// A grandchild that outlives its group must not hold Wait for ever.
	p.cmd.WaitDelay = 10 * time.Second
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go p.wait()
	return p, nil
}

// line takes a control line.
func (p *process) line(s string) {
	if code, ok := strings.CutPrefix(s, "exit "); ok {
		p.over.Do(func() {
			p.code = code
			close(p.exited)
		})
		return
	}
	select {
	case p.control <- s:
	default: // more lines than a script writes; none of ours is lost
	}
}

// wait waits for the script, not for what may still hold its output.
func (p *process) wait() {
	err := p.cmd.Wait()
	p.over.Do(func() {
		p.code = "unknown"
		if err != nil {
			p.code = err.Error()
		}
		close(p.exited)
	})
	close(p.control)
	p.done <- err
}

// lineWriter hands on each whole line of at most 4 KiB.
type lineWriter struct {
	line func(string)
	part []byte
}

// Write implements io.Writer; it never fails.
func (w *lineWriter) Write(b []byte) (int, error) {
	w.part = append(w.part, b...)
	for {
		i := bytes.IndexByte(w.part, '\n')
		if i < 0 {
			break
		}
		w.line(string(w.part[:i]))
		w.part = w.part[i+1:]
	}
	if len(w.part) > 4096 {
		w.part = nil
	}
	return len(b), nil
}

// stop ends the engine and waits until its whole process group is gone. ok is
// false when that could not be confirmed.
func (p *process) stop(ctx context.Context) error {
	if err := p.stdin.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
		return fmt.Errorf("engine %s: %w", p.engine.name, err)
	}
	limit := time.NewTimer(p.grace + 20*time.Second)
	defer limit.Stop()
	stopped, killed := false, false
	for {
		select {
		case line, more := <-p.control:
			stopped = stopped || line == "stopped"
			killed = killed || line == "killed"
			if more {
				continue
			}
			<-p.done
			switch {
			case !stopped:
				return fmt.Errorf("engine %s: the connection to %s ended before it was stopped (%s); look there for processes that are left", p.engine.name, where(p.engine.Host), p.code)
			case killed:
				return fmt.Errorf("engine %s did not end within %s of SIGTERM and was killed", p.engine.name, p.grace)
			}
			return nil
		case <-limit.C:
		case <-ctx.Done():
		}
		// The script (or ssh) does not answer: end it, by its own process group.
		err := syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
		if errors.Is(err, syscall.ESRCH) {
			err = nil
		}
		<-p.done
		return errors.Join(err, fmt.Errorf("engine %s: %s did not confirm that it was stopped; look there for processes that are left", p.engine.name, where(p.engine.Host)))
	}
}

func where(host string) string {
	if host == "" || host == "local" {
		return "this host"
	}
	return host
}

// killGroup kills the process group of a command started by shell.
func killGroup(pid int) error { return syscall.Kill(-pid, syscall.SIGKILL) }
