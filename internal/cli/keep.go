package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/xferbench/xferbench/internal/fault"
	"github.com/xferbench/xferbench/internal/record"
	"github.com/xferbench/xferbench/internal/remote"
)

// keptKey is the context's key for the *remote.Kept of this process.
type keptKey struct{}

func kept(cmd *cobra.Command) *remote.Kept {
	k, ok := cmd.Context().Value(keptKey{}).(*remote.Kept)
	if !ok {
		return nil
	}
	return k
}

// keep has a second process do the command, and closes its record if that one
// cannot. It reports false where this process is to do it: it is the second
// one, or none could be started. lines says that the record's lines go to
// stdout.
func keep(cmd *cobra.Command, o remote.Options, lines bool) (bool, error) {
	if kept(cmd) != nil {
		return false, nil
	}
	o.Argv = os.Args
	e, err := remote.Keep(o)
	switch {
	case err != nil:
		return false, nil // as under an emulator of another machine's programs
	case e.Err == nil:
		return true, silent(e.Code)
	}
	err = e.Err
	end := record.End{Status: record.StatusFailed, EndUnixNs: time.Now().UnixNano()}
	if e.Interrupted {
		end.Status = record.StatusInterrupted
		err = fmt.Errorf("%w (%w)", fault.ErrInterrupted, err)
	}
	end.Error, end.ExitCode = err.Error(), exitCode(err)
	if e.Record != "" {
		err = errors.Join(err, record.Finish(e.Record, end))
	}
	if lines {
		err = errors.Join(err, (&record.Sink{Stream: cmd.OutOrStdout()}).Write(end))
	}
	return true, &fault.Error{Kind: fault.OfExitCode(end.ExitCode), Err: err}
}

// output is standard output. What is written to a reader that has gone (… |
// head -1) is dropped: that is no failure of the command.
type output struct {
	w io.Writer

	mu   sync.Mutex
	gone bool
	then func() // told once
}

func (o *output) Write(p []byte) (int, error) {
	n, err := o.w.Write(p)
	if !errors.Is(err, syscall.EPIPE) {
		return n, err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.gone && o.then != nil {
		o.then()
	}
	o.gone = true
	return len(p), nil
}

// errUnread is the cause of the end of a command whose only product nobody
// reads.
var errUnread = fmt.Errorf("%w: nobody reads the output", fault.ErrInterrupted)

// untilUnread ends the context once the reader of cmd's output has gone.
func untilUnread(cmd *cobra.Command) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(cmd.Context())
	if o, ok := cmd.OutOrStdout().(*output); ok {
		o.mu.Lock()
		defer o.mu.Unlock()
		if o.gone {
			cancel(errUnread)
		}
		o.then = func() { cancel(errUnread) }
	}
	return ctx, func() { cancel(nil) }
}
