package peer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/url"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"
)

// SSH is how a peer is started on another host.
type SSH struct {
	Target  string // [user@]host, as the user's ssh takes it
	Port    string // "" for ssh's own choice
	Program string // on the remote host; "xferbench" is looked up in its PATH
	Push    bool   // run a copy of this binary there, which is left nowhere
	Command string // the shell's words that start ssh; "": ssh
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

// sshWait bounds how long ssh and the peer may take to start. A person at the
// terminal has time for passwords, and a binary time for its way.
func sshWait(timeout time.Duration, push bool) time.Duration {
	wait := timeout + 20*time.Second
	// Without a terminal ssh cannot ask.
	if tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0); err == nil && tty.Close() == nil {
		wait += 2 * time.Minute
	}
	if push {
		wait += 2 * time.Minute
	}
	return wait
}

// StartSSH starts a peer on another host through the user's own ssh. args are
// added to its serve command. ssh stays in the terminal's foreground, so that
// it can ask for a password, and does not see Ctrl-C: this process ends it in
// order.
func StartSSH(ctx context.Context, s SSH, timeout time.Duration, args ...string) (*Child, error) {
	command := s.Command
	if command == "" {
		command = "ssh"
	}
	if name, _, _ := strings.Cut(strings.TrimSpace(command), " "); !strings.ContainsAny(name, "=$`'\"(){}~*?;|&<>\\") {
		if _, err := exec.LookPath(name); err != nil {
			return nil, fmt.Errorf("%w: starting ssh: %w; install an ssh client, or start xferbench serve there by hand", ErrPeer, err)
		}
	}
	words := []string{"-T", "-o", fmt.Sprintf("ConnectTimeout=%d", int(math.Ceil(timeout.Seconds())))}
	if s.Port != "" {
		words = append(words, "-p", s.Port)
	}
	serve := append([]string{"serve", "--once", "--attached", "--listen", "ssh:0"}, args...)
	remote := quote(s.Program)
	var feed io.Reader
	if s.Push {
		exe, size, err := self()
		if err != nil {
			return nil, fmt.Errorf("%w: this binary: %w", ErrPeer, err)
		}
		defer exe.Close()
		feed, remote = exe, receiver(size)
	}
	for _, a := range serve {
		remote += " " + quote(a)
	}
	words = append(words, "--", s.Target, remote)
	cmd := exec.Command("sh", append([]string{"-c", `trap "" INT; exec ` + command + ` "$@"`, "ssh"}, words...)...)
	c, err := start(ctx, cmd, "ssh to "+s.Target, timeout, sshWait(timeout, s.Push), feed)
	if err != nil {
		return nil, fmt.Errorf("%w; %s", err, s.next(cmd))
	}
	return c, nil
}

// next is what to do when ssh ended with the code that cmd has.
func (s SSH) next(cmd *exec.Cmd) string {
	code := -1
	if cmd.ProcessState != nil {
		code = cmd.ProcessState.ExitCode()
	}
	switch {
	case code == 127 && !s.Push:
		return fmt.Sprintf("xferbench must be in the PATH of %s: install it there, name it with --peer-program, or use --push-binary", s.Target)
	case code == 126 && s.Push:
		return "install xferbench there instead of --push-binary, or start its serve by hand"
	case code == 255:
		return fmt.Sprintf("these are ssh's own words: make \"ssh %s true\" work first", s.Target)
	}
	return fmt.Sprintf("try: ssh %s xferbench version", s.Target)
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

// machines are uname's words for this binary's.
var machines = map[string]string{"amd64": "x86_64", "arm64": "aarch64"}

// receiver is a command for any login shell that takes size bytes from its
// standard input, a binary, and becomes that binary; the command's further
// words are the binary's arguments. The file has lost its name before the
// binary runs, so that nothing has to remove it, whatever ends the session.
// A session that ends on the way leaves nothing either.
func receiver(size int64) string {
	machine := machines[runtime.GOARCH]
	script := strings.Join([]string{
		`m=$(uname -m); if [ "$m" != ` + machine + ` ]; then echo "this host is $m, the binary is for ` + machine + `" >&2; exit 126; fi`,
		`umask 077`,
		`f=$(mktemp "${TMPDIR:-/tmp}/xferbench.XXXXXX") || exit 126`,
		`clean() { rm -f "$f"; }; trap clean EXIT; trap "exit 129" HUP INT TERM`,
		fmt.Sprintf(`head -c %d >"$f" || exit 126`, size),
		fmt.Sprintf(`if [ $(wc -c <"$f") -ne %d ]; then echo "the binary did not arrive whole" >&2; exit 126; fi`, size),
		`chmod 700 "$f"; exec 3<"$f"; clean; trap - EXIT HUP INT TERM`,
		`exec /proc/self/fd/3 "$@"`,
	}, "; ")
	return "exec sh -c " + quote(script) + " xferbench"
}

// quote makes one word of s for a POSIX shell.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
