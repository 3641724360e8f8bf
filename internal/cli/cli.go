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
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/xferbench/xferbench/internal/raw"
)

// Main runs the command that args name and returns the exit code:
// 0 ok, 1 internal, 2 usage, 3 transport or peer unavailable, 4 data check
// failed, 5 threshold missed, 6 too little data for a verdict, 130 interrupted.
func Main(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	ctx, stop := interruptible()
	defer stop()
	root := newRootCommand()
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	code := exitCode(err)
	var silent *exitError
	if !errors.As(err, &silent) || silent.err != nil {
		fmt.Fprintf(stderr, "xferbench: %v\n", tidy(err))
	}
	if code == 2 {
		fmt.Fprintln(stderr, "Run xferbench --help for usage.")
	}
	return code
}

// interruptible is a context that the first Ctrl-C (or SIGTERM) ends in order;
// the second one kills.
func interruptible() (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(context.Background())
	c := make(chan os.Signal, 1)
	signal.Notify(c, os.Interrupt, syscall.SIGTERM)
	go func() {
		if _, ok := <-c; ok {
			cancel(raw.ErrInterrupted)
			signal.Stop(c)
		}
	}()
	return ctx, func() { signal.Stop(c); cancel(nil) }
}

// exitCode is the code of an error from any command.
func exitCode(err error) int {
	var e *exitError
	if errors.As(err, &e) {
		return e.code
	}
	return raw.ExitCode(err)
}

// tidy puts joined errors on one line, the first cause first, and leaves out
// the word that only decides the exit code.
func tidy(err error) string {
	var lines []string
	for l := range strings.SplitSeq(err.Error(), "\n") {
		if l = strings.TrimPrefix(strings.TrimSpace(l), raw.ErrUsage.Error()+": "); l != "" {
			lines = append(lines, l)
		}
	}
	return strings.Join(lines, "; ")
}

// terminal reports whether w is one.
func terminal(w io.Writer) bool {
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
