package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/xferbench/xferbench/internal/fault"
	"github.com/xferbench/xferbench/internal/host"
	"github.com/xferbench/xferbench/internal/peer"
	"github.com/xferbench/xferbench/internal/units"
)

func newServeCommand() *cobra.Command {
	var (
		listen     string
		bind       []string
		allow      []string
		libfabric  string
		libucp     string
		secretFile string
		once       bool
		attached   bool
		sessions   int
		maxMemory  units.Size
	)
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Be the peer of runs from another host",
		Long: `serve hands memory and transports to an xferbench on another host, one session
at a time. It prints the line to run there: it holds the address and a token,
made at each start, that is the key to this side. Who has the line can have
memory allocated here and data moved into it, until serve ends.`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			s := &peer.Server{MaxMemory: uint64(maxMemory), MaxSessions: sessions, Bind: bind, Libfabric: libfabric, Libucp: libucp}
			if once {
				s.MaxSessions = 1
			}
			s.Isolate = !attached
			s.Trusted = attached // the initiator is who started this process
			if slices.ContainsFunc(bind, func(a string) bool { return net.ParseIP(a) == nil }) {
				return usagef("--bind %s: want IP addresses of this host", strings.Join(bind, ","))
			}
			if cmd.Flags().Changed("allow") && len(allow) == 0 {
				return usagef("--allow is empty, which would let nobody in: leave it out to let all in")
			}
			for _, a := range allow {
				p, err := parseFrom(a)
				if err != nil {
					return err
				}
				s.Allow = append(s.Allow, p)
			}
			if sessions < 0 {
				return usagef("--max-sessions %d: want 0 (no limit) or more", sessions)
			}
			var err error
			if s.Secret, err = peer.NewSecret(); err != nil {
				return err
			}
			if secretFile != "" {
				if s.Secret, err = peer.ReadSecret(secretFile); err != nil {
					return usagef("--secret-file: %w", err)
				}
			}
			l, err := openListener(listen)
			if err != nil {
				return err
			}
			if !attached {
				s.Log = func(format string, args ...any) {
					fmt.Fprintf(cmd.ErrOrStderr(), "%s %s\n", time.Now().Format(time.TimeOnly), units.Printable(fmt.Sprintf(format, args...)))
				}
			}
			if err := announce(cmd, s, l, secretFile != "", attached); err != nil {
				return errors.Join(err, l.Close())
			}
			ctx := cmd.Context()
			if attached {
				var stop func()
				ctx, stop = untilEOF(ctx, cmd.InOrStdin())
				defer stop()
			}
			err = s.Serve(ctx, l)
			if errors.Is(context.Cause(ctx), fault.ErrInterrupted) {
				return silent(fault.Interrupted.ExitCode())
			}
			if err != nil {
				return unavailable(err)
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.StringVar(&listen, "listen", loopback(peer.DefaultPort), "address of the control channel: host:port, port 0 for any; ssh:0 for the address that this ssh session came in on")
	f.StringSliceVar(&bind, "bind", nil, "IP addresses for transports, a rail each (default: on the routes to the initiator's)")
	f.StringSliceVar(&allow, "allow", nil, "take control connections from these addresses and prefixes only, such as 10.0.0.7,10.1.0.0/16")
	f.StringVar(&libfabric, "libfabric", "", "libfabric.so.1 to load (default: the loader's, then /opt/amazon/efa)")
	f.StringVar(&libucp, "libucp", "", "libucp.so.0 to load")
	f.StringVar(&secretFile, "secret-file", "", "secret that both sides share, instead of a token in the line")
	f.BoolVar(&once, "once", false, "end after one session")
	f.IntVar(&sessions, "max-sessions", 0, "end after this many sessions (default: never)")
	f.Var(&maxMemory, "max-memory", "bytes that the buffers of a session may have together (default: what is free)")
	f.BoolVar(&attached, "attached", false, "end when standard input does, and print nothing but the line")
	return cmd
}

// parseFrom reads an address or a CIDR prefix of --allow.
func parseFrom(word string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(word); err == nil && a.Zone() == "" {
		a = a.Unmap()
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(word)
	if err != nil || p.Addr().Is4In6() {
		return p, usagef("--allow %q: want IP addresses or prefixes, such as 10.0.0.7,10.1.0.0/16,fd00::/8", word)
	}
	if p != p.Masked() {
		return p, usagef("--allow %s: has bits beyond its prefix: %s, or %s for the one address", word, p.Masked(), p.Addr())
	}
	return p, nil
}

// loopback is the default of a --listen: this host's loopback, IPv6 where it has
// no other.
func loopback(port string) string { return net.JoinHostPort(host.Loopback(), port) }

// openListener listens where the flag says; see [peer.Listen].
func openListener(where string) (net.Listener, error) {
	l, err := peer.Listen(where)
	var failed *net.OpError
	switch {
	case err != nil && !errors.As(err, &failed):
		return nil, usagef("--listen %w", err)
	case errors.Is(err, syscall.EADDRINUSE):
		name := where[:strings.LastIndexByte(where, ':')]
		return nil, unavailable(fmt.Errorf("%w: is another xferbench serve running? choose another port with --listen %s:0", err, name))
	case err != nil:
		next := ""
		if errors.Is(err, syscall.EADDRNOTAVAIL) {
			next = fmt.Sprintf("; choose an address of this host (see `ip address`); its loopback is %s", host.Loopback())
		}
		return nil, unavailable(fmt.Errorf("--listen %s: %w%s", where, err, next))
	}
	return l, nil
}

func announce(cmd *cobra.Command, s *peer.Server, l net.Listener, shared, attached bool) error {
	address := l.Addr().(*net.TCPAddr)
	shown := address.String()
	if address.IP.IsUnspecified() {
		name, err := os.Hostname()
		if err != nil {
			return err
		}
		shown = net.JoinHostPort(name, fmt.Sprint(address.Port))
	}
	w := cmd.OutOrStdout()
	if attached {
		_, err := fmt.Fprintf(w, "xferbench %s\n", peer.Line(shown, s.Secret))
		return err
	}
	fmt.Fprintf(w, "# listening on %s, key %s\n# run on the other host:\n", address, s.Secret.Fingerprint())
	if shared {
		_, err := fmt.Fprintf(w, "xferbench --provider tcp --secret-file FILE %s\n", shown)
		return err
	}
	_, err := fmt.Fprintf(w, "xferbench --provider tcp '%s'\n", peer.Line(shown, s.Secret))
	return err
}

// untilEOF ends the context when r does: the process that started this one is
// gone, or done.
func untilEOF(ctx context.Context, r io.Reader) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	go func() {
		_, err := io.Copy(io.Discard, r)
		if err == nil {
			err = errors.New("the initiator closed its end")
		}
		cancel(err)
		// What does not end in order then has no one left to wait for it.
		time.AfterFunc(30*time.Second, func() { os.Exit(3) })
	}()
	return ctx, func() { cancel(nil) }
}
