package cli

import (
	"github.com/spf13/cobra"

	"github.com/xferbench/xferbench/internal/raw"
	"github.com/xferbench/xferbench/internal/schedule"
	"github.com/xferbench/xferbench/internal/ttft/session"
)

func newLaunchCommand() *cobra.Command {
	return &cobra.Command{
		Use:    schedule.LaunchCommand,
		Short:  "Run one launch of a spec, given on standard input",
		Hidden: true,
		Args:   usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			l, s, err := schedule.ReadLaunch(cmd.InOrStdin())
			if err != nil {
				return err
			}
			as := func(one *schedule.Session) {
				one.Spec, one.Isolation, one.Launch, one.Stream = s, l.Isolation, &l, cmd.OutOrStdout()
			}
			if s.TTFT != nil {
				j := &session.Job{}
				as(&j.Session)
				_, err = session.Run(cmd.Context(), j)
				return err
			}
			p, err := raw.NewPlan(s)
			if err != nil {
				return err
			}
			j := &raw.Job{Plan: p}
			as(&j.Session)
			_, err = raw.Run(cmd.Context(), j)
			return err
		},
	}
}
