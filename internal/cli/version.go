package cli

import (
	"fmt"
	"os"
	"runtime"

	"github.com/spf13/cobra"

	"github.com/xferbench/xferbench/internal/record"
	"github.com/xferbench/xferbench/internal/version"
)

func newVersionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version, the commit and the record schema",
		Args:  usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "xferbench %s commit %s schema %d %s %s/%s\n",
				version.Version, version.Commit, record.Schema, runtime.Version(), runtime.GOOS, runtime.GOARCH)
			return err
		},
	}
}

// argv is the command line as it goes into the record.
func argv(cmd *cobra.Command) []string {
	return append([]string{cmd.Root().Name()}, os.Args[1:]...)
}
