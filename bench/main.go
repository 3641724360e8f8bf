// Command bench holds xferbench against the tools that measure the same thing:
// iperf3, ucx_perftest and fi_pingpong, on the same work, over loopback, run in
// turn so that a machine whose speed drifts slows both. It prints ratios with
// their spread; nothing here passes or fails by an absolute time.
//
//	make bench
//	make bench BENCH_ARGS='-pairs 11 -only socket'
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"regexp"
	"runtime"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/xferbench/xferbench/internal/host"
	"github.com/xferbench/xferbench/internal/stats"
	"github.com/xferbench/xferbench/internal/units"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	pairs := flag.Int("pairs", 7, "runs of each tool, in turn")
	only := flag.String("only", "", "regular expression of the rows to run")
	bin := flag.String("bin", "bin/xferbench", "binary to measure")
	flag.Parse()
	if err := run(ctx, *bin, *pairs, *only); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// contest is one row: two tools at the same work.
type contest struct {
	name, peer string
	unit       string
	// higher says that more is better (a rate); otherwise less is (a time).
	higher bool
	goal   float64 // of ours over theirs; 0: only reported
	ours   func(context.Context) (float64, error)
	theirs func(context.Context) (float64, error)
}

func run(ctx context.Context, bin string, pairs int, only string) error {
	match, err := regexp.Compile(only)
	if err != nil {
		return err
	}
	if _, err := os.Stat(bin); err != nil {
		return fmt.Errorf("%w; run make build first", err)
	}
	h := host.Root("").Inventory()
	fmt.Printf("%s, %s, %d CPUs %s, kernel %s\n", time.Now().UTC().Format(time.DateOnly), h.OS, runtime.NumCPU(), h.CPUModel, h.Kernel)
	fmt.Printf("%s, %d pairs in turn; ratio: xferbench over peer, median of pairs with its 95%% interval\n\n", version(ctx, bin), pairs)
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "work\tpeer\txferbench\tpeer's\tunit\tratio\tinterval\tgoal\t")
	var failed []error
	for _, c := range contests(bin) {
		if !match.MatchString(c.name + " " + c.peer) {
			continue
		}
		if err := c.run(ctx, w, pairs); err != nil {
			failed = append(failed, fmt.Errorf("%s against %s: %w", c.name, c.peer, err))
		}
		if ctx.Err() != nil {
			break
		}
		if err := w.Flush(); err != nil {
			return err
		}
	}
	return errors.Join(append(failed, w.Flush(), ctx.Err())...)
}

func version(ctx context.Context, bin string) string {
	out, err := exec.CommandContext(ctx, bin, "version").Output()
	if err != nil {
		return "xferbench of unknown version"
	}
	return strings.TrimSpace(string(out))
}

// run measures the two in turn, each pair in the other order than the last, and
// prints the row.
func (c contest) run(ctx context.Context, w *tabwriter.Writer, pairs int) error {
	var ours, theirs []float64
	for i := range pairs {
		order := []func(context.Context) (float64, error){c.ours, c.theirs}
		into := []*[]float64{&ours, &theirs}
		if i%2 == 1 {
			order[0], order[1], into[0], into[1] = order[1], order[0], into[1], into[0]
		}
		for j, f := range order {
			x, err := f(ctx)
			if err != nil {
				return err
			}
			*into[j] = append(*into[j], x)
		}
	}
	v, err := stats.ComparePaired(theirs, ours, stats.Options{}) // ratio: ours over theirs
	if err != nil {
		return err
	}
	interval := "-"
	if v.Interval != nil {
		interval = fmt.Sprintf("[%.3f, %.3f]", v.Interval.Lo, v.Interval.Hi)
	}
	goal := "-"
	switch {
	case c.goal > 0 && c.higher:
		goal = fmt.Sprintf(">= %.2f", c.goal)
	case c.goal > 0:
		goal = fmt.Sprintf("<= %.2f", c.goal)
	}
	a, err := stats.Median(ours)
	if err != nil {
		return err
	}
	b, err := stats.Median(theirs)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%.3f\t%s\t%s\t\n", c.name, c.peer, units.FormatSignificant(a), units.FormatSignificant(b), c.unit, v.Ratio, interval, goal)
	return err
}
