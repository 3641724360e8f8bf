package main

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"strings"
	"time"

	"github.com/xferbench/xferbench/internal/record"
	"github.com/xferbench/xferbench/internal/stats"
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
	for _, s := range r.Samples {
		if s.Phase == record.PhaseMeasure {
			ss = append(ss, s)
		}
	}
	return ss
}

// rate is bytes over time of all transfers, in GB/s.
func rate(bin string, args ...string) func(context.Context) (float64, error) {
	return func(ctx context.Context) (float64, error) {
		r, err := measure(ctx, bin, args...)
		if err != nil {
			return 0, err
		}
		var sum uint64
		var ns int64
		for _, s := range measured(r) {
			sum, ns = sum+s.Bytes, ns+s.TotalNs
		}
		if ns == 0 {
			return 0, fmt.Errorf("xferbench %s measured nothing", strings.Join(args, " "))
		}
		return float64(sum) / float64(ns), nil
	}
}

// latency is the mean time of a transfer in µs, as the peers' own figures are
// means over back-to-back iterations.
func latency(bin string, args ...string) func(context.Context) (float64, error) {
	return func(ctx context.Context) (float64, error) {
		r, err := measure(ctx, bin, args...)
		if err != nil {
			return 0, err
		}
		ss := measured(r)
		if len(ss) == 0 {
			return 0, fmt.Errorf("xferbench %s measured nothing", strings.Join(args, " "))
		}
		// From the first begin to the last end: nothing between two transfers
		// is left out, as in the peers' loops.
		last := ss[len(ss)-1]
		return float64(last.BeginNs+last.TotalNs-ss[0].BeginNs) / float64(len(ss)) / 1e3, nil
	}
}

// medianLatency is the median time of a transfer in µs.
func medianLatency(bin string, args ...string) func(context.Context) (float64, error) {
	return func(ctx context.Context) (float64, error) {
		r, err := measure(ctx, bin, args...)
		if err != nil {
			return 0, err
		}
		var xs []float64
		for _, s := range measured(r) {
			xs = append(xs, float64(s.TotalNs)/1e3)
		}
		return stats.Median(xs)
	}
}
