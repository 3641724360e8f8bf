package cli

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/xferbench/xferbench/internal/analysis"
	"github.com/xferbench/xferbench/internal/raw"
	"github.com/xferbench/xferbench/internal/record"
	"github.com/xferbench/xferbench/internal/remote"
	"github.com/xferbench/xferbench/internal/report"
	"github.com/xferbench/xferbench/internal/spec"
	"github.com/xferbench/xferbench/internal/units"
)

func newRootCommand() *cobra.Command {
	var f *rawCommand
	cmd := &cobra.Command{
		Use:   "xferbench [flags] [PEER]",
		Short: "Measure how long a KV cache takes on the wire",
		Long: `xferbench moves buffers shaped like a KV cache between two processes, on one
host or two, over libfabric, UCX, kernel TCP and memcpy, and says how long they
take, whether they arrived, and how close that is to what the hardware can do.

PEER is what "xferbench serve" printed on the other host (host:port#token),
or ssh://[user@]host to start one there, or nothing for a second process here.`,
		Example: `  xferbench --provider tcp --size 438MB
  xferbench --provider efa,ucx:tcp --tokens 8000 node2:18517#TOKEN
  xferbench --provider verbs --op read,write ssh://node2`,
		Args:                       usageArgs(peerArg),
		SilenceErrors:              true,
		SilenceUsage:               true,
		SuggestionsMinimumDistance: 2,
		RunE:                       func(cmd *cobra.Command, args []string) error { return f.run(cmd, args) },
	}
	f = newRawCommand(cmd, spec.Raw, func(fs *pflag.FlagSet, s *spec.Spec) {
		bindRaw(fs, s)
		fs.BoolVar(&s.Raw.Tune, "tune", s.Raw.Tune, "first search --streams, --depth and --chunk for each provider, within --budget, and use the best")
	})
	cmd.SetUsageTemplate(strings.ReplaceAll(cmd.UsageTemplate(), "Flags.FlagUsages ", "Flags.FlagUsagesWrapped 80 "))
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usagef("%w", err) })
	cmd.AddCommand(newServeCommand(), newProvidersCommand(), newSweepCommand(), newTTFTCommand(), newProxyCommand(), newSimCommand(),
		newCompareCommand(), newAdviseCommand(), newReportCommand(), newKVCommand(), newVersionCommand(), newLaunchCommand(), newWorkerCommand())
	return cmd
}

// peerArg takes one PEER, and knows a mistyped subcommand from one.
func peerArg(cmd *cobra.Command, args []string) error {
	if len(args) > 1 {
		return fmt.Errorf("one PEER, not %d: %s", len(args), strings.Join(args, " "))
	}
	if len(args) == 1 && !strings.ContainsAny(args[0], "#:/.") {
		if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
			return fmt.Errorf("%q is not a PEER (host:port#token or ssh://host); did you mean the command %s?", args[0], strings.Join(near, " or "))
		}
	}
	return nil
}

// bindRaw binds the flags of transfers to a spec, whose values are their defaults.
func bindRaw(fs *pflag.FlagSet, s *spec.Spec) {
	r, d, h := s.Raw, &s.Design, &s.Hosts
	words := func(p *spec.List[string], name, usage string) {
		fs.StringSliceVar((*[]string)(p), name, *p, usage)
	}
	numbers := func(p *spec.List[int], name, usage string) { fs.IntSliceVar((*[]int)(p), name, *p, usage) }
	fs.StringSliceVarP((*[]string)(&r.Provider), "provider", "p", r.Provider, "transports, comma-separated; the same twice is an A/A test (xferbench providers lists them); ucx:A+B is UCX_TLS=A,B")
	words(&r.Op, "op", "read (as vLLM's NixlConnector does), write, send")
	fs.Var(units.SizeListOf((*[]int64)(&r.Size)), "size", "bytes, rounded up to whole KV blocks: 438MB, 64KiB,1GiB")
	fs.Var(units.TokenListOf((*[]int64)(&r.Tokens)), "tokens", "the same in tokens (default 8000)")
	words(&r.Shape, "shape", "merged (one descriptor per layer), fragmented (one per layer and KV block), contiguous (one)")
	fs.StringVar(&r.KVLayout, "kv-layout", r.KVLayout, "packed (K and V of a KV block in one descriptor, vLLM >= 0.26) or split (two)")
	numbers(&r.BlockTokens, "block-tokens", "tokens per KV block")
	fs.StringVar(&r.Model, "model", r.Model, "preset or config.json (xferbench kv --help)")
	fs.StringVar(&r.DType, "dtype", r.DType, "type of a cached value: bf16, fp8, …")
	fs.IntVar(&r.TensorParallel, "tensor-parallel", r.TensorParallel, "ranks that share the cache; one rank's part is moved")
	words(&r.Memory, "memory", "buffer: host, host-huge, cuda[:N], cuda-host[:N]")
	words(&r.PeerMemory, "peer-memory", "buffer of the peer (default: as --memory)")
	numbers(&r.Streams, "streams", "independent endpoints per NIC, each with its thread (default: the provider's best)")
	numbers(&r.Depth, "depth", "operations in flight per endpoint (default: the provider's best)")
	fs.Var(units.SizeListOf((*[]int64)(&r.Chunk)), "chunk", "split longer descriptors (default: the provider's best)")
	numbers(&r.Rails, "rails", "NICs to use (default: all that are nearest)")
	words(&r.Poll, "poll", "spin, yield, or auto: spin with 4 cores and more")
	fs.Var(optional[int]{&d.Blocks, "10"}, "blocks", "randomised blocks, each with every condition once")
	fs.Var(optional[int]{&d.MinBlocks, "6"}, "min-blocks", "blocks to run even when the budget is over")
	fs.DurationVar(&d.Budget, "budget", d.Budget, "time for the blocks; 0: no limit")
	fs.IntVar(&d.Iterations, "iterations", d.Iterations, "transfers of a condition in each block (default: about 20 ms of them)")
	fs.Var((*units.Percent)(&d.UntilCI), "until-ci", "stop once every median's 95% interval is within this: 2% (a declared sequential rule)")
	fs.IntVar(&d.Launches, "launches", d.Launches, "repeat with fresh processes and connections; the launch is then the unit")
	fs.BoolVar(&d.RoundRobin, "round-robin", d.RoundRobin, "keep the conditions in order instead of randomising")
	fs.Var(optional[uint64]{&s.Seed, ""}, "seed", "of block order, KV block ids and payload (default: random, printed)")
	fs.BoolVar(&r.NoVerify, "no-verify", r.NoVerify, "do not check the data")
	fs.BoolVar(&r.NoCeiling, "no-ceiling", r.NoCeiling, "do not measure memcpy and socket beside the providers")
	fs.DurationVar(&r.Timeout, "timeout", r.Timeout, "give up after this long without progress")
	fs.BoolVar(&h.NoNamespace, "no-namespace", h.NoNamespace, "leave a run within this host in the host's network, where others can reach it")
	words(&h.Bind, "bind", "local IP addresses for transports, one per rail (default: the one that reaches the peer); PROVIDER@IP+IP for one provider")
	words(&r.Libfabric, "libfabric", "libfabric.so.1 to load (default: the loader's, then /opt/amazon/efa)")
	words(&r.Libucp, "libucp", "libucp.so.0 to load")
	fs.Var(newSettings(&r.UCXConfig), "ucx-config", "KEY=VALUE, over the settings that NIXL uses; a KEY with two values is a factor")
	fs.Var(newSettings(&r.Set), "set", "KEY=VALUE for libfabric transports: write-landing=dc|count, efa-shm=on|off")
	fs.StringVar(&h.SecretFile, "secret-file", h.SecretFile, "secret that both sides share, instead of the token in PEER")
	fs.StringVar(&h.PeerProgram, "peer-program", h.PeerProgram, "xferbench on the ssh:// host")
	fs.StringVar(&h.SSHCommand, "ssh-command", h.SSHCommand, "how to start ssh, read by the shell: 'ssh -i KEY -J GATEWAY'")
	fs.BoolVar(&h.PushBinary, "push-binary", h.PushBinary, "copy this binary to the ssh:// host for the run")
	fs.BoolVar(&r.Reuse, "reuse", r.Reuse, "all operations of a lane over the same memory")
	if err := fs.MarkHidden("reuse"); err != nil { // for make bench alone
		panic(err) // the flag was defined above
	}
}

// rawCommand is a command that measures transfers.
type rawCommand struct {
	*specFlags
	recordFlags
	wide bool
	plan bool
}

func newRawCommand(cmd *cobra.Command, workload string, bind func(*pflag.FlagSet, *spec.Spec)) *rawCommand {
	f := &rawCommand{specFlags: newSpecFlags(cmd.Flags(), workload, bind)}
	f.recordFlags.bind(cmd.Flags())
	cmd.Flags().BoolVar(&f.wide, "wide", false, "all columns")
	return f
}

// run measures, or says what it would.
func (f *rawCommand) run(cmd *cobra.Command, args []string) error {
	s, err := f.spec(cmd)
	if err != nil {
		return err
	}
	if len(args) == 1 {
		s.Hosts.Peer = args[0]
	}
	old, err := f.resumed(s)
	if err != nil {
		return err
	}
	if old != nil && s.Raw.Tune {
		return usagef("--resume does not go with --tune: what it finds may differ; give the flags that it named, and another --record")
	}
	p, err := raw.NewPlan(s)
	if err != nil {
		return err
	}
	if printed, err := f.printed(cmd, s); printed {
		return err
	}
	if f.plan {
		return printPlan(cmd.OutOrStdout(), p, s, old)
	}
	j := &raw.Job{Plan: p}
	j.Argv, j.Resumed = argv(cmd), old
	var ended bool
	if ended, j.Isolation, err = f.keep(cmd, p, s); ended {
		return err
	}
	if j.File, err = f.writer(cmd, old); err != nil {
		return err
	}
	return f.measure(cmd, j)
}

// keep has a second process measure; see [keep]. isolation is for the record.
func (f *rawCommand) keep(cmd *cobra.Command, p *raw.Plan, s *spec.Spec) (ended bool, isolation string, err error) {
	able, why := p.Isolable()
	o := remote.Options{Namespace: able && !s.Hosts.NoNamespace, Linger: s.Raw.Timeout}
	if o.Stdin, err = f.stdin(s); err != nil {
		return false, "", err
	}
	if ended, err := keep(cmd, o, f.lines()); ended {
		return true, "", err
	}
	k := kept(cmd)
	switch {
	case k != nil && k.Namespace:
		return false, "namespace", nil
	case able:
		switch {
		case s.Hosts.NoNamespace:
			why = "--no-namespace"
		case k == nil:
			why = "no second process could be started"
		default:
			why = k.Refused
		}
		return false, "none, " + why + "; loopback addresses only", nil
	case why != "":
		return false, "none, " + why, nil
	}
	return false, "", nil
}

// measure runs the job and prints the table.
func (f *rawCommand) measure(cmd *cobra.Command, j *raw.Job) error {
	ctx, stop, err := f.output(cmd, j.File)
	if err != nil {
		return err
	}
	defer stop()
	bar := newProgress(cmd.ErrOrStderr())
	j.Progress = bar.raw
	if f.lines() {
		j.Stream = cmd.OutOrStdout()
	} else {
		j.Tune = func(l record.Tune) error {
			bar.clear()
			return report.Comment(cmd.OutOrStdout(), raw.TuneText(l), report.Options{Wide: f.wide})
		}
	}
	rec, err := raw.Run(ctx, j)
	bar.clear()
	if j.File != nil {
		err = errors.Join(err, j.File.Close())
	}
	if !f.lines() && rec != nil && rec.Samples.Len() > 0 {
		a, aerr := analysis.Of(rec)
		if aerr != nil {
			return errors.Join(err, aerr)
		}
		o := report.Options{Wide: f.wide, Color: color(cmd.OutOrStdout())}
		err = errors.Join(err, report.Text(cmd.OutOrStdout(), a, o))
	}
	return err
}

// progress is one line on a terminal, rewritten before each batch: never while
// one is measured.
type progress struct{ w io.Writer }

func newProgress(w io.Writer) *progress {
	if !terminal(w) {
		return &progress{}
	}
	return &progress{w}
}

func (p *progress) raw(x raw.Progress) {
	if p.w == nil {
		return
	}
	line := fmt.Sprintf("[%d/%d] %s %s %s", x.Done+1, x.Total, x.Condition.Provider, x.Condition.Op, x.Condition.Shape)
	if x.BytesPerSec > 0 {
		line += fmt.Sprintf("  %s so far", units.FormatGBps(x.BytesPerSec))
	}
	if x.Left > 0 {
		line += fmt.Sprintf("  %s left", x.Left.Round(time.Second))
	}
	fmt.Fprintf(p.w, "\r\x1b[K%.79s", line)
}

func (p *progress) clear() {
	if p.w != nil {
		fmt.Fprint(p.w, "\r\x1b[K")
	}
}
