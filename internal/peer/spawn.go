package peer

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"
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
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		host, port = strings.Trim(address, "[]"), DefaultPort
		if strings.Contains(host, ":") && net.ParseIP(host) == nil {
			return "", s, fmt.Errorf("peer %q: want host or host:port, then #token", line)
		}
	}
	if host == "" || port == "" || strings.ContainsAny(host, "/@ \t") {
		return "", s, fmt.Errorf("peer %q: want host or host:port, then #token", line)
	}
	return net.JoinHostPort(host, port), s, nil
}

// SSH is how a peer is started on another host.
type SSH struct {
	Target  string // [user@]host, as the user's ssh takes it
	Port    string // "" for ssh's own choice
	Program string // on the remote host; "xferbench" is looked up in its PATH
	Push    bool   // copy this binary there first, and remove it afterwards
}

// ParseSSH reads ssh://[user@]host[:port].
func ParseSSH(s string) (SSH, error) {
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "ssh" || u.Hostname() == "" || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" {
		return SSH{}, fmt.Errorf("peer %q: want ssh://[user@]host[:port]", s)
	}
	if _, has := u.User.Password(); has {
		return SSH{}, errors.New("peer: a password does not belong into a URL; ssh asks for it, or uses your keys")
	}
	t := u.Hostname()
	if n := u.User.Username(); n != "" {
		t = n + "@" + t
	}
	if strings.HasPrefix(t, "-") {
		return SSH{}, fmt.Errorf("peer %q: a host cannot begin with a dash", s)
	}
	return SSH{Target: t, Port: u.Port(), Program: "xferbench"}, nil
}

// Child is a peer that this process started: here or through ssh. It ends when
// its standard input does, whatever becomes of this process.
type Child struct {
	Address string
	Secret  Secret

	cmd    *exec.Cmd
	stdin  io.Closer
	stderr tail
	done   chan struct{}
	err    error
	once   sync.Once
	grace  time.Duration
}

// StartLocal starts a peer on this host, a second process of this binary.
// args are added to its serve command.
func StartLocal(ctx context.Context, timeout time.Duration, args ...string) (*Child, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("%w: this binary: %w", ErrPeer, err)
	}
	args = append([]string{"serve", "--once", "--attached", "--listen", "127.0.0.1:0"}, args...)
	return start(ctx, exec.Command(exe, args...), timeout)
}

// StartSSH starts a peer on another host through the user's own ssh. args are
// added to its serve command.
func StartSSH(ctx context.Context, s SSH, timeout time.Duration, args ...string) (*Child, error) {
	ssh := func(remote string) *exec.Cmd {
		a := []string{"-T"}
		if s.Port != "" {
			a = append(a, "-p", s.Port)
		}
		return exec.Command("ssh", append(a, "--", s.Target, remote)...)
	}
	program := quote(s.Program)
	remote := program + " serve --once --attached --listen ssh:0"
	for _, a := range args {
		remote += " " + quote(a)
	}
	if s.Push {
		path, err := push(ctx, ssh, timeout)
		if err != nil {
			return nil, fmt.Errorf("%w: copying this binary to %s: %w", ErrPeer, s.Target, err)
		}
		remote = strings.Replace(remote, program, path, 1)
		remote += "; rc=$?; rm -f " + path + "; exit $rc"
	}
	c, err := start(ctx, ssh(remote), timeout)
	if err != nil && !s.Push {
		err = fmt.Errorf("%w; xferbench must be in the PATH of %s, or use --push-binary", err, s.Target)
	}
	return c, err
}

// push copies this binary to a new temporary file of the remote host.
func push(ctx context.Context, ssh func(string) *exec.Cmd, timeout time.Duration) (string, error) {
	exe, err := os.Open("/proc/self/exe")
	if err != nil {
		return "", err
	}
	defer exe.Close()
	cmd := ssh(`umask 077; f=$(mktemp /tmp/xferbench.XXXXXX) && cat >"$f" && chmod 700 "$f" && echo "$f"`)
	cmd.Stdin = exe
	var out, words bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &words
	// A slow link may take a while for the binary's 20 MB.
	ctx, cancel := context.WithTimeout(ctx, timeout+2*time.Minute)
	defer cancel()
	if err := cmd.Start(); err != nil {
		return "", err
	}
	stop := context.AfterFunc(ctx, func() { cmd.Process.Kill() })
	err = cmd.Wait()
	stop()
	if err != nil {
		return "", fmt.Errorf("%w: %s", err, strings.TrimSpace(words.String()))
	}
	path := strings.TrimSpace(out.String())
	if !strings.HasPrefix(path, "/tmp/xferbench.") || strings.ContainsAny(path, " '\"$`\\\n;") {
		return "", fmt.Errorf("the remote shell answered %q where a file's name should be", path)
	}
	return path, nil
}

// quote makes one word of s for a POSIX shell.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// start runs cmd, a serve, and waits for its line.
func start(ctx context.Context, cmd *exec.Cmd, timeout time.Duration) (*Child, error) {
	c := &Child{cmd: cmd, done: make(chan struct{}), grace: timeout}
	// Ctrl-C is for this process: it ends its peer in order.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrPeer, err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrPeer, err)
	}
	c.stdin = stdin
	cmd.Stderr = &c.stderr
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("%w: starting %s: %w", ErrPeer, cmd.Path, err)
	}
	lines := make(chan string, 1)
	go func() {
		// The line is the only output; the rest is drained so that the
		// child never blocks.
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
		c.err = cmd.Wait()
		close(c.done)
	}()
	// Starting through ssh may wait for a person to type.
	t := time.NewTimer(timeout + 20*time.Second)
	defer t.Stop()
	select {
	case l := <-lines:
		c.Address, c.Secret, err = ParseLine(l, nil)
	case <-c.done:
		err = fmt.Errorf("%s ended before it was ready: %s", cmd.Path, c.Words())
	case <-ctx.Done():
		err = context.Cause(ctx)
	case <-t.C:
		err = fmt.Errorf("%s was not ready within %v", cmd.Path, timeout+20*time.Second)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%w: %w", ErrPeer, err), c.Stop())
	}
	return c, nil
}

// Words is the end of what the child said on its standard error, and how it
// ended.
func (c *Child) Words() string {
	s := strings.TrimSpace(c.stderr.String())
	select {
	case <-c.done:
		if c.err != nil {
			s = strings.TrimSpace(s + " (" + c.err.Error() + ")")
		}
	default:
	}
	return s
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
			if kerr := c.cmd.Process.Kill(); kerr != nil && !errors.Is(kerr, os.ErrProcessDone) {
				err = errors.Join(err, kerr)
			}
			<-c.done
			err = errors.Join(err, fmt.Errorf("%w: it did not end within %v and was killed", ErrPeer, c.grace))
		}
	})
	return err
}

// tail keeps the last part of what is written to it.
type tail struct {
	mu sync.Mutex
	b  []byte
}

const tailLen = 4 << 10

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b = append(t.b, p...)
	if len(t.b) > tailLen {
		t.b = append(t.b[:0], t.b[len(t.b)-tailLen:]...)
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.b)
}
