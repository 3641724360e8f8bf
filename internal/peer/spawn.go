package peer

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/xferbench/xferbench/cgo/mem"
	"github.com/xferbench/xferbench/internal/host"
	"github.com/xferbench/xferbench/internal/remote"
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

// Libraries are the files that a peer loads, "" for the loader's.
type Libraries struct{ Fabric, UCP string }

// Child is a peer that this process started: here or through ssh.
type Child struct {
	Address string
	Secret  Secret
	*remote.Worker
}

// StartLocal starts a peer on this host, a second process of this binary.
// timeout is how long it may later take to end.
func StartLocal(ctx context.Context, timeout time.Duration, l Libraries) (*Child, error) {
	return startLocal(ctx, timeout, nil, task{Libraries: l})
}

// startLocal is StartLocal with an environment, nil for this process's.
func startLocal(ctx context.Context, timeout time.Duration, env []string, t task) (*Child, error) {
	t.Listen = net.JoinHostPort(host.Loopback(), "0")
	c, err := start(ctx, remote.Host{}, remote.Command{Argv: []string{""}, Environ: env, Grace: timeout}, t)
	if err != nil {
		return nil, err
	}
	if err := c.ready(ctx, "the second process", timeout+20*time.Second); err != nil {
		return nil, err
	}
	return c, nil
}

// start starts a worker that serves.
func start(ctx context.Context, h remote.Host, c remote.Command, t task) (*Child, error) {
	// It outlives ctx: the session with it ends in order first.
	w, err := remote.StartWorker(context.WithoutCancel(ctx), h, c, Task, t)
	if err != nil {
		return nil, fmt.Errorf("%w: %w%s", ErrPeer, err, shortOf(err))
	}
	return &Child{Worker: w}, nil
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

// ready waits for the child's line, at most for wait. what is the child in an
// error's words. A child that is not ready is ended.
func (c *Child) ready(ctx context.Context, what string, wait time.Duration) error {
	late := fmt.Errorf("no peer was ready within %v", wait)
	within, cancel := context.WithTimeoutCause(ctx, wait, late)
	defer cancel()
	var line string
	err := c.Answer(within, &line)
	if err == nil {
		c.Address, c.Secret, err = ParseLine(line, nil)
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, remote.ErrNoAnswer):
		err = fmt.Errorf("%s ended before the peer was ready: %s", what, c.Words())
	case errors.Is(err, late):
		err = fmt.Errorf("%s: %w: %s", what, err, c.Words())
	}
	return c.abandon(err)
}

// abandon ends a child that is of no use, for the reason err.
func (c *Child) abandon(err error) error {
	return errors.Join(fmt.Errorf("%w: %w", ErrPeer, err), ofPeer(c.Worker.Abandon()))
}

// Stop ends the child, and kills it when it has not ended after the timeout. It
// may be called twice.
func (c *Child) Stop() error { return ofPeer(c.Worker.Stop()) }

func ofPeer(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%w: %w", ErrPeer, err)
}
