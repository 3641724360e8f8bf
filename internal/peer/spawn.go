package peer

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/xferbench/xferbench/cgo/mem"
	"github.com/xferbench/xferbench/internal/host"
)

// Line is what a peer is reached by: the last word of the line that serve
// prints.
func Line(address string, s Secret) string { return address + "#" + s.String() }

// ParseLine reads host[:port]#token. secret, when not nil, stands in for a
// token that is not there.
func ParseLine(line string, secret *Secret) (address string, s Secret, err error) {
	address, token, ok := strings.Cut(line, "#")
	switch {
	case ok:
		if s, err = ParseSecret(token); err != nil {
			return "", s, err
		}
	case secret != nil:
		s = *secret
	default:
		return "", s, fmt.Errorf("peer %q has no token: start xferbench serve there and paste the line that it prints, use ssh://%s, or give both sides a --secret-file", line, line)
	}
	host, port, err := splitAddress(address)
	if err != nil {
		return "", s, fmt.Errorf("peer %q: %w", line, err)
	}
	return net.JoinHostPort(host, port), s, nil
}

// splitAddress reads host, host:port, an IPv6 address with or without its
// brackets and zone, or [IPv6]:port. Without a port it is [DefaultPort].
func splitAddress(a string) (host, port string, err error) {
	host, port = a, DefaultPort
	var given bool
	if inner, bracketed := strings.CutPrefix(a, "["); bracketed {
		var after string
		if host, after, bracketed = strings.Cut(inner, "]"); !bracketed {
			return "", "", errors.New("the bracket is not closed: want [IPv6] or [IPv6]:port, then #token")
		}
		if port, given = strings.CutPrefix(after, ":"); !given && after != "" {
			return "", "", fmt.Errorf("%q after the bracket: want [IPv6] or [IPv6]:port, then #token", after)
		}
	} else if strings.Count(a, ":") == 1 {
		host, port, given = strings.Cut(a, ":")
	}
	if !given {
		port = DefaultPort
	}
	if strings.HasPrefix(a, "[") || strings.ContainsAny(host, ":%") {
		ip, err := netip.ParseAddr(host)
		if err != nil || !ip.Is6() || strings.ContainsFunc(ip.Zone(), notInName) {
			return "", "", fmt.Errorf("%q is not an IPv6 address: want host, host:port or [IPv6]:port, then #token", host)
		}
	} else if host == "" || strings.ContainsFunc(host, notInName) {
		return "", "", errors.New("want host or host:port, then #token")
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return "", "", fmt.Errorf("port %q: want a number from 1 to 65535", port)
	}
	return host, port, nil
}

// notInName tells what neither a host's name nor a zone's holds, so that an
// address reads the same wherever it is written.
func notInName(r rune) bool {
	return r <= ' ' || r > '~' || strings.ContainsRune("[]/@#%:\"'\\`", r)
}

// Child is a peer that this process started: here or through ssh. It ends when
// its standard input does, whatever becomes of this process.
type Child struct {
	Address string
	Secret  Secret

	cmd    *exec.Cmd
	stdin  io.WriteCloser
	stderr tail
	done   chan struct{}
	err    error
	once   sync.Once
	grace  time.Duration
	killed atomic.Bool // by Stop
}

// StartLocal starts a peer on this host, a second process of this binary.
// args are added to its serve command.
func StartLocal(ctx context.Context, timeout time.Duration, args ...string) (*Child, error) {
	return startLocal(ctx, timeout, nil, args)
}

// startLocal is StartLocal with an environment, nil for this process's.
func startLocal(ctx context.Context, timeout time.Duration, env, args []string) (*Child, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("%w: this binary: %w", ErrPeer, err)
	}
	args = append([]string{"serve", "--once", "--attached", "--listen", net.JoinHostPort(host.Loopback(), "0")}, args...)
	cmd := exec.Command(exe, args...)
	cmd.Env = env
	// Ctrl-C is for this process: it ends its peer in order.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return start(ctx, cmd, "the second process", timeout, timeout+20*time.Second, nil)
}

// start runs cmd, a serve, and waits for its line, at most for wait. what is cmd
// in an error's words. timeout is
// how long it may later take to end. feed, when not nil, is what the child
// reads first.
func start(ctx context.Context, cmd *exec.Cmd, what string, timeout, wait time.Duration, feed io.Reader) (*Child, error) {
	c := &Child{cmd: cmd, done: make(chan struct{}), grace: timeout}
	var stdout io.Reader
	var err error
	if c.stdin, err = cmd.StdinPipe(); err == nil {
		stdout, err = cmd.StdoutPipe()
	}
	cmd.Stderr = &c.stderr
	// A process that ssh leaves in the background may keep standard error open.
	cmd.WaitDelay = time.Second
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		return nil, fmt.Errorf("%w: starting %s: %w%s", ErrPeer, cmd.Path, err, shortOf(err))
	}
	lines := make(chan string, 1)
	go c.attend(stdout, lines)
	if feed != nil {
		go func() {
			// A child that ends early says why; the broken pipe is no news.
			_, err := io.Copy(c.stdin, feed)
			if err != nil && !errors.Is(err, syscall.EPIPE) && !errors.Is(err, os.ErrClosed) {
				fmt.Fprintf(&c.stderr, "\nsending the binary: %v", err)
			}
		}()
	}
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case l := <-lines:
		if c.Address, c.Secret, err = ParseLine(l, nil); err == nil {
			return c, nil
		}
	case <-c.done:
		err = fmt.Errorf("%s ended before the peer was ready: %s", what, c.Words())
	case <-ctx.Done():
		err = context.Cause(ctx)
	case <-t.C:
		err = fmt.Errorf("%s: no peer was ready within %v: %s", what, wait, c.Words())
	}
	return nil, c.abandon(err)
}

// shortOf is what a call that failed with err lacked and the next step, as the
// end of a sentence; "" where nothing shows.
func shortOf(err error) string {
	var errno syscall.Errno
	if !errors.As(err, &errno) {
		return ""
	}
	what, next := mem.Shortage(errno, 0)
	if what == "" {
		return ""
	}
	return ": " + what + "; " + next
}

// attend reads the child's output until its end. The line is the only output;
// the rest is drained so that the child never blocks.
func (c *Child) attend(stdout io.Reader, lines chan<- string) {
	r := bufio.NewReader(stdout)
	for {
		l, err := r.ReadString('\n')
		if _, addr, ok := strings.Cut(strings.TrimSpace(l), "xferbench "); ok && strings.Contains(addr, "#") {
			select {
			case lines <- addr[strings.LastIndexByte(addr, ' ')+1:]:
			default:
			}
		}
		if err != nil {
			break
		}
	}
	if c.err = c.cmd.Wait(); errors.Is(c.err, exec.ErrWaitDelay) {
		c.err = nil
	}
	close(c.done)
}

// abandon ends a child that is of no use, for the reason err.
func (c *Child) abandon(err error) error {
	// One that still waits for a network or a person does not look at its
	// standard input.
	if serr := c.cmd.Process.Signal(syscall.SIGTERM); serr != nil && !errors.Is(serr, os.ErrProcessDone) {
		err = errors.Join(err, serr)
	}
	return errors.Join(fmt.Errorf("%w: %w", ErrPeer, err), c.Stop())
}

// Words is what the child said on its standard error, and how it ended.
func (c *Child) Words() string {
	s := strings.TrimSpace(c.stderr.String())
	select {
	case <-c.done:
		if c.err != nil {
			s = strings.TrimSpace(s + " (" + c.ending() + ")")
		}
	default:
	}
	return s
}

// ending is how the child ended in words; a kill that was not this process's is
// most often the kernel's, for want of memory.
func (c *Child) ending() string {
	var e *exec.ExitError
	if errors.As(c.err, &e) && !c.killed.Load() {
		ws, ok := e.Sys().(syscall.WaitStatus)
		// A shell between them says 128 + 9.
		if ok && (ws.Signaled() && ws.Signal() == syscall.SIGKILL || ws.ExitStatus() == 128+int(syscall.SIGKILL)) {
			return "the peer's process was killed (signal 9): perhaps out of memory"
		}
	}
	return c.err.Error()
}

// Pid is the child's process number here.
func (c *Child) Pid() int { return c.cmd.Process.Pid }

// Stop closes the child's standard input, which ends it, and kills it when it
// has not ended after the timeout. It may be called twice.
func (c *Child) Stop() error {
	var err error
	c.once.Do(func() {
		err = c.stdin.Close()
		if errors.Is(err, os.ErrClosed) {
			err = nil
		}
		t := time.NewTimer(c.grace)
		defer t.Stop()
		select {
		case <-c.done:
		case <-t.C:
			c.killed.Store(true)
			if kerr := c.cmd.Process.Kill(); kerr != nil && !errors.Is(kerr, os.ErrProcessDone) {
				err = errors.Join(err, kerr)
			}
			<-c.done
			err = errors.Join(err, fmt.Errorf("%w: it did not end within %v and was killed", ErrPeer, c.grace))
		}
	})
	return err
}

// tail keeps the first and the last part of what is written to it.
type tail struct {
	mu   sync.Mutex
	head []byte
	b    []byte
}

const headLen, tailLen = 1 << 10, 4 << 10

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := min(len(p), headLen-len(t.head))
	t.head = append(t.head, p[:n]...)
	t.b = append(t.b, p[n:]...)
	if len(t.b) > tailLen {
		t.b = append(t.b[:0], t.b[len(t.b)-tailLen:]...)
	}
	return len(p), nil
}

// String is what was kept. Of a crash it has the reason, not the state of each
// goroutine.
func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	s, _, crash := strings.Cut(string(t.head), "\ngoroutine ")
	if crash {
		return s
	}
	return s + string(t.b)
}
