package cli

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/xferbench/xferbench/internal/raw"
	"github.com/xferbench/xferbench/internal/schedule"
)

// launchCommand is the hidden command that runs one launch of several.
const launchCommand = "launch"

// launchArgv is the command line that runs it.
func launchArgv() ([]string, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("launches: this binary: %w", err)
	}
	return []string{exe, launchCommand}, nil
}

func newLaunchCommand() *cobra.Command {
	return &cobra.Command{
		Use:    launchCommand,
		Short:  "Run one launch of a spec, given on standard input",
		Hidden: true,
		Args:   usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			l, s, err := schedule.ReadLaunch(cmd.InOrStdin())
			if err != nil {
				return err
			}
			p, err := raw.NewPlan(s)
			if err != nil {
				return err
			}
			_, err = raw.Run(cmd.Context(), raw.Job{Plan: p, Isolation: l.Isolation, Launch: &l, JSON: cmd.OutOrStdout()})
			return err
		},
	}
}
