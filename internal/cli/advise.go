package cli

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/xferbench/xferbench/internal/analysis"
	"github.com/xferbench/xferbench/internal/fault"
	"github.com/xferbench/xferbench/internal/kv"
	"github.com/xferbench/xferbench/internal/report"
	"github.com/xferbench/xferbench/internal/trace"
	"github.com/xferbench/xferbench/internal/units"
)

// newAdviseCommand returns "xferbench advise".
func newAdviseCommand() *cobra.Command {
	f := adviseFlags{model: kv.DefaultModel, dtype: "auto", blockTokens: kv.DefaultBlockTokens, tp: 1, tokens: units.NewTokenList(), worth: worth{Fraction: analysis.Relevant}}
	o := report.AdviseOptions{Format: "text"}
	cmd := &cobra.Command{
		Use:   "advise RECORD…",
		Short: "Say what records mean for a deployment: times, share of TTFT, which transport, cost",
		Long: `Hold records against a deployment: a model, the lengths of its prompts, requests in
flight and a price. For each transport of the raw records that is the transfer
time at the median and at the 95th percentile of the prompt lengths, its share of
the time to first token, whether the difference to the next transport matters, and
what waiting for the wire costs. A record of xferbench ttft among them gives the
time to first token.

Nothing is told beyond a factor of two of the sizes that were measured. Rows of
emulated devices advise nothing.

Exit code 6: no record has a size near the deployment's.`,
		Example: `  xferbench advise last --tokens 1000,8000
  xferbench advise sweep.jsonl --kv-model Llama-3.1-70B --trace azure.csv --ttft 400ms,2s
  xferbench advise sweep.jsonl ttft.jsonl --tokens 7648 --price-per-hour 98 --worth 20ms`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usagef(`advise needs a record: name a file, or "last" for the newest`)
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if !slices.Contains(report.AdviseFormats(), o.Format) {
				return usagef("--format %q is not known; use %s", o.Format, strings.Join(report.AdviseFormats(), ", "))
			}
			if err := f.deployment(cmd, &o); err != nil {
				return err
			}
			if slices.Contains(args, "last") {
				warnState(cmd)
			}
			w := cmd.OutOrStdout()
			o.Color = color(w)
			err := report.Advise(w, args, o)
			for target, kind := range map[error]fault.Kind{report.ErrRefused: fault.Usage, report.ErrTooFew: fault.TooFew} {
				if errors.Is(err, target) {
					return &fault.Error{Kind: kind, Err: err}
				}
			}
			return err
		},
	}
	fs := cmd.Flags()
	fs.StringVar(&f.model, "kv-model", f.model, "`model` whose KV cache moves: preset or config.json (xferbench kv --help)")
	fs.StringVar(&f.dtype, "dtype", f.dtype, "`type` of cached values: auto (the model's), bf16, fp16, fp32, fp8, int8")
	fs.IntVar(&f.tp, "tensor-parallel", f.tp, "ranks that share the cache; one rank's part is a transfer")
	fs.IntVar(&f.blockTokens, "block-tokens", f.blockTokens, "tokens per KV block: whole blocks move")
	fs.Var(f.tokens, "tokens", "prompt lengths, each of one request")
	fs.StringVar(&f.trace, "trace", "", "`FILE` of requests with their prompt lengths: JSON, JSON Lines or CSV")
	fs.IntVar(&f.concurrency, "concurrency", 1, "requests in flight")
	fs.Float64Var(&f.price, "price-per-hour", 0, "`price` of an hour of the prefill and the decode node together, in any currency")
	fs.DurationSliceVar(&f.ttft, "ttft", nil, "time to first token, at every length or at p50,p95: 400ms,2s")
	fs.StringVar(&o.Arm, "arm", "", "`arm` of the TTFT record, where it has several")
	fs.Var(&f.worth, "worth", "the difference that matters: `5%` of the faster time, or a time such as 20ms")
	fs.StringVar(&o.Format, "format", o.Format, "`format` of the output: "+strings.Join(report.AdviseFormats(), ", "))
	fs.BoolVar(&o.Wide, "wide", false, "all columns, however long the lines")
	return cmd
}

// maxPrice is far above what any currency makes of a node's hour, and keeps sums
// finite.
const maxPrice = 1e12

// adviseFlags describe a deployment.
type adviseFlags struct {
	model, dtype, trace          string
	tp, blockTokens, concurrency int
	tokens                       *units.TokenList
	price                        float64
	ttft                         []time.Duration
	worth                        worth
}

// deployment fills in o from the flags.
func (f *adviseFlags) deployment(cmd *cobra.Command, o *report.AdviseOptions) error {
	switch {
	case f.concurrency < 1:
		return usagef("--concurrency is %d; it must be at least 1", f.concurrency)
	case f.blockTokens < 1 || f.blockTokens > kv.MaxBlockTokens:
		return usagef("--block-tokens %d: want 1 to %d", f.blockTokens, kv.MaxBlockTokens)
	case cmd.Flags().Changed("price-per-hour") && !(f.price > 0 && f.price <= maxPrice):
		return usagef("--price-per-hour is %v; it must be above zero, and at most %.0e", f.price, maxPrice)
	case len(f.tokens.Values()) > 0 == (f.trace != ""):
		return usagef("advise needs the prompt lengths: give either --tokens 1000,8000 or --trace FILE")
	}
	for _, d := range f.ttft {
		if d <= 0 {
			return usagef("--ttft %v: it must be above zero", d)
		}
		o.TTFTNs = append(o.TTFTNs, float64(d))
	}
	m, err := kv.Resolve(f.model, f.dtype)
	if err != nil {
		return usagef("--kv-model: %w", err)
	}
	requests := map[int64]int64{}
	for _, n := range f.tokens.Values() {
		requests[n]++
	}
	if o.Source = "--tokens"; f.trace != "" {
		o.Source = f.trace
		t, err := trace.Open(f.trace)
		if err != nil {
			return usagef("%w", err)
		}
		requests = t.Requests
	}
	o.Model, o.Ranks, o.Concurrency, o.PricePerHour, o.Worth = m.Name, f.tp, f.concurrency, f.price, analysis.Worth(f.worth)
	for tokens, n := range requests {
		c, err := m.Crossing(int(tokens), kv.Deployment{Hybrid: true, BlockTokens: f.blockTokens, PrefillTP: f.tp, DecodeTP: f.tp})
		if err != nil {
			return usagef("%w", err)
		}
		// One rank's part of the largest valid transfer: the ranks' are alike.
		o.Prompts = append(o.Prompts, analysis.Prompt{Tokens: tokens, Bytes: c.BytesHi / int64(c.Transfers), N: n})
	}
	slices.SortFunc(o.Prompts, func(a, b analysis.Prompt) int { return cmp.Compare(a.Tokens, b.Tokens) })
	return nil
}

// worth is the flag of [analysis.Worth]: "5%" or "20ms".
type worth analysis.Worth

// Set implements pflag.Value.
func (v *worth) Set(s string) error {
	if d, err := time.ParseDuration(s); err == nil && d > 0 {
		*v = worth{Ns: float64(d)}
		return nil
	}
	f, err := units.ParsePercent(s)
	if err != nil {
		return fmt.Errorf("%w, or a time such as 20ms", err)
	}
	if f == 0 {
		return errors.New("every difference is more than nothing: want a share such as 5% or a time such as 20ms")
	}
	*v = worth{Fraction: f}
	return nil
}

// String implements pflag.Value.
func (v *worth) String() string {
	if v.Ns > 0 {
		return time.Duration(v.Ns).String()
	}
	p := units.Percent(v.Fraction)
	return p.String()
}

// Type implements pflag.Value.
func (*worth) Type() string { return "worth" }
