package cli

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/xferbench/xferbench/internal/kv"
	"github.com/xferbench/xferbench/internal/remote"
	"github.com/xferbench/xferbench/internal/serving/pool"
	"github.com/xferbench/xferbench/internal/serving/sim"
	"github.com/xferbench/xferbench/internal/transport"
)

// simFlags describe simulated engines.
type simFlags struct {
	c           sim.Config
	order       string
	model       string
	blockTokens int
	faults      []string
}

func (f *simFlags) bind(fs *pflag.FlagSet, prefix string) {
	fs.DurationVar(&f.c.PrefillTime, prefix+"prefill-time", 5*time.Millisecond, "simulated engine: constant part of a prompt's computation")
	fs.DurationVar(&f.c.PrefillPerToken, prefix+"prefill-per-token", 10*time.Microsecond, "simulated engine: time for each prompt token")
	fs.DurationVar(&f.c.StepTime, prefix+"step-time", 4*time.Millisecond, "simulated engine: one decode step")
	fs.DurationVar(&f.c.MoverDelay, prefix+"transfer-delay", 0, "simulated engine: added to each transfer, a slow peer")
	fs.DurationVar(&f.c.Lease, prefix+"lease", 30*time.Second, "simulated engine: how long the prefill engine keeps blocks")
	fs.IntVar(&f.c.Blocks, prefix+"blocks", 200, "simulated engine: blocks in the pool")
	fs.StringVar(&f.order, prefix+"pool-order", string(pool.FIFO), "simulated engine: free list, fifo (vLLM up to 0.23) or lifo")
	fs.BoolVar(&f.c.Caching, prefix+"prefix-caching", false, "simulated engine: keep freed blocks as with prefix caching on")
	fs.StringVar(&f.c.Transport, prefix+"transport", "socket", "simulated engine: `provider` over which the KV cache moves (xferbench providers)")
	fs.StringVar(&f.model, prefix+"model", kv.DefaultModel, "simulated engine: `model` whose KV cache moves: preset or config.json")
	fs.IntVar(&f.blockTokens, prefix+"block-tokens", kv.DefaultBlockTokens, "simulated engine: tokens in a block")
	fs.StringVar(&f.c.Release, prefix+"vllm", "0.32.0", "simulated engine: `release` whose metrics it shows")
	fs.BoolVar(&f.c.Recompute, prefix+"recompute", false, "simulated engine: compute the prompt again when a transfer fails")
	fs.StringSliceVar(&f.faults, prefix+"fault", nil, "simulated engine: `NAME[:N]`, a fault on every N-th request (docs/sim.md)")
}

// loads reports whether the engines load a library, which may take their
// process down.
func (f *simFlags) loads() bool { return f.c.Transport != "socket" && f.c.Transport != "memcpy" }

// config turns the flags into a configuration without a role.
func (f *simFlags) config() (sim.Config, error) {
	c := f.c
	var err error
	if c.Order, err = pool.ParseOrder(f.order); err != nil {
		return c, err
	}
	if err := transport.CheckConfig(transport.Config{Provider: c.Transport}); err != nil {
		return c, fmt.Errorf("transport %w", err)
	}
	m, err := kv.Resolve(f.model, "auto")
	if err != nil {
		return c, err
	}
	c.Geometry = sim.Geometry{BlockTokens: f.blockTokens, Regions: m.Layers, BytesPerToken: int(m.BytesPerToken())}
	for _, s := range f.faults {
		in, err := sim.ParseInjection(s)
		if err != nil {
			return c, err
		}
		c.Faults = append(c.Faults, in)
	}
	return c, nil
}

func newSimCommand() *cobra.Command {
	var (
		f      simFlags
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
			c, err := f.config()
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
			if f.loads() {
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
	f.bind(fs, "")
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
