package main

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"strings"
	"time"

	"github.com/xferbench/xferbench/internal/record"
)

// deadline bounds one run of any tool.
const deadline = 3 * time.Minute

// measure runs xferbench once, without payload and checks (the peers have
// none), and returns its record.
func measure(ctx context.Context, bin string, args ...string) (*record.Record, error) {
	ctx, cancel := context.WithTimeout(ctx, deadline)
	defer cancel()
	args = append([]string{"--no-verify", "--no-ceiling", "--no-record", "--json", "-", "--blocks", "1", "--budget", "0"}, args...)
	cmd := exec.CommandContext(ctx, bin, args...)
	var words bytes.Buffer
	cmd.Stderr = &words
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w: %s", bin, strings.Join(args, " "), err, words.String())
	}
	return record.Read(bytes.NewReader(out))
}

func measured(r *record.Record) (ss []record.Sample) {
	for s := range r.Samples.All() {
		if s.Phase == record.PhaseMeasure {
			ss = append(ss, s)
		}
	}
	return ss
}

// span is from the first begin to the last end: nothing between two transfers
// is left out, as in the peers' loops.
func span(bin string, args []string) func(context.Context) (ss []record.Sample, ns int64, err error) {
	return func(ctx context.Context) ([]record.Sample, int64, error) {
		r, err := measure(ctx, bin, args...)
		if err != nil {
			return nil, 0, err
		}
		ss := measured(r)
		if len(ss) == 0 {
			return nil, 0, fmt.Errorf("xferbench %s measured nothing", strings.Join(args, " "))
		}
		last := ss[len(ss)-1]
		return ss, last.BeginNs + last.TotalNs - ss[0].BeginNs, nil
	}
}

// rate is all bytes over the whole time, in GB/s.
func rate(bin string, args ...string) figure {
	f := span(bin, args)
	return func(ctx context.Context) (float64, error) {
		ss, ns, err := f(ctx)
		if err != nil {
			return 0, err
		}
		var sum uint64
		for _, s := range ss {
			sum += s.Bytes
		}
		return float64(sum) / float64(ns), nil
	}
}

// latency is the mean time of a transfer in µs, as the peers' own figures are
// means over back-to-back iterations.
func latency(bin string, args ...string) figure {
	f := span(bin, args)
	return func(ctx context.Context) (float64, error) {
		ss, ns, err := f(ctx)
		if err != nil {
			return 0, err
		}
		return float64(ns) / float64(len(ss)) / 1e3, nil
	}
}
