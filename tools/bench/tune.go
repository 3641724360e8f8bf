package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/xferbench/xferbench/internal/record"
)

// tuned is a row that lets xferbench tune itself first and then holds the
// setting that it found against iperf3 with as many streams.
type tuned struct {
	work, bin string
	goal      bound
	args      []string // without streams, depth and chunk
	transfers int
}

func (t tuned) names() (string, string) { return t.work, "iperf3 -P N" }

func (t tuned) run(ctx context.Context, pairs int) (result, error) {
	// The search's own measurement is one transfer: the pairs measure.
	r, err := measure(ctx, t.bin, append(slices.Clone(t.args), "--tune", "--budget", "8s", "--iterations", "1")...)
	if err != nil {
		return result{}, err
	}
	best, err := bestOf(r)
	if err != nil {
		return result{}, err
	}
	args := append(slices.Clone(t.args), strings.Fields(best.Flags)...)
	c := contest{work: t.work, peer: fmt.Sprintf("iperf3 -P %d", best.Streams), unit: "GB/s", goal: t.goal,
		ours:   rate(t.bin, append(args, "--iterations", strconv.Itoa(t.transfers))...),
		theirs: iperf3(best.Streams), note: "tuned to " + best.Flags}
	return c.run(ctx, pairs)
}

// bestOf is the line of a search's result.
func bestOf(r *record.Record) (record.Tune, error) {
	for _, l := range r.Tunes {
		if l.Flags != "" {
			return l, nil
		}
	}
	return record.Tune{}, fmt.Errorf("the record of a run with --tune names no best setting (%d steps)", len(r.Tunes))
}

func tuneRows(bin string) (out []row) {
	for _, op := range []string{"read", "write"} {
		size := []string{"-p", "tcp", "--op", op, "--shape", "contiguous", "--size", "256MiB"}
		out = append(out,
			tuned{work: "tcp --tune " + op + ", memory reused", bin: bin, goal: atLeast(0.9), args: append(slices.Clone(size), "--reuse"), transfers: 8},
			tuned{work: "tcp --tune " + op + ", 256 MiB of memory", bin: bin, args: size, transfers: 8})
	}
	return out
}
