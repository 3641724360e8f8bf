package cli

import (
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/spf13/cobra"

	"github.com/xferbench/xferbench/internal/fault"
	"github.com/xferbench/xferbench/internal/record"
	"github.com/xferbench/xferbench/internal/report/live"
	"github.com/xferbench/xferbench/internal/units"
)

// liveFlags are those of report --live.
type liveFlags struct {
	on     bool
	listen string
	wait   time.Duration
}

// serve serves the report of one record until Ctrl-C, which is the usual end of it
// once the run has ended.
func (f *liveFlags) serve(cmd *cobra.Command, args []string) error {
	for _, name := range []string{"format", "output", "force", "run", "only", "wide"} {
		if cmd.Flags().Changed(name) {
			return usagef("--%s does not go with --live, which serves the HTML report", name)
		}
	}
	switch {
	case len(args) != 1:
		return usagef("--live takes one record, not %d", len(args))
	case args[0] == "-":
		return usagef(`--live follows a file, and "-" is standard input: name the file that the run writes`)
	case f.wait < 0:
		return usagef("--wait is %v; it must be 0 or more", f.wait)
	}
	path := args[0]
	if path == "last" {
		warnState(cmd)
		var err error
		if path, err = record.Last(); err != nil {
			return usagef("%w", err)
		}
	}
	l, err := f.listener()
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintf(cmd.OutOrStdout(), "report: http://%s/\n", l.Addr()); err != nil {
		return errors.Join(err, l.Close())
	}
	finished, err := live.Serve(cmd.Context(), l, live.Options{Path: path, Wait: f.wait, Told: func(state string) {
		fmt.Fprintf(cmd.ErrOrStderr(), "%s %s\n", time.Now().Format(time.TimeOnly), units.Printable(state))
	}})
	switch {
	case errors.Is(err, live.ErrRecord):
		return usagef("%w", err)
	case err != nil:
		return err
	case finished:
		return nil
	}
	return silent(fault.Interrupted.ExitCode())
}

// listener opens a loopback address: the page has no access control.
func (f *liveFlags) listener() (net.Listener, error) {
	name, _, err := net.SplitHostPort(f.listen)
	if err != nil {
		return nil, usagef("--listen %q: want host:port", f.listen)
	}
	if ip := net.ParseIP(name); name != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return nil, usagef("--listen %s: the page has no access control, so it takes loopback addresses alone; from another host, use ssh -L", f.listen)
	}
	l, err := net.Listen("tcp", f.listen)
	if err != nil {
		return nil, unavailable(fmt.Errorf("--listen %s: %w", f.listen, err))
	}
	return l, nil
}
