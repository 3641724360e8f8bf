package cli

import (
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/xferbench/xferbench/internal/raw"
	"github.com/xferbench/xferbench/internal/record"
	"github.com/xferbench/xferbench/internal/report/table"
	"github.com/xferbench/xferbench/internal/schedule"
	"github.com/xferbench/xferbench/internal/spec"
	"github.com/xferbench/xferbench/internal/units"
)

func newSweepCommand() *cobra.Command {
	var f *rawCommand
	cmd := &cobra.Command{
		Use:   "sweep [flags] [PEER]",
		Short: "Measure a grid of sizes and settings, and from which size on a transport wins",
		Long: `sweep measures every combination of providers, operations, sizes, descriptor
counts, KV block sizes, streams, depths and all other factors, in randomised
blocks over the whole grid, and fits a cost model to each transport: start-up,
per byte and per descriptor. From two models it says below which size the one is
faster, above which the other, and between which there is no difference that
matters.

Sizes and tokens are lists, or FROM:TO in powers of two, or FROM:TO:N on a
log scale. A sweep that was cut off goes on with --record FILE --resume.`,
		Example: `  xferbench sweep --provider tcp,ucx:tcp --size 64KiB:256MiB:7
  xferbench sweep --provider tcp --size 64MiB --descriptors 1,28,700,7000
  xferbench sweep --provider tcp --tokens 1000,8000 --streams 1,2,4 --plan`,
		Args: usageArgs(peerArg),
		RunE: func(cmd *cobra.Command, args []string) error { return f.run(cmd, args) },
	}
	f = newRawCommand(cmd, spec.Sweep, func(fs *pflag.FlagSet, s *spec.Spec) {
		bindRaw(fs, s)
		fs.IntSliceVar((*[]int)(&s.Raw.Descriptors), "descriptors", s.Raw.Descriptors, "cut the same contiguous bytes into that many descriptors, instead of --shape")
	})
	cmd.Flags().BoolVar(&f.plan, "plan", false, "print the cells, their bytes and an estimate of the time, and measure nothing")
	return cmd
}

// printPlan is the dry run of a sweep; old is the record that it would go on with.
func printPlan(w io.Writer, p *raw.Plan, s *spec.Spec, old *record.Record) error {
	cells := p.Cells()
	done := 0
	for l := range s.Design.Launches {
		for _, p := range schedule.Earlier(old, l) {
			done += len(p.Count)
		}
	}
	total := len(cells) * *s.Design.Blocks * s.Design.Launches
	left := total - done
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
	_, err := fmt.Fprintf(w, "# %d cells x %d blocks, %d of %d batches left, seed %d\n# %s per block\n# at %s with its data checks about %s\n",
		len(cells), *s.Design.Blocks, left, total, *s.Seed, units.FormatBytes(bytes), planRate, planTime(bytes, *s.Design.Blocks*s.Design.Launches, left, total))
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
