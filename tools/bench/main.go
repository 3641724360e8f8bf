// Command bench holds xferbench against the tools that measure the same thing:
// iperf3, ucx_perftest and fi_pingpong, on the same work, over loopback, run in
// turn so that a machine whose speed drifts slows both. It prints ratios with
// their spread, and figures of xferbench alone that have a bound; it exits with
// an error only when something could not be measured.
//
//	make bench
//	make bench BENCH_ARGS='-pairs 11 -only socket'
//	make bench BENCH_ARGS=-markdown
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"regexp"
	"runtime"
	"strings"
	"time"

	"github.com/xferbench/xferbench/internal/host"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	pairs := flag.Int("pairs", 7, "runs of each tool, in turn; an interval takes 6")
	only := flag.String("only", "", "regular expression of the rows to run, over work and peer")
	bin := flag.String("bin", "bin/xferbench", "binary to measure")
	markdown := flag.Bool("markdown", false, "print the table as Markdown")
	list := flag.Bool("list", false, "print the rows' names and run nothing")
	flag.Parse()
	if err := run(ctx, os.Stdout, *bin, *pairs, *only, *markdown, *list); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// row is one line of the table.
type row interface {
	// names are the work and the peer.
	names() (work, peer string)
	run(ctx context.Context, pairs int) (result, error)
}

func run(ctx context.Context, w io.Writer, bin string, pairs int, only string, markdown, list bool) error {
	match, err := regexp.Compile(only)
	if err != nil {
		return fmt.Errorf("-only: %w", err)
	}
	if pairs < 1 {
		return fmt.Errorf("-pairs %d: want at least 1", pairs)
	}
	if _, err := os.Stat(bin); err != nil && !list {
		return fmt.Errorf("%w; run make build first", err)
	}
	var chosen []row
	for _, r := range rows(bin) {
		work, peer := r.names()
		if !match.MatchString(work + " " + peer) {
			continue
		}
		if chosen = append(chosen, r); list {
			if _, err := fmt.Fprintf(w, "%s; %s\n", work, peer); err != nil {
				return err
			}
		}
	}
	if list {
		return nil
	}
	if len(chosen) == 0 {
		return fmt.Errorf("-only %q matches no row; -list prints them", only)
	}
	t := &table{w: w, markdown: markdown}
	if err := t.heading(machine(), version(ctx, bin), pairs); err != nil {
		return err
	}
	var failed []error
	for _, r := range chosen {
		res, err := r.run(ctx, pairs)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			work, peer := r.names()
			failed = append(failed, fmt.Errorf("%s, %s: %w", work, peer, err))
			continue
		}
		if err := t.add(res); err != nil {
			return err
		}
	}
	return errors.Join(append(failed, t.end())...)
}

// machine says when and where this is.
func machine() string {
	h := host.Root("").Inventory()
	return fmt.Sprintf("%s, %s, %d CPUs %s, Linux %s, load %s", time.Now().UTC().Format(time.DateOnly), h.OS, runtime.NumCPU(), h.CPUModel, h.Kernel, load())
}

// load is the mean number of runnable threads of the last minute, before the
// bench adds to it: what else the machine was doing.
func load() string {
	b, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	one, _, _ := strings.Cut(string(b), " ")
	return one
}

func version(ctx context.Context, bin string) string {
	out, err := exec.CommandContext(ctx, bin, "version").Output()
	if err != nil {
		return "xferbench of unknown version"
	}
	return strings.TrimSpace(string(out))
}
