package cli

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/xferbench/xferbench/internal/remote"
	"github.com/xferbench/xferbench/internal/serving/sim"
	"github.com/xferbench/xferbench/internal/spec"
	"github.com/xferbench/xferbench/internal/ttft/session"
)

// bindSim binds the flags of simulated engines, whose values are their defaults.
func bindSim(fs *pflag.FlagSet, e *spec.SimEngine, prefix string) {
	fs.DurationVar(&e.PrefillTime, prefix+"prefill-time", e.PrefillTime, "simulated engine: constant part of a prompt's computation")
	fs.DurationVar(&e.PrefillPerToken, prefix+"prefill-per-token", e.PrefillPerToken, "simulated engine: time for each prompt token")
	fs.DurationVar(&e.StepTime, prefix+"step-time", e.StepTime, "simulated engine: one decode step")
	fs.DurationVar(&e.TransferDelay, prefix+"transfer-delay", e.TransferDelay, "simulated engine: added to each transfer, a slow peer")
	fs.DurationVar(&e.Lease, prefix+"lease", e.Lease, "simulated engine: how long the prefill engine keeps KV blocks")
	fs.IntVar(&e.Blocks, prefix+"blocks", e.Blocks, "simulated engine: KV blocks in the pool")
	fs.StringVar(&e.PoolOrder, prefix+"pool-order", e.PoolOrder, "simulated engine: free list, fifo (vLLM up to 0.23) or lifo")
	fs.BoolVar(&e.PrefixCaching, prefix+"prefix-caching", e.PrefixCaching, "simulated engine: keep freed KV blocks as with prefix caching on")
	fs.StringVar(&e.Transport, prefix+"transport", e.Transport, "simulated engine: `provider` over which the KV cache moves (xferbench providers)")
	fs.StringVar(&e.Model, prefix+"model", e.Model, "simulated engine: `model` whose KV cache moves: preset or config.json")
	fs.StringVar(&e.DType, prefix+"dtype", e.DType, "simulated engine: `type` of a cached value: bf16, fp8, … (default: the model's)")
	fs.IntVar(&e.TP, prefix+"tp", e.TP, "simulated engine: tensor-parallel `size`")
	fs.BoolVar(&e.Push, prefix+"push", e.Push, "simulated engine: the prefill engine counts the transfers, as NixlPushConnector does")
	fs.IntVar(&e.BlockTokens, prefix+"block-tokens", e.BlockTokens, "simulated engine: tokens per KV block")
	fs.StringVar(&e.VLLM, prefix+"vllm", e.VLLM, "simulated engine: `release` whose metrics it shows")
	fs.BoolVar(&e.Recompute, prefix+"recompute", e.Recompute, "simulated engine: compute the prompt again when a transfer fails")
	fs.StringSliceVar((*[]string)(&e.Fault), prefix+"fault", e.Fault, "simulated engine: `NAME[:N]`, a fault on every N-th request (docs/sim.md)")
}

// loads reports whether the engines load a library, which may take their
// process down.
func loads(e spec.SimEngine) bool { return e.Transport != "socket" && e.Transport != "memcpy" }

func newSimCommand() *cobra.Command {
	var (
		engine = spec.DefaultSimEngine()
		role   string
		listen string
	)
	cmd := &cobra.Command{
		Use:   "sim",
		Short: "Run simulated prefill, decode and unified engines",
		Long: `sim runs engines that speak vLLM's HTTP interface and compute nothing: prefill and
decode take the times they are told, and the KV cache really moves between
them. Measure them with xferbench ttft, put xferbench proxy before them, or try
what a fault looks like. What is measured on them says "simulated".`,
		Example: `  xferbench sim
  xferbench sim --role decode --listen 0.0.0.0:8200
  xferbench sim --fault silent-recompute:10`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := session.SimConfig(engine)
			if err != nil {
				return usagef("%w", err)
			}
			host, port, err := net.SplitHostPort(listen)
			if err != nil {
				return usagef("--listen %q: want host:port", listen)
			}
			n, err := strconv.Atoi(port)
			if err != nil || n < 0 || n > 65535 {
				return usagef("--listen %q: port %q is none", listen, port)
			}
			if loads(engine) {
				if ended, err := keep(cmd, remote.Options{}, false); ended {
					return err
				}
			}
			roles := []sim.Role{sim.Role(role)}
			if role == "all" {
				roles = []sim.Role{sim.Prefill, sim.Decode, sim.Unified}
			}
			return serveSim(cmd, c, roles, host, n)
		},
	}
	fs := cmd.Flags()
	fs.SortFlags = false
	fs.StringVar(&role, "role", "all", "engine to run: prefill, decode, unified, or all on neighbouring ports")
	fs.StringVar(&listen, "listen", loopback("8100"), "address of the first engine: host:port, port 0 for any; there is no access control")
	bindSim(fs, &engine, "")
	return cmd
}

// serveSim runs engines until the context ends or one of them fails.
func serveSim(cmd *cobra.Command, c sim.Config, roles []sim.Role, host string, port int) (err error) {
	ctx, cancel := context.WithCancel(cmd.Context())
	defer cancel()
	ended := make(chan error, len(roles))
	for i, r := range roles {
		c.Role = r
		at := port
		if port != 0 {
			at += i
		}
		s, err := sim.Listen(c, host, at)
		if err != nil {
			return unavailable(err)
		}
		defer func() { err = errors.Join(err, s.Close()) }()
		if _, err := fmt.Fprintf(cmd.OutOrStdout(), "simulated %s engine: %s\n", r, s.URL); err != nil {
			return err
		}
		go func() { ended <- s.Wait(ctx) }()
	}
	err = <-ended
	if err == nil && cmd.Context().Err() != nil {
		return nil // Ctrl-C is how it is ended
	}
	return err
}
