package cli

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/spf13/cobra"

	"github.com/xferbench/xferbench/internal/serving/proxy"
	"github.com/xferbench/xferbench/internal/ttft"
	"github.com/xferbench/xferbench/internal/units"
)

func newProxyCommand() *cobra.Command {
	var (
		c      proxy.Config
		listen string
		quiet  bool

		bodyMemory units.Size = proxy.DefaultBodyMemory
	)
	cmd := &cobra.Command{
		Use:   "proxy",
		Short: "Run a P/D proxy for vLLM's NIXL connector",
		Long: `proxy takes OpenAI completion requests, has a prefill engine compute the prompt and
streams the answer of a decode engine, round robin over any number of both. A
request whose prefill answer lacks kv_transfer_params fails with 502; passed on,
it would be computed again in silence. Server-Timing headers show each leg.`,
		Example: `  xferbench proxy --prefill http://node1:8100 --decode http://node2:8200
  xferbench proxy --prefill http://a:8100,http://b:8100 --decode http://c:8200 --listen :8000`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			for _, list := range [][]string{c.Prefill, c.Decode} {
				for i, s := range list {
					u, err := ttft.BaseURL(s)
					if err != nil {
						return usagef("%w", err)
					}
					list[i] = u
				}
			}
			if !quiet {
				c.Log = func(format string, args ...any) {
					fmt.Fprintf(cmd.ErrOrStderr(), "%s %s\n", time.Now().Format(time.TimeOnly), units.Printable(fmt.Sprintf(format, args...)))
				}
			}
			c.BodyMemory = int64(bodyMemory)
			p, err := proxy.New(c)
			if err != nil {
				return usagef("%w", err)
			}
			defer p.Close()
			l, err := net.Listen("tcp", listen)
			if err != nil {
				return unavailable(fmt.Errorf("--listen %s: %w", listen, err))
			}
			if _, err := fmt.Fprintf(cmd.OutOrStdout(), "proxy: http://%s\n", l.Addr()); err != nil {
				return errors.Join(err, l.Close())
			}
			return serveHTTP(cmd.Context(), l, p)
		},
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.StringSliceVar(&c.Prefill, "prefill", nil, "base `URL` of a prefill engine; may be repeated")
	f.StringSliceVar(&c.Decode, "decode", nil, "base `URL` of a decode engine; may be repeated")
	f.StringVar(&listen, "listen", loopback("8000"), "address to serve: host:port, port 0 for any; there is no access control")
	f.IntVar(&c.MaxInFlight, "max-in-flight", proxy.DefaultInFlight, "requests under way; more are refused with 503 and Retry-After")
	f.Var(&bodyMemory, "body-memory", "memory for the bodies of all requests under way, three times their bytes; more are refused with 503 and Retry-After")
	f.DurationVar(&c.Timeout, "timeout", 10*time.Minute, "give a request up after this long, both legs together")
	f.DurationVar(&c.HealthEvery, "health-every", 2*time.Second, "time between health checks of each engine")
	f.BoolVar(&quiet, "quiet", false, "do not log engines that go away and requests that fail")
	return cmd
}

// serveHTTP serves h until ctx ends, and then gives requests under way a while
// to end.
func serveHTTP(ctx context.Context, l net.Listener, h http.Handler) error {
	s := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 64 << 10}
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	err := s.Shutdown(end)
	if errors.Is(err, context.DeadlineExceeded) {
		err = s.Close() // who is still at it has had the while
	}
	if served := <-done; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	return err
}
