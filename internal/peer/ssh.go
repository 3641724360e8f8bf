package peer

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"time"

	"github.com/xferbench/xferbench/internal/remote"
	"github.com/xferbench/xferbench/internal/version"
)

// SSH is how a peer is started on another host.
type SSH struct {
	remote.Host
	Program string // on the remote host; "xferbench" is looked up in its PATH
	Push    bool   // run a copy of this binary there, which is left nowhere
}

// ParseSSH reads ssh://[user@]host[:port].
func ParseSSH(s string) (SSH, error) {
	h, err := remote.ParseHost(s)
	if err == nil && h.Target == "" {
		err = fmt.Errorf("%q: want ssh://[user@]host[:port]", s)
	}
	if err != nil {
		return SSH{}, fmt.Errorf("peer: %w", err)
	}
	h.Ask = true
	return SSH{Host: h, Program: "xferbench"}, nil
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

// StartSSH starts a peer on another host through the user's own ssh. ssh stays
// in the terminal's foreground, so that it can ask for a password. timeout is
// how long ssh may take to connect, and the peer to end.
func StartSSH(ctx context.Context, s SSH, timeout time.Duration, l Libraries) (*Child, error) {
	s.Connect = timeout
	program := s.Program
	if s.Push {
		program = ""
	}
	c, err := start(ctx, s.Host, remote.Command{Argv: []string{program}, Grace: timeout}, task{Listen: listenSSH, Libraries: l})
	if errors.Is(err, exec.ErrNotFound) {
		return nil, fmt.Errorf("%w, or start xferbench serve there by hand", err)
	}
	if err != nil {
		return nil, err
	}
	if err := c.ready(ctx, "ssh to "+s.Target, sshWait(timeout, s.Push)); err != nil {
		return nil, fmt.Errorf("%w; %s", err, s.next(c))
	}
	return c, nil
}

// next is what to do when c could not be had.
func (s SSH) next(c *Child) string {
	code, ended := c.Ended()
	switch {
	case !ended:
	case code == 127 && !s.Push:
		return fmt.Sprintf("xferbench must be in the PATH of %s: install it there, name it with --peer-program, or use --push-binary", s.Target)
	case code == 126 && s.Push:
		return "install xferbench there instead of --push-binary, or start its serve by hand"
	case code == 255:
		return fmt.Sprintf("these are ssh's own words: make \"ssh %s true\" work first", s.Target)
	case code == 2 && !s.Push:
		// One of before there were workers takes the word for a peer's name.
		return fmt.Sprintf("run the same build on both sides: this is xferbench %s, and \"ssh %s xferbench version\" says the other; or use --push-binary", version.Version, s.Target)
	}
	return fmt.Sprintf("try: ssh %s xferbench version", s.Target)
}
