package cli

import (
	"errors"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/xferbench/xferbench/internal/fault"
	"github.com/xferbench/xferbench/internal/report"
	"github.com/xferbench/xferbench/internal/units"
)

// newCompareCommand returns "xferbench compare".
func newCompareCommand() *cobra.Command {
	var (
		o         report.CompareOptions
		threshold units.Percent
		transport []string
	)
	cmd := &cobra.Command{
		Use:   "compare A B [C ...]",
		Short: "Compare records: two days, two hosts, or raw transfers with TTFT",
		Long: `Compare records, each a file, "last", or one of them "-", standard input.

Two records of one kind, raw transfers or ttft, are matched row by row; B is held
against A. They were not interleaved, so a change of the host or the network
between them looks the same as a difference. To compare transports or arms, name
them in one run instead. More than two records are a history, in the order of
time: the newest is held against the oldest.

A raw record and one of xferbench ttft, in either order, tell where the time to
first token went and which share of it the wire explains. Where the record does
not say over which transport the engines moved the KV cache, --transport does.

With --threshold a row passes only if the whole interval of its ratio is within
it. Exit code 4: a data check failed. 5: a row is slower, with the whole interval.
6: a row is missing or undecided, or a run did not end in order. 2: records that
may not be compared, such as those of emulated devices. The lowest of 4, 5 and 6
wins.`,
		Example: `  xferbench compare monday.jsonl last
  xferbench compare main.jsonl branch.jsonl --threshold 5% --format junit
  xferbench compare monday.jsonl tuesday.jsonl wednesday.jsonl
  xferbench compare raw.jsonl ttft.jsonl --transport ucx:tcp`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) < 2 {
				return usagef(`compare needs two records or more and got %d; "last" names the newest`, len(args))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if !slices.Contains(report.CompareFormats(), o.Format) {
				return usagef("--format %q is not known; use %s", o.Format, strings.Join(report.CompareFormats(), ", "))
			}
			gated := cmd.Flags().Changed("threshold")
			if o.Threshold = float64(threshold); gated && threshold == 0 {
				return usagef("--threshold 0: want a slowdown above zero; without --threshold nothing is accepted or missed")
			}
			if o.AllowUndecided && !gated {
				return usagef("--allow-undecided is for --threshold, which is not given")
			}
			var err error
			if o.Transports, err = transports(transport); err != nil {
				return err
			}
			if slices.Contains(args, "last") {
				warnState(cmd)
			}
			if err := stdinOnce(args); err != nil {
				return err
			}
			thrifty()
			w := cmd.OutOrStdout()
			o.Color = color(w)
			err = report.Compare(w, args, o)
			for target, kind := range map[error]fault.Kind{
				report.ErrRefused: fault.Usage, report.ErrCheck: fault.Data, report.ErrThreshold: fault.Threshold, report.ErrTooFew: fault.TooFew,
			} {
				if errors.Is(err, target) {
					return &fault.Error{Kind: kind, Err: err}
				}
			}
			return err
		},
	}
	f := cmd.Flags()
	f.Var(&threshold, "threshold", "slowdown that is accepted, such as `5%`; beyond it the exit code is 5")
	f.BoolVar(&o.AllowUndecided, "allow-undecided", false, "pass rows that --threshold cannot be decided on")
	f.StringArrayVar(&transport, "transport", nil, "`[ARM=]NAME`: the provider of the raw record over which the engines moved the KV cache; may be repeated")
	f.StringVar(&o.Format, "format", "text", "`format` of the output: "+strings.Join(report.CompareFormats(), ", "))
	f.BoolVar(&o.Wide, "wide", false, "all columns, however long the lines")
	return cmd
}

// transports reads [ARM=]NAME… into names by arm; "" is for all arms.
func transports(list []string) (map[string]string, error) {
	out := map[string]string{}
	for _, s := range list {
		arm, name, has := strings.Cut(s, "=")
		if !has || strings.ContainsAny(arm, ": ") { // of a name: "tcp s=4"
			arm, name, has = "", s, false
		}
		if name == "" || has && arm == "" {
			return nil, usagef("--transport %q: want NAME or ARM=NAME, such as ucx:tcp", s)
		}
		if _, twice := out[arm]; twice {
			return nil, usagef("--transport %q: a second transport of the same engines", s)
		}
		out[arm] = name
	}
	return out, nil
}
