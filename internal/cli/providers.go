package cli

import (
	"encoding/json"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/xferbench/xferbench/internal/fault"
	"github.com/xferbench/xferbench/internal/providers"
)

// newProvidersCommand returns "xferbench providers". Every library is loaded in
// workers that it starts.
func newProvidersCommand() *cobra.Command {
	var (
		libs        providers.Libraries
		limit       = 30 * time.Second
		wide, asDoc bool
	)
	cmd := &cobra.Command{
		Use:   "providers",
		Short: "Print what this host can run, and why not",
		Long: `Open every transport in a process of its own and print which of them this host
can run, on which devices, and for the others why not and what to do about it;
then what the host itself allows: locked memory, huge pages, RDMA files, kernel
modules, GPUDirect; and on EC2 what its EFA can do.

Exit code 0 if a transport of libfabric or UCX runs, 3 if none does.`,
		Example: `  xferbench providers
  xferbench providers --wide
  xferbench providers --json | jq '.providers[] | select(.outcome == "runs").provider'
  xferbench providers --libfabric /opt/amazon/efa/lib64/libfabric.so.1`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if limit <= 0 {
				return usagef("--timeout %v: must be more than 0", limit)
			}
			r, err := providers.Collect(cmd.Context(), providers.Options{
				Probe: providers.Child(libs, limit), Limit: limit, Environ: os.Environ(),
			})
			if err != nil {
				return err
			}
			if err := printProviders(cmd, r, asDoc, wide); err != nil {
				return fmt.Errorf("writing the table: %w", err)
			}
			if !r.Runnable() {
				return fault.Errorf(fault.Unavailable, "no transport of libfabric or UCX runs on this host; the reasons are above")
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.BoolVar(&wide, "wide", false, "all columns")
	f.BoolVar(&asDoc, "json", false, "one JSON document (its keys: docs/providers.md)")
	f.StringVar(&libs.Fabric, "libfabric", "", "libfabric.so.1 to load (default: the loader's, then /opt/amazon/efa)")
	f.StringVar(&libs.UCP, "libucp", "", "libucp.so.0 to load")
	f.DurationVar(&limit, "timeout", limit, "kill a probe after this long")
	return cmd
}

func printProviders(cmd *cobra.Command, r providers.Report, asDoc, wide bool) error {
	if !asDoc {
		return r.WriteText(cmd.OutOrStdout(), wide)
	}
	e := json.NewEncoder(cmd.OutOrStdout())
	e.SetIndent("", "  ")
	return e.Encode(r)
}
