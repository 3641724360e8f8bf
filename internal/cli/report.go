package cli

import (
	"errors"
	"io"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/xferbench/xferbench/internal/report"
)

// thrifty halves the memory of a command that reads records. What it keeps is mostly
// numbers, in which the collector has nothing to follow: collecting often is cheap.
func thrifty() { debug.SetGCPercent(25) }

// stdinOnce refuses standard input that is named twice: it can be read once.
func stdinOnce(records []string) error {
	if i := slices.Index(records, "-"); i >= 0 && slices.Contains(records[i+1:], "-") {
		return usagef(`"-" stands twice: standard input holds one record, so give the other as a file`)
	}
	return nil
}

// newReportCommand returns "xferbench report".
func newReportCommand() *cobra.Command {
	var (
		format = "text"
		out    string
		force  bool
		wide   bool
		run    string
		follow liveFlags
		only   string
	)
	cmd := &cobra.Command{
		Use:   "report RECORD…",
		Short: "Print what a record says, as text, Markdown, CSV, JSON, benchfmt or HTML",
		Long: `Print what records say. All figures are worked out from the samples in the
record; nothing is measured. "last" names the newest record of this host, "-" standard
input. Records compressed by gzip are read as they are.

text is what the run itself printed. csv and json hold base units only. benchfmt
is the Go benchmark format, one line a block, for benchstat; --only takes one
provider or arm, so that two such files compare them. html is one file
without references to the network.

--live serves that page to browsers of this host while the run still writes its
record, and renews it at most every second. Ctrl-C ends it.`,
		Example: `  xferbench report last
  xferbench report last --wide
  xferbench report run.jsonl --format html -o run.html
  zcat archive.gz | xferbench report -
  xferbench report day1.jsonl --format benchfmt -o day1.txt
  xferbench report --live run.jsonl`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usagef(`report needs a record: name a file, "last" for the newest, or "-" for standard input`)
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if follow.on {
				return follow.serve(cmd, args)
			}
			for _, name := range []string{"listen", "wait"} {
				if cmd.Flags().Changed(name) {
					return usagef("--%s goes with --live", name)
				}
			}
			if !slices.Contains(report.Formats(), format) {
				return usagef("--format %q is not known; use %s", format, strings.Join(report.Formats(), ", "))
			}
			if only != "" && format != "benchfmt" {
				return usagef("--only is for --format benchfmt, and this is %s", format)
			}
			if slices.Contains(args, "last") {
				warnState(cmd)
			}
			if err := stdinOnce(args); err != nil {
				return err
			}
			thrifty()
			docs, err := report.Load(run, args...)
			if err != nil {
				return usagef("%w", err)
			}
			if out == "" || out == "-" {
				w := cmd.OutOrStdout()
				err = report.Write(w, docs, format, report.Options{Wide: wide, Color: color(w), Only: only})
			} else {
				err = report.Create(out, force, func(w io.Writer) error {
					return report.Write(w, docs, format, report.Options{Wide: wide, Only: only})
				})
			}
			if errors.Is(err, report.ErrExists) || errors.Is(err, report.ErrKinds) || errors.Is(err, report.ErrNoBench) {
				return usagef("%w", err)
			}
			return err
		},
	}
	f := cmd.Flags()
	f.StringVar(&format, "format", format, "`format` of the output: "+strings.Join(report.Formats(), ", "))
	f.StringVarP(&out, "output", "o", "", "write to `FILE` instead of the terminal; one that exists is refused")
	f.BoolVar(&force, "force", false, "replace the file of --output if it exists")
	f.StringVar(&run, "run", "", "take the record of that run (`ID`) from a file that holds several, as after cat or >>")
	f.StringVar(&only, "only", "", "benchfmt: the rows of one provider or arm (`NAME`), which their names then leave out")
	f.BoolVar(&wide, "wide", false, "all columns, however long the lines")
	f.BoolVar(&follow.on, "live", false, "serve the HTML report of a record that a run still writes, on this host")
	f.StringVar(&follow.listen, "listen", loopback("0"), "with --live: loopback address to serve, host:port, port 0 for any; there is no access control")
	f.DurationVar(&follow.wait, "wait", time.Minute, "with --live: how long to wait for a record that is not there yet")
	return cmd
}
