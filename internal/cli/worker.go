package cli

import (
	"github.com/spf13/cobra"

	"github.com/xferbench/xferbench/internal/peer"
	"github.com/xferbench/xferbench/internal/providers"
	"github.com/xferbench/xferbench/internal/remote"
)

// newWorkerCommand returns the command that this program starts itself with,
// here or on another host.
func newWorkerCommand() *cobra.Command {
	return &cobra.Command{
		Use:    remote.WorkerCommand,
		Short:  "Do a task for another xferbench, which writes it to standard input",
		Hidden: true,
		Args:   usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			err := remote.Work(cmd.Context(), cmd.InOrStdin(), cmd.OutOrStdout(), map[string]remote.Task{
				peer.Task: peer.Work, providers.Task: providers.Work})
			if err != nil {
				return unavailable(err)
			}
			return nil
		},
	}
}
