// Package cli is the command line: one file a subcommand, flags in, exit codes
// out. What the commands do is in the packages that they call.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/xferbench/xferbench/cgo/mem"
	"github.com/xferbench/xferbench/internal/fault"
	"github.com/xferbench/xferbench/internal/remote"
	"github.com/xferbench/xferbench/internal/units"
)

// Main runs the command that args name and returns the exit code:
// 0 ok, 1 internal, 2 usage, 3 transport or peer unavailable, 4 data check
// failed, 5 threshold missed, 6 too little data for a verdict, 130 interrupted.
func Main(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	kept, err := remote.Inside()
	if errors.Is(err, remote.ErrRefused) {
		return 3 // its keeper starts another
	}
	if err != nil {
		fmt.Fprintf(stderr, "xferbench: %v\n", err)
		return 1
	}
	if kept == nil {
		// A crash of this program then ends it by a signal: the exit status of
		// Go's own, 2, is that of usage errors. A keeper reads what Go said.
		debug.SetTraceback("crash")
	}
	code := run(kept, args, stdin, stdout, stderr)
	if err := kept.Done(code); err != nil {
		fmt.Fprintf(stderr, "xferbench: %v\n", err)
	}
	return code
}

func run(kept *remote.Kept, args []string, stdin io.Reader, stdout, stderr io.Writer) (code int) {
	ctx, stop := interruptible(kept)
	defer stop()
	// Go would end the process with 2, the code of usage errors.
	defer func() {
		if p := recover(); p != nil {
			fmt.Fprintf(stderr, "xferbench: internal error: %s\n%s", units.Printable(fmt.Sprint(p)), debug.Stack())
			code = 1
		}
	}()
	root := newRootCommand()
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(&output{w: stdout})
	root.SetErr(stderr)
	err := root.ExecuteContext(context.WithValue(ctx, keptKey{}, kept))
	if err == nil {
		return 0
	}
	code = exitCode(err)
	if errors.As(err, new(silent)) {
		return code
	}
	text := units.Printable(tidy(err))
	// Any call may be the one that finds no descriptor left.
	if next := mem.MoreFiles(err); !strings.Contains(text, next) {
		text += "; " + next
	}
	fmt.Fprintf(stderr, "xferbench: %s\n", text)
	if code == 2 {
		fmt.Fprintln(stderr, "Run xferbench --help for usage.")
	}
	return code
}

// interruptible is a context that the first Ctrl-C (or SIGTERM, or SIGHUP) ends
// in order; the second one kills. Of a kept process only its keeper counts them,
// since a terminal sends them to both. Writing to a reader that is gone, or
// beyond the limit of a file's size, is an error of that write from now on, and
// not the end of the process.
func interruptible(kept *remote.Kept) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(context.Background())
	writes := make(chan os.Signal, 1) // nobody looks at it
	signal.Notify(writes, syscall.SIGPIPE, syscall.SIGXFSZ)
	c := make(chan os.Signal, 1)
	signal.Notify(c, remote.Stops()...)
	go func() {
		for {
			select {
			case <-ctx.Done():
				return
			case <-c:
				cancel(fault.ErrInterrupted)
				if kept == nil {
					signal.Stop(c)
				}
			case why := <-kept.Stop():
				cancel(errors.Join(fault.ErrInterrupted, why))
			}
		}
	}()
	return ctx, func() { signal.Stop(writes); signal.Stop(c); cancel(nil) }
}

// exitCode is the code of an error from any command.
func exitCode(err error) int {
	var said silent
	if errors.As(err, &said) {
		return int(said)
	}
	return fault.KindOf(err).ExitCode()
}

// tidy puts joined errors on one line, the first cause first.
func tidy(err error) string {
	var lines []string
	for l := range strings.SplitSeq(err.Error(), "\n") {
		if l = strings.TrimSpace(l); l != "" {
			lines = append(lines, l)
		}
	}
	return strings.Join(lines, "; ")
}

// terminal reports whether w is one.
func terminal(w io.Writer) bool {
	if o, is := w.(*output); is {
		w = o.w
	}
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// color reports whether w takes colour: a terminal, and NO_COLOR unset.
func color(w io.Writer) bool { return os.Getenv("NO_COLOR") == "" && terminal(w) }

// usageArgs makes a command's argument errors usage errors.
func usageArgs(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			return usagef("%w", err)
		}
		return nil
	}
}
