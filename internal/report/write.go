package report

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/xferbench/xferbench/internal/record"
	"github.com/xferbench/xferbench/internal/report/analysis"
)

// Formats are the names that [Write] knows.
func Formats() []string { return []string{"text", "markdown", "csv", "json", "benchfmt", "html"} }

// Load opens records by path ("last" is the newest) and analyses each.
func Load(paths ...string) ([]*analysis.Analysis, error) {
	var out []*analysis.Analysis
	for _, p := range paths {
		rec, err := record.Open(p)
		if err != nil {
			return nil, err
		}
		a, err := analysis.Of(rec)
		if err != nil {
			return nil, fmt.Errorf("record %s: %w", rec.Path, err)
		}
		out = append(out, a)
	}
	return out, nil
}

// Write writes analyses in a format. What could not be written whole is not
// begun: the text is made first.
func Write(w io.Writer, as []*analysis.Analysis, format string, o Options) error {
	if len(as) == 0 {
		return errors.New("nothing to report: no record")
	}
	var b bytes.Buffer
	var err error
	switch format {
	case "text":
		for i, a := range as {
			if i > 0 {
				b.WriteString("\n")
			}
			if err = Text(&b, a, o); err != nil {
				break
			}
		}
	case "markdown":
		markdown(&b, as)
	case "csv":
		err = writeCSV(&b, as)
	case "json":
		err = writeJSON(&b, as)
	case "benchfmt":
		err = writeBenchfmt(&b, as)
	case "html":
		err = writeHTML(&b, as)
	default:
		err = fmt.Errorf("unknown format %q; use %s", format, strings.Join(Formats(), ", "))
	}
	if err != nil {
		return err
	}
	if _, err := w.Write(b.Bytes()); err != nil {
		return fmt.Errorf("writing the report: %w", err)
	}
	return nil
}

// ErrExists is matched by the error of [Create] for a file that is there.
var ErrExists = errors.New("the output file exists")

// Create writes a file in whole: one that exists is refused unless force is set,
// and a failure leaves none behind, or the old one.
func Create(path string, force bool, write func(io.Writer) error) error {
	if !force {
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
		if errors.Is(err, os.ErrExist) {
			return fmt.Errorf("%w: %s: choose another -o, or add --force", ErrExists, path)
		}
		if err != nil {
			return err
		}
		err = write(f)
		if err = errors.Join(err, f.Close()); err != nil {
			return errors.Join(err, os.Remove(path))
		}
		return nil
	}
	var b bytes.Buffer
	if err := write(&b); err != nil {
		return err
	}
	return os.WriteFile(path, b.Bytes(), 0o644)
}
