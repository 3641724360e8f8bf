package report

import (
	"fmt"
	"io"
	"strings"

	"github.com/xferbench/xferbench/internal/report/table"
)

// Comment writes s as a line of a run's header, broken as the header's are.
func Comment(w io.Writer, s string, o Options) error {
	_, err := fmt.Fprintln(w, strings.Join(table.Wrap(s, "# ", "#   ", o.width()), "\n"))
	return err
}
