package cli

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/xferbench/xferbench/internal/analysis"
	"github.com/xferbench/xferbench/internal/kv"
	"github.com/xferbench/xferbench/internal/raw"
	"github.com/xferbench/xferbench/internal/record"
	"github.com/xferbench/xferbench/internal/remote"
	"github.com/xferbench/xferbench/internal/report"
	"github.com/xferbench/xferbench/internal/transport"
	"github.com/xferbench/xferbench/internal/units"
)

func newRootCommand() *cobra.Command {
	f := newRawFlags("raw")
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
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				f.o.Peer = args[0]
			}
			return f.run(cmd)
		},
	}
	f.bind(cmd.Flags())
	cmd.Flags().BoolVar(&f.o.Tune, "tune", false, "first search --streams, --depth and --chunk for each provider, within --budget, and use the best")
	cmd.SetUsageTemplate(strings.ReplaceAll(cmd.UsageTemplate(), "Flags.FlagUsages ", "Flags.FlagUsagesWrapped 80 "))
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usagef("%w", err) })
	cmd.AddCommand(newServeCommand(), newProvidersCommand(), newSweepCommand(), newTTFTCommand(), newProxyCommand(), newSimCommand(),
		newCompareCommand(), newReportCommand(), newKVCommand(), newVersionCommand(), newWorkerCommand())
	return cmd
}

// peerArg takes one PEER, and knows a mistyped subcommand from one.
func peerArg(cmd *cobra.Command, args []string) error {
	if len(args) > 1 {
		return fmt.Errorf("one PEER, not %d: %s", len(args), strings.Join(args, " "))
	}
	if len(args) == 1 && !strings.ContainsAny(args[0], "#:/.") {
		if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
			return fmt.Errorf("%q is no PEER (host:port#token or ssh://host); did you mean the command %s?", args[0], strings.Join(near, " or "))
		}
	}
	return nil
}

// rawFlags are the flags of a raw run.
type rawFlags struct {
	o          raw.Options
	sizes      *units.SizeList
	tokens     *units.TokenList
	chunk      units.Size
	until      units.Percent
	recordFile string
	noRecord   bool
	json       string
	wide       bool
	resume     bool
	// noNamespace leaves a run within this host in its network.
	noNamespace bool
}

func newRawFlags(kind string) *rawFlags {
	return &rawFlags{o: raw.Options{Kind: kind}, sizes: units.NewSizeList(), tokens: units.NewTokenList()}
}

func (f *rawFlags) bind(fs *pflag.FlagSet) {
	o := &f.o
	fs.SortFlags = false
	fs.StringSliceVarP(&o.Providers, "provider", "p", []string{"tcp"}, "transports, comma-separated; the same twice is an A/A test (xferbench providers lists them); ucx:A+B is UCX_TLS=A,B")
	fs.StringSliceVar(&o.Ops, "op", []string{"read"}, "read (as vLLM's NixlConnector does), write, send")
	fs.Var(f.sizes, "size", "bytes, rounded up to whole KV blocks: 438MB, 64KiB,1GiB")
	fs.Var(f.tokens, "tokens", "the same in tokens (default 8000)")
	fs.StringSliceVar(&o.Shapes, "shape", []string{"merged", "fragmented"}, "merged (one descriptor a layer), fragmented (one a layer and block), contiguous (one)")
	fs.StringVar(&o.Layout, "kv-layout", string(kv.Packed), "packed (K and V of a block in one descriptor, vLLM >= 0.26) or split (two)")
	fs.IntSliceVar(&o.BlockTokens, "block-tokens", []int{kv.DefaultBlockTokens}, "tokens a block")
	fs.StringVar(&o.Model, "model", kv.DefaultModel, "preset or config.json (xferbench kv --help)")
	fs.StringVar(&o.DType, "dtype", "auto", "type of a cached value: bf16, fp8, …")
	fs.IntVar(&o.TP, "tensor-parallel", 1, "ranks that share the cache; one rank's part is moved")
	fs.StringVar(&o.Memory, "memory", "host", "buffer: host, host-huge, cuda[:N], cuda-host[:N]")
	fs.StringVar(&o.PeerMemory, "peer-memory", "", "buffer of the peer (default: as --memory)")
	fs.IntSliceVar(&o.Streams, "streams", []int{0}, "independent endpoints a NIC, each with its thread (default: the provider's best)")
	fs.IntSliceVar(&o.Depth, "depth", []int{0}, "operations in flight an endpoint (default: the provider's best)")
	fs.Var(&f.chunk, "chunk", "split longer descriptors (default: the provider's best)")
	fs.IntVar(&o.Rails, "rails", 0, "NICs to use (default: all that are nearest)")
	fs.StringVar(&o.Poll, "poll", "auto", "spin, yield, or auto: spin with 4 cores and more")
	fs.IntVar(&o.Blocks, "blocks", 10, "randomised blocks, each with every condition once")
	fs.IntVar(&o.MinBlocks, "min-blocks", 6, "blocks to run even when the budget is over")
	fs.DurationVar(&o.Budget, "budget", 20*time.Second, "time for the blocks; 0: no limit")
	fs.IntVar(&o.Iterations, "iterations", 0, "transfers of a condition in each block (default: about 20 ms of them)")
	fs.Var(&f.until, "until-ci", "stop once every median's 95% interval is within this: 2% (a declared sequential rule)")
	fs.IntVar(&o.Launches, "launches", 1, "repeat with fresh processes and connections; the launch is then the unit")
	fs.BoolVar(&o.RoundRobin, "round-robin", false, "keep the conditions in order instead of randomising")
	fs.Uint64Var(&o.Seed, "seed", 0, "of block order, block ids and payload (default: random, printed)")
	fs.BoolVar(&o.NoVerify, "no-verify", false, "do not check the data")
	fs.BoolVar(&o.NoCeiling, "no-ceiling", false, "do not measure memcpy and socket beside the providers")
	fs.DurationVar(&o.Timeout, "timeout", 10*time.Second, "give up after this long without progress")
	fs.BoolVar(&f.noNamespace, "no-namespace", false, "leave a run within this host in the host's network, where others can reach it")
	fs.StringSliceVar(&o.Bind, "bind", nil, "local IP addresses for transports, a rail each (default: the one that reaches the peer); PROVIDER@IP+IP for one provider")
	fs.StringVar(&o.Libfabric, "libfabric", "", "libfabric.so.1 to load (default: the loader's, then /opt/amazon/efa)")
	fs.StringVar(&o.Libucp, "libucp", "", "libucp.so.0 to load")
	fs.StringArrayVar(&o.UCXConfig, "ucx-config", nil, "KEY=VALUE, over the settings that NIXL uses")
	fs.StringArrayVar(&o.Set, "set", nil, "KEY=VALUE for libfabric transports: write-landing=dc|count, efa-shm=on|off")
	fs.StringVar(&o.SecretFile, "secret-file", "", "secret that both sides share, instead of the token in PEER")
	fs.StringVar(&o.Program, "peer-program", "xferbench", "xferbench on the ssh:// host")
	fs.StringVar(&o.SSHCommand, "ssh-command", "ssh", "how to start ssh, read by the shell: 'ssh -i KEY -J GATEWAY'")
	fs.BoolVar(&o.PushBinary, "push-binary", false, "copy this binary to the ssh:// host for the run")
	fs.IntVar(&o.Launch, raw.LaunchFlag, -1, "number of this launch")
	fs.BoolVar(&o.Reuse, raw.ReuseFlag, false, "all operations of a lane over the same memory")
	// Only a process that repeats itself, and make bench, give these.
	for _, name := range []string{raw.LaunchFlag, raw.ReuseFlag} {
		if err := fs.MarkHidden(name); err != nil {
			panic(err) // the flag was defined above
		}
	}
	f.bindOutput(fs)
	units.GuardLists(fs)
}

func (f *rawFlags) bindOutput(fs *pflag.FlagSet) {
	fs.StringVar(&f.recordFile, "record", "", "file for the record (default: a new one in $XDG_STATE_HOME/xferbench)")
	fs.BoolVar(&f.noRecord, "no-record", false, "write no record file")
	fs.StringVar(&f.json, "json", "", `"-": the record's lines on stdout instead of the table`)
	fs.BoolVar(&f.wide, "wide", false, "all columns")
}

// untilBlocks bounds a run that stops by the width of its intervals; its
// budget usually comes first.
const untilBlocks = 1000

// complete turns the flags into options.
func (f *rawFlags) complete(cmd *cobra.Command) error {
	f.o.Sizes, f.o.Tokens = f.sizes.Values(), f.tokens.Values()
	if len(f.o.Sizes) == 0 && len(f.o.Tokens) == 0 {
		f.o.Tokens = []int64{8000}
	}
	f.o.Chunk, f.o.UntilCI = int64(f.chunk), float64(f.until)
	if f.o.UntilCI > 0 && !cmd.Flags().Changed("blocks") {
		f.o.Blocks = untilBlocks
	}
	if f.o.Blocks < f.o.MinBlocks && cmd.Flags().Changed("blocks") && !cmd.Flags().Changed("min-blocks") {
		f.o.MinBlocks = f.o.Blocks
	}
	if !cmd.Flags().Changed("seed") {
		var b [8]byte
		if _, err := rand.Read(b[:]); err != nil {
			return err
		}
		f.o.Seed = binary.LittleEndian.Uint64(b[:]) >> 32 // short enough to retype
	}
	if f.noRecord && f.recordFile != "" {
		return usagef("--record and --no-record exclude each other")
	}
	if f.json != "" && f.json != "-" {
		return usagef(`--json %q: want "-"; a file is --record`, f.json)
	}
	f.o.Argv = argv(cmd)
	return nil
}

func (f *rawFlags) writer(cmd *cobra.Command) (*record.Writer, error) {
	switch {
	case f.noRecord:
		return nil, nil
	case f.recordFile != "":
		w, err := record.Create(f.recordFile)
		if err != nil {
			return nil, usagef("%w", err)
		}
		return w, nil
	}
	warnState(cmd)
	return record.CreateDefault(time.Now(), strings.ToLower(rand.Text()[:6]))
}

// warnState says that a record's usual place is not where $XDG_STATE_HOME says.
func warnState(cmd *cobra.Command) {
	if w := record.StateWarning(); w != "" {
		fmt.Fprintf(cmd.ErrOrStderr(), "xferbench: warning: %s\n", w)
	}
}

func (f *rawFlags) run(cmd *cobra.Command) error {
	if err := f.complete(cmd); err != nil {
		return err
	}
	if err := f.o.Validate(); err != nil {
		return err
	}
	if ended, err := f.keep(cmd); ended {
		return err
	}
	w, err := f.writer(cmd)
	if err != nil {
		return err
	}
	return f.measure(cmd, w)
}

// keep has a second process measure; see [keep]. A launch is one already: the
// process that repeats it loads no library.
func (f *rawFlags) keep(cmd *cobra.Command) (bool, error) {
	if f.o.Launch >= 0 {
		return false, nil
	}
	able, why := f.o.Isolable()
	o := remote.Options{Namespace: able && !f.noNamespace, Linger: f.o.Timeout}
	if ended, err := keep(cmd, o, f.json == "-"); ended {
		return true, err
	}
	k := kept(cmd)
	switch {
	case k != nil && k.Namespace:
		f.o.Isolation = "namespace"
	case able:
		switch {
		case f.noNamespace:
			why = "--no-namespace"
		case k == nil:
			why = "no second process could be started"
		default:
			why = k.Refused
		}
		f.o.Isolation = "none, " + why + "; loopback addresses only"
	case why != "":
		f.o.Isolation = "none, " + why
	}
	return false, nil
}

// measure runs the options, with w as the record, and prints the table.
func (f *rawFlags) measure(cmd *cobra.Command, w *record.Writer) error {
	out := raw.Output{Record: w}
	if w != nil {
		if err := kept(cmd).Record(w.Path()); err != nil {
			return errors.Join(err, w.Close())
		}
	}
	if f.json == "-" {
		out.JSON = cmd.OutOrStdout()
	}
	bar := newProgress(cmd.ErrOrStderr())
	out.Progress = bar.raw
	if f.json == "" {
		out.Tune = func(l record.Tune) error {
			bar.clear()
			return report.Comment(cmd.OutOrStdout(), raw.TuneText(l), report.Options{Wide: f.wide})
		}
	}
	ctx := cmd.Context()
	if w == nil && f.json == "-" {
		var stop func()
		ctx, stop = untilUnread(cmd)
		defer stop()
	}
	rec, err := raw.Run(ctx, f.o, out)
	bar.clear()
	if w != nil {
		err = errors.Join(err, w.Close())
	}
	if f.json == "" && rec != nil && len(rec.Samples) > 0 {
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

func (p *progress) raw(x transport.Progress) {
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
