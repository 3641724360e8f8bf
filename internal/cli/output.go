package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"crypto/rand"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/xferbench/xferbench/internal/record"
	"github.com/xferbench/xferbench/internal/schedule"
	"github.com/xferbench/xferbench/internal/spec"
)

// recordFlags say where a measuring command's record goes, and whether it goes on
// with one.
type recordFlags struct {
	file   string
	none   bool
	json   string
	resume bool
}

func (f *recordFlags) bind(fs *pflag.FlagSet) {
	fs.StringVar(&f.file, "record", "", "file for the record (default: a new one in $XDG_STATE_HOME/xferbench)")
	fs.BoolVar(&f.none, "no-record", false, "write no record file")
	fs.BoolVar(&f.resume, "resume", false, "go on with the record that --record names")
	fs.StringVar(&f.json, "json", "", `"-": the record's lines on stdout instead of the table`)
}

// lines reports whether the record's lines go to stdout.
func (f *recordFlags) lines() bool { return f.json == "-" }

// resumed checks the flags, completes s, and returns the record that the run goes
// on with; nil for a new one.
func (f *recordFlags) resumed(s *spec.Spec) (*record.Record, error) {
	switch {
	case f.none && f.file != "":
		return nil, usagef("--record and --no-record exclude each other")
	case f.json != "" && f.json != "-":
		return nil, usagef(`--json %q: want "-"; a file is --record`, f.json)
	case f.resume && f.file == "":
		return nil, usagef("--resume goes with --record FILE")
	case !f.resume:
		return nil, s.Complete()
	}
	if _, err := os.Stat(f.file); errors.Is(err, os.ErrNotExist) {
		return nil, s.Complete() // nothing yet: the same command starts and resumes
	}
	r, err := record.Open(f.file)
	if err != nil {
		return nil, usagef("%w", err)
	}
	return r, schedule.Resume(r, s)
}

// writer opens the record; nil for none. old is the one that the run goes on with.
func (f *recordFlags) writer(cmd *cobra.Command, old *record.Record) (*record.Writer, error) {
	var w *record.Writer
	var err error
	switch {
	case f.none:
		return nil, nil
	case old != nil:
		w, err = record.Append(f.file)
	case f.file != "":
		w, err = record.Create(f.file)
	default:
		warnState(cmd)
		return record.CreateDefault(time.Now(), strings.ToLower(rand.Text()[:6]))
	}
	if err != nil {
		return nil, usagef("%w", err)
	}
	return w, nil
}

// output is the context of a command whose record is w: its keeper knows the
// file, and it ends when its only product is read by nobody.
func (f *recordFlags) output(cmd *cobra.Command, w *record.Writer) (context.Context, func(), error) {
	if w != nil {
		if err := kept(cmd).Record(w.Path()); err != nil {
			return nil, nil, errors.Join(err, w.Close())
		}
	}
	if w == nil && f.lines() {
		ctx, stop := untilUnread(cmd)
		return ctx, stop, nil
	}
	return cmd.Context(), func() {}, nil
}

// warnState says that a record's usual place is not where $XDG_STATE_HOME says.
func warnState(cmd *cobra.Command) {
	if w := record.StateWarning(); w != "" {
		fmt.Fprintf(cmd.ErrOrStderr(), "xferbench: warning: %s\n", w)
	}
}
