package cli

import (
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/xferbench/xferbench/internal/analysis"
	"github.com/xferbench/xferbench/internal/record"
	"github.com/xferbench/xferbench/internal/remote"
	"github.com/xferbench/xferbench/internal/report"
	"github.com/xferbench/xferbench/internal/spec"
	"github.com/xferbench/xferbench/internal/ttft"
	"github.com/xferbench/xferbench/internal/ttft/session"
	"github.com/xferbench/xferbench/internal/units"
)

// ttftCommand is `xferbench ttft`.
type ttftCommand struct {
	*specFlags
	recordFlags
}

func newTTFTCommand() *cobra.Command {
	f := &ttftCommand{}
	cmd := &cobra.Command{
		Use:   "ttft",
		Short: "Measure time to first token end to end, with proof that the KV moved",
		Long: `ttft sends requests to vLLM engines and measures the time to the first token. On
prefill/decode engines it proves for every request, from both engines' /metrics
and the answers, that the KV cache moved and nothing was computed twice; a
request without that proof is invalid, with its reason, and is never averaged.

One deployment is named with --url, or with --prefill and --decode; several with
--arm, one each, and they run in randomised blocks. --launch starts engines from
a file; --sim measures simulated ones, as a demo. A run that was cut off goes on
with --record FILE --resume.`,
		Example: `  xferbench ttft --sim
  xferbench ttft --prefill http://node1:8100 --decode http://node2:8200 --prompt-tokens 1000,8000
  xferbench ttft --arm efa=prefill=http://a:8100,decode=http://b:8200 \
                 --arm tcp=prefill=http://a:8101,decode=http://b:8201
  xferbench ttft --url http://node1:8000 --concurrency 1,2,4,8,16
  xferbench ttft --launch engines.yaml --prompt-tokens 8000`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return f.run(cmd) },
	}
	f.specFlags = newSpecFlags(cmd.Flags(), spec.TTFT, bindTTFT)
	f.recordFlags.bind(cmd.Flags())
	return cmd
}

// bindTTFT binds the flags of requests to a spec, whose values are their defaults.
func bindTTFT(fs *pflag.FlagSet, s *spec.Spec) {
	t, d := s.TTFT, &s.Design
	words := func(p *spec.List[string], name, usage string) { fs.StringSliceVar((*[]string)(p), name, *p, usage) }
	fs.StringVar(&t.URL, "url", t.URL, "base `URL` of a unified engine, or of a P/D proxy (with --prefill and --decode for their metrics)")
	words(&t.Prefill, "prefill", "base `URL` of a prefill engine; may be repeated")
	words(&t.Decode, "decode", "base `URL` of a decode engine; may be repeated")
	fs.StringVar(&t.Mode, "mode", t.Mode, "unified or disaggregated (default: as the URLs say)")
	fs.StringVar(&t.Path, "path", t.Path, "way of disaggregated requests: two-leg (default), proxy, direct (no transfer)")
	fs.StringArrayVar((*[]string)(&t.Arm), "arm", t.Arm, "`NAME=URL,…`: a deployment to compare; keys prefill=, decode=, proxy=, unified=, direct=, model=; may be repeated")
	fs.StringVar(&t.Launch, "launch", t.Launch, "start engines from this `file` (docs/ttft.md); with --arm, measure those arms on them")
	fs.StringVar(&s.Hosts.SSHCommand, "ssh-command", s.Hosts.SSHCommand, "how to start ssh for --launch, read by the shell (default: the file's ssh_command, then ssh)")
	fs.BoolVar(&t.Sim, "sim", t.Sim, "measure simulated engines, started here")
	fs.Var(units.TokenListOf((*[]int64)(&t.PromptTokens)), "prompt-tokens", "prompt lengths in tokens")
	fs.IntVar(&t.MaxTokens, "max-tokens", t.MaxTokens, "output tokens of each request")
	fs.IntSliceVar((*[]int)(&t.Concurrency), "concurrency", t.Concurrency, "closed loop: requests kept in flight (default 1); only 1 proves each request by itself")
	fs.Float64SliceVar((*[]float64)(&t.Rate), "rate", t.Rate, "open loop instead: Poisson arrivals per second; latency counts from the intended start")
	fs.StringVar(&t.Measurement, "measurement", t.Measurement, "online, or offline: each block's requests at once, for throughput and makespan")
	fs.IntVar(&d.Iterations, "iterations", d.Iterations, "requests of each condition, over all blocks")
	fs.Var(optional[int]{&d.Blocks, "10"}, "blocks", "randomised blocks, each with every condition once")
	fs.Var(optional[int]{&d.MinBlocks, "6"}, "min-blocks", "blocks to run even when the budget is over")
	fs.DurationVar(&d.Budget, "budget", d.Budget, "go on with blocks for this long instead (default: --blocks)")
	fs.Var((*units.Percent)(&d.UntilCI), "until-ci", "stop once every median's 95% interval is within this: 2% (a declared sequential rule)")
	fs.IntVar(&d.Launches, "launches", d.Launches, "repeat with fresh processes and engines started here; the launch is then the unit")
	fs.BoolVar(&d.RoundRobin, "round-robin", d.RoundRobin, "keep the conditions in order instead of randomising")
	fs.IntVar(&d.Warmup, "warmup", d.Warmup, "requests of each condition before the blocks, after one for each pair of engines")
	fs.StringVar(&t.Prompt, "prompt", t.Prompt, "tokens (ids, exact length, unique first KV block) or text (random suffix)")
	fs.IntVar(&t.VocabSize, "vocab-size", t.VocabSize, "token ids are drawn below this")
	fs.StringVar(&t.Model, "model", t.Model, "served model `name` (default: the engine's first)")
	fs.StringVar(&t.KVModel, "kv-model", t.KVModel, "`model` whose KV cache moves: preset or config.json (default: by the served name)")
	fs.StringVar(&t.DType, "dtype", t.DType, "type of a cached value, where the engines do not say: bf16, fp8, …")
	fs.IntSliceVar((*[]int)(&t.KVTP), "kv-tp", t.KVTP, "tensor-parallel `size` of the engines, or PREFILL,DECODE, where they do not say")
	fs.IntVar(&t.KVDraftLayers, "kv-draft-layers", t.KVDraftLayers, "layers of a draft head (MTP, EAGLE), whose KV cache moves too")
	fs.Var((*units.Percent)(&t.MaxInvalid), "max-invalid", "share of invalid requests above which the exit code is 5")
	fs.DurationVar(&t.Timeout, "timeout", t.Timeout, "give a request up after this long")
	fs.DurationVar(&t.Settle, "settle", t.Settle, "wait this long for the engines' counts after a request")
	fs.Var(optional[uint64]{&s.Seed, ""}, "seed", "of prompts, block order and arrivals (default: random, printed)")
	bindSim(fs, &t.Engine, "sim-")
}

func (f *ttftCommand) run(cmd *cobra.Command) error {
	s, err := f.spec(cmd)
	if err != nil {
		return err
	}
	j := &session.Job{}
	if j.Resumed, err = f.resumed(s); err != nil {
		return err
	}
	if err := session.Check(s); err != nil {
		return err
	}
	if printed, err := f.printed(cmd, s); printed {
		return err
	}
	if s.TTFT.Sim && loads(s.TTFT.Engine) {
		var o remote.Options
		if o.Stdin, err = f.stdin(s); err != nil {
			return err
		}
		if ended, err := keep(cmd, o, f.lines()); ended {
			return err
		}
	}
	if j.File, err = f.writer(cmd, j.Resumed); err != nil {
		return err
	}
	ctx, stop, err := f.output(cmd, j.File)
	if err != nil {
		return err
	}
	defer stop()
	bar := newProgress(cmd.ErrOrStderr())
	j.Spec, j.Argv, j.Progress = s, argv(cmd), bar.ttft
	j.Log = func(e record.Event) {
		bar.clear()
		message := e.Message
		if e.Level != record.Info {
			message = e.Level + ": " + message
		}
		fmt.Fprintln(cmd.ErrOrStderr(), units.PrintableText(message))
	}
	if f.lines() {
		j.Stream = cmd.OutOrStdout()
	}
	rec, err := session.Run(ctx, j)
	bar.clear()
	if !f.lines() && rec != nil && len(rec.Conditions) > 0 {
		a, aerr := analysis.OfRequests(rec)
		if aerr == nil {
			aerr = report.TTFTText(cmd.OutOrStdout(), a, report.Options{Color: color(cmd.OutOrStdout())})
		}
		err = errors.Join(err, aerr)
	}
	if j.File != nil {
		err = errors.Join(err, j.File.Close())
	}
	return err
}

func (p *progress) ttft(x ttft.Progress) {
	if p.w == nil {
		return
	}
	line := fmt.Sprintf("[%d", x.Done)
	if x.Of > 0 {
		line += fmt.Sprintf("/%d", x.Of)
	}
	line += fmt.Sprintf("] %s  %s", x.Condition, units.FormatDuration(x.LastTTFT))
	if x.Invalid > 0 {
		line += fmt.Sprintf("  %d invalid", x.Invalid)
	}
	if x.Limit > 0 {
		line += fmt.Sprintf("  %s of %s", x.Elapsed.Round(time.Second), x.Limit)
	}
	fmt.Fprintf(p.w, "\r\x1b[K%.79s", line)
}
