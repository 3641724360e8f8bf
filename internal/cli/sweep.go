package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/xferbench/xferbench/internal/raw"
	"github.com/xferbench/xferbench/internal/record"
	"github.com/xferbench/xferbench/internal/report/table"
	"github.com/xferbench/xferbench/internal/units"
)

func newSweepCommand() *cobra.Command {
	f := newRawFlags("sweep")
	var plan bool
	cmd := &cobra.Command{
		Use:   "sweep [flags] [PEER]",
		Short: "Measure a grid of sizes and settings, and from which size on a transport wins",
		Long: `sweep measures every combination of providers, operations, sizes, descriptor
counts, block sizes, streams and depths, in randomised blocks over the whole
grid, and fits a cost model to each transport: start-up, per byte and per
descriptor. From two models it says below which size the one is faster, above
which the other, and between which there is no difference that matters.

Sizes and tokens are lists, or FROM:TO in powers of two, or FROM:TO:N on a
log scale. A sweep that was cut off goes on with --record FILE --resume.`,
		Example: `  xferbench sweep --provider tcp,ucx:tcp --size 64KiB:256MiB:7
  xferbench sweep --provider tcp --size 64MiB --descriptors 1,28,700,7000
  xferbench sweep --provider tcp --tokens 1000,8000 --streams 1,2,4 --plan`,
		Args: usageArgs(peerArg),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				f.o.Peer = args[0]
			}
			if err := f.complete(cmd); err != nil {
				return err
			}
			if !cmd.Flags().Changed("budget") {
				f.o.Budget = 0 // the grid is as long as it is
			}
			if !plan {
				if err := f.o.Validate(); err != nil {
					return err
				}
				if ended, err := f.keep(cmd); ended {
					return err
				}
			}
			w, err := f.sweepRecord(plan, cmd.Flags().Changed("seed"))
			if err != nil {
				return err
			}
			if err := f.o.Validate(); err != nil {
				return err
			}
			if plan {
				return printPlan(cmd.OutOrStdout(), &f.o)
			}
			if w == nil && !f.noRecord {
				if w, err = f.writer(cmd); err != nil {
					return err
				}
			}
			return f.measure(cmd, w)
		},
	}
	f.bind(cmd.Flags())
	fl := cmd.Flags()
	fl.IntSliceVar(&f.o.Descriptors, "descriptors", nil, "cut the same contiguous bytes into that many descriptors, instead of --shape")
	units.GuardLists(fl)
	fl.BoolVar(&f.resume, "resume", false, "go on with the record that --record names")
	fl.BoolVar(&plan, "plan", false, "print the cells, their bytes and an estimate of the time, and measure nothing")
	return cmd
}

// sweepRecord opens the record of a sweep that goes on, and takes its seed and
// what it has measured; nil for a new one. seeded: the seed was given.
func (f *rawFlags) sweepRecord(plan, seeded bool) (*record.Writer, error) {
	if !f.resume {
		return nil, nil
	}
	if f.recordFile == "" {
		return nil, usagef("--resume goes with --record FILE")
	}
	if _, err := os.Stat(f.recordFile); errors.Is(err, os.ErrNotExist) {
		return nil, nil // nothing yet: the same command starts and resumes
	}
	if f.o.Launches > 1 {
		return nil, usagef("--resume: %s is there, and a sweep of several launches cannot go on with a record yet: give another --record", f.recordFile)
	}
	r, err := record.Open(f.recordFile)
	if err != nil {
		return nil, usagef("%w", err)
	}
	if seeded && f.o.Seed != r.Run.Seed {
		return nil, usagef("--seed %d, but %s has seed %d: leave --seed out", f.o.Seed, f.recordFile, r.Run.Seed)
	}
	if err := f.o.Resume(r); err != nil || plan {
		return nil, err
	}
	return record.Append(f.recordFile)
}

// printPlan is the dry run of a sweep.
func printPlan(w io.Writer, o *raw.Options) error {
	cells, err := o.Cells()
	if err != nil {
		return err
	}
	left, total, err := o.Left()
	if err != nil {
		return err
	}
	var bytes int64
	for _, c := range cells {
		bytes += int64(c.Bytes)
	}
	cols := []table.Column{
		{Head: "#", Left: true, Cell: func(i int) string { return fmt.Sprint(i) }},
		{Head: "provider", Left: true, Cell: func(i int) string { return cells[i].Provider }},
		{Head: "op", Left: true, Cell: func(i int) string { return cells[i].Op }},
		{Head: "shape", Left: true, Cell: func(i int) string { return cells[i].Shape }},
		{Head: "bytes", Cell: func(i int) string { return units.FormatCount(int64(cells[i].Bytes)) }},
		{Head: "tokens", Cell: func(i int) string { return units.FormatCount(cells[i].Tokens) }},
		{Head: "descriptors", Cell: func(i int) string { return fmt.Sprint(cells[i].Descriptors) }},
	}
	for _, l := range table.Layout(cols, len(cells), 0) {
		if _, err := fmt.Fprintln(w, l); err != nil {
			return err
		}
	}
	_, err = fmt.Fprintf(w, "# %d cells x %d blocks, %d of %d batches left, seed %d\n# %s a block\n# at %s with its data checks about %s\n",
		len(cells), o.Blocks, left, total, o.Seed, units.FormatBytes(bytes), planRate, planTime(bytes, o.Blocks, left, total))
	return err
}

// planRate is what the estimate of a dry run assumes of a transfer together
// with its payload and check, which cost about as much.
const planRate = "0.5 GB/s"

func planTime(blockBytes int64, blocks, left, total int) time.Duration {
	const rate = 0.5e9
	share := 1.0
	if total > 0 {
		share = float64(left) / float64(total)
	}
	return time.Duration(float64(blockBytes) * float64(blocks) * share / rate * float64(time.Second)).Round(time.Second)
}
