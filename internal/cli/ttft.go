package cli

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/xferbench/xferbench/internal/record"
	"github.com/xferbench/xferbench/internal/remote"
	"github.com/xferbench/xferbench/internal/ttft"
	"github.com/xferbench/xferbench/internal/ttft/session"
	"github.com/xferbench/xferbench/internal/units"
)

// ttftFlags are the flags of `xferbench ttft`.
type ttftFlags struct {
	o           session.Options
	tokens      *units.TokenList
	rates       []float64
	measurement string
	prompt      string
	maxInvalid  units.Percent
	recordFile  string
	noRecord    bool
	json        string
	sim         simFlags
}

func newTTFTCommand() *cobra.Command {
	f := &ttftFlags{tokens: units.NewTokenList(1000), maxInvalid: ttft.MaxInvalid}
	cmd := &cobra.Command{
		Use:   "ttft",
		Short: "Measure time to first token end to end, with proof that the KV moved",
		Long: `ttft sends requests to vLLM engines and measures the time to the first token. On
prefill/decode engines it proves for every request, from both engines' /metrics
and the answers, that the KV cache moved and nothing was computed twice; a
request without that proof is invalid, with its reason, and is never averaged.

One deployment is named with --url, or with --prefill and --decode; several with
--arm, one each, and they run in randomised blocks. --launch starts engines from
a file; --sim measures simulated ones, as a demo.`,
		Example: `  xferbench ttft --sim
  xferbench ttft --prefill http://node1:8100 --decode http://node2:8200 --prompt-tokens 1000,8000
  xferbench ttft --arm efa=prefill=http://a:8100,decode=http://b:8200 \
                 --arm tcp=prefill=http://a:8101,decode=http://b:8201
  xferbench ttft --url http://node1:8000 --concurrency 1,2,4,8,16
  xferbench ttft --launch engines.yaml --prompt-tokens 8000`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return f.run(cmd) },
	}
	f.bind(cmd.Flags())
	return cmd
}

func (f *ttftFlags) bind(fs *pflag.FlagSet) {
	o, c := &f.o, &f.o.Run
	fs.SortFlags = false
	fs.StringVar(&o.URL, "url", "", "base `URL` of a unified engine, or of a P/D proxy (with --prefill and --decode for their metrics)")
	fs.StringSliceVar(&o.Prefill, "prefill", nil, "base `URL` of a prefill engine; may be repeated")
	fs.StringSliceVar(&o.Decode, "decode", nil, "base `URL` of a decode engine; may be repeated")
	fs.StringVar(&o.Mode, "mode", "", "unified or disaggregated (default: as the URLs say)")
	fs.StringVar(&o.Path, "path", "", "way of disaggregated requests: two-leg (default), proxy, direct (no transfer)")
	fs.StringArrayVar(&o.Arms, "arm", nil, "`NAME=URL,…`: a deployment to compare; keys prefill=, decode=, proxy=, unified=, direct=, model=; may be repeated")
	fs.StringVar(&o.Launch, "launch", "", "start engines from this `file` (docs/ttft.md); with --arm, measure those arms on them")
	fs.StringVar(&o.SSHCommand, "ssh-command", "", "how to start ssh for --launch, read by the shell (default: the file's ssh_command, then ssh)")
	fs.BoolVar(&o.Sim, "sim", false, "measure simulated engines, started here")
	fs.Var(f.tokens, "prompt-tokens", "prompt lengths in tokens")
	fs.IntVar(&c.MaxTokens, "max-tokens", 16, "output tokens of each request")
	fs.IntSliceVar(&c.Concurrency, "concurrency", []int{1}, "closed loop: requests kept in flight; only 1 proves each request by itself")
	fs.Float64SliceVar(&f.rates, "rate", nil, "open loop instead: Poisson arrivals a second; latency counts from the intended start")
	fs.StringVar(&f.measurement, "measurement", "online", "online, or offline: each block's requests at once, for throughput and makespan")
	fs.IntVar(&c.Iterations, "iterations", 40, "requests of each condition, over all blocks")
	fs.IntVar(&c.Blocks, "blocks", 10, "randomised blocks, each with every condition once")
	fs.DurationVar(&c.Budget, "budget", 0, "go on with blocks for this long instead (default: --blocks)")
	fs.IntVar(&c.Warmup, "warmup", 2, "requests of each condition before the blocks, after one for each pair of engines")
	fs.StringVar(&f.prompt, "prompt", string(ttft.TokenPrompts), "tokens (ids, exact length, unique first block) or text (random suffix)")
	fs.IntVar(&c.VocabSize, "vocab-size", 32_000, "token ids are drawn below this")
	fs.StringVar(&o.Model, "model", "", "served model `name` (default: the engine's first)")
	fs.StringVar(&o.KVModel, "kv-model", "", "`model` whose KV cache moves: preset or config.json (default: by the served name)")
	fs.StringVar(&o.DType, "dtype", "auto", "type of a cached value: bf16, fp8, …")
	fs.Var(&f.maxInvalid, "max-invalid", "share of invalid requests above which the exit code is 5")
	fs.DurationVar(&c.Timeout, "timeout", 2*time.Minute, "give a request up after this long")
	fs.DurationVar(&c.Settle, "settle", 2*time.Second, "wait this long for the engines' counts after a request")
	fs.Uint64Var(&c.Seed, "seed", 0, "of prompts, block order and arrivals (default: random, printed)")
	units.GuardLists(fs)
	f.sim.bind(fs, "sim-")
	fs.StringVar(&f.recordFile, "record", "", "file for the record (default: a new one in $XDG_STATE_HOME/xferbench)")
	fs.BoolVar(&f.noRecord, "no-record", false, "write no record file")
	fs.StringVar(&f.json, "json", "", `"-": the record's lines on stdout instead of the table`)
}

// complete turns the flags into options.
func (f *ttftFlags) complete(cmd *cobra.Command) error {
	c := &f.o.Run
	for _, n := range f.tokens.Values() {
		c.PromptTokens = append(c.PromptTokens, int(n))
	}
	c.Load, c.Rates = ttft.LoadClosed, f.rates
	if len(f.rates) > 0 {
		if cmd.Flags().Changed("concurrency") {
			return usagef("--rate and --concurrency exclude each other: a rate does not wait for answers")
		}
		c.Load, c.Concurrency = ttft.LoadOpen, nil
	}
	switch f.measurement {
	case "online":
	case "offline":
		if c.Load == ttft.LoadOpen || cmd.Flags().Changed("concurrency") {
			return usagef("--measurement offline sends all requests at once; leave --rate and --concurrency out")
		}
		c.Load, c.Concurrency = ttft.LoadOffline, nil
	default:
		return usagef("--measurement %q: want online or offline", f.measurement)
	}
	var err error
	if c.Prompts, err = ttft.ParsePromptKind(f.prompt); err != nil {
		return usagef("--prompt: %w", err)
	}
	if f.o.SimConfig, err = f.sim.config(); err != nil {
		return usagef("%w", err)
	}
	if !cmd.Flags().Changed("seed") {
		var b [8]byte
		if _, err := rand.Read(b[:]); err != nil {
			return err
		}
		c.Seed = binary.LittleEndian.Uint64(b[:]) >> 32 // short enough to retype
	}
	if c.Blocks > c.Iterations && !cmd.Flags().Changed("blocks") {
		c.Blocks = c.Iterations
	}
	if f.noRecord && f.recordFile != "" {
		return usagef("--record and --no-record exclude each other")
	}
	if f.json != "" && f.json != "-" {
		return usagef(`--json %q: want "-"; a file is --record`, f.json)
	}
	f.o.MaxInvalid, f.o.Argv = float64(f.maxInvalid), argv(cmd)
	return nil
}

func (f *ttftFlags) run(cmd *cobra.Command) error {
	if err := f.complete(cmd); err != nil {
		return err
	}
	if f.o.Sim && f.sim.loads() {
		if ended, err := keep(cmd, remote.Options{}, f.json == "-"); ended {
			return err
		}
	}
	w, err := (&rawFlags{noRecord: f.noRecord, recordFile: f.recordFile}).writer(cmd)
	if err != nil {
		return err
	}
	if w != nil {
		if err := kept(cmd).Record(w.Path()); err != nil {
			return errors.Join(err, w.Close())
		}
	}
	bar := newProgress(cmd.ErrOrStderr())
	out := session.Output{Record: w, Progress: bar.ttft, Log: func(level, message string) {
		bar.clear()
		if level != record.Info {
			message = level + ": " + message
		}
		fmt.Fprintln(cmd.ErrOrStderr(), units.PrintableText(message))
	}}
	if f.json == "-" {
		out.JSON = cmd.OutOrStdout()
	}
	ctx := cmd.Context()
	if w == nil && f.json == "-" {
		var stop func()
		ctx, stop = untilUnread(cmd)
		defer stop()
	}
	res, err := session.Run(ctx, f.o, out)
	bar.clear()
	if res != nil && f.json == "" {
		_, perr := fmt.Fprintf(cmd.OutOrStdout(), "# xferbench ttft, seed %d%s\n", f.o.Run.Seed, recordNote(w))
		if perr == nil {
			perr = res.Text(cmd.OutOrStdout())
		}
		err = errors.Join(err, perr)
	}
	if w != nil {
		err = errors.Join(err, w.Close())
	}
	if err == nil {
		return nil
	}
	code := session.ExitCode(err)
	if ctx.Err() != nil {
		code = 130
	}
	return &exitError{code: code, err: err}
}

func recordNote(w *record.Writer) string {
	if w == nil {
		return ", no record"
	}
	return ", record " + w.Path()
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
