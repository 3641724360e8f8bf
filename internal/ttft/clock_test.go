package ttft

import (
	"slices"
	"testing"
	"time"

	"github.com/xferbench/xferbench/internal/record"
	"github.com/xferbench/xferbench/internal/serving/sim"
)

// BenchmarkClientError measures how far the client's TTFT is from the engine's
// own: what HTTP, the kernel and this client add. With one request in flight the
// engine takes 20 ms for a first token; 256 are in flight, by Little's law, when
// each takes 2 s and 128 arrive a second. Run it with -benchtime=1x; the figure
// is median-error-ns.
func BenchmarkClientError(b *testing.B) {
	for name, run := range map[string]struct {
		first time.Duration
		set   func(*Config)
	}{
		"inflight=1": {20 * time.Millisecond, func(c *Config) { c.Iterations = 200 }},
		"inflight=256": {2 * time.Second, func(c *Config) {
			c.Iterations, c.Concurrency, c.Load, c.Rates = 768, nil, record.LoadOpen, []float64{128}
		}},
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				errs := clientErrors(b, run.first, run.set)
				b.ReportMetric(float64(errs[len(errs)/2]), "median-error-ns")
				b.ReportMetric(float64(errs[len(errs)*95/100]), "p95-error-ns")
			}
		})
	}
}

// clientErrors returns TTFT minus the engine's own first-token time of each
// request, sorted.
func clientErrors(b *testing.B, first time.Duration, change func(*Config)) []int64 {
	b.Helper()
	set := simulate(b, sim.Config{PrefillTime: first, Parallel: 1024, Blocks: 16384}, true)
	rec := &recorder{}
	cfg := quick(rec, 1, Arm{Name: "one", Mode: record.ModeUnified, Path: record.PathUnified, Front: set.Unified.URL})
	cfg.MaxTokens = 2
	change(&cfg)
	res := mustRun(b, rec, cfg)
	if res.Invalid > 0 {
		b.Fatalf("invalid: %v", res.Reasons)
	}
	var errs []int64
	for _, l := range rec.measured() {
		// From the moment the request was sent: what a late start of an open loop
		// adds to a TTFT is not the client's error but its honesty.
		errs = append(errs, l.TTFTNs-(l.BeginAtNs-l.IntendedAtNs)-l.TruthNs)
	}
	slices.Sort(errs)
	return errs
}
