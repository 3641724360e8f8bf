package report

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/xferbench/xferbench/internal/analysis"
	"github.com/xferbench/xferbench/internal/record"
)

// Formats are the names that [Write] knows.
func Formats() []string { return []string{"text", "markdown", "csv", "json", "benchfmt", "html"} }

// Document is a record with what it says: an analysis of raw transfers, or the
// result of a TTFT run.
type Document struct {
	Record *record.Record
	Raw    *analysis.Analysis // nil for a TTFT run
	TTFT   *analysis.Requests // nil for raw transfers
}

// Load opens records by path ("last" is the newest) and analyses each. run is the
// ID of the one to take from files that hold several, "" where each holds one.
func Load(run string, paths ...string) ([]Document, error) {
	var out []Document
	for _, p := range paths {
		rec, err := record.OpenRun(p, run)
		if err != nil {
			return nil, err
		}
		d, err := NewDocument(rec)
		if err != nil {
			return nil, err
		}
		out = append(out, d)
	}
	return out, nil
}

// NewDocument analyses a record.
func NewDocument(rec *record.Record) (Document, error) {
	return newDocument(rec, analysis.Of, analysis.OfRequests)
}

// NewLiveDocument is [NewDocument] for the record of a run that may still go on.
func NewLiveDocument(rec *record.Record) (Document, error) {
	return newDocument(rec, analysis.Live, analysis.LiveRequests)
}

func newDocument(rec *record.Record, raw func(*record.Record) (*analysis.Analysis, error), ttft func(*record.Record) (*analysis.Requests, error)) (Document, error) {
	d := Document{Record: rec}
	var err error
	if rec.Run.Kind == kindTTFT {
		d.TTFT, err = ttft(rec)
	} else {
		d.Raw, err = raw(rec)
	}
	if err != nil {
		return d, fmt.Errorf("record %s: %w", rec.Path, err)
	}
	return d, nil
}

// ErrKinds is the error for documents of both kinds in a format that is one table.
var ErrKinds = errors.New("raw transfers and TTFT do not fit one table: export them apart")

// Write writes documents in a format. What could not be written whole is not
// begun: the text is made first.
func Write(w io.Writer, docs []Document, format string, o Options) error {
	if len(docs) == 0 {
		return errors.New("nothing to report: no record")
	}
	var b bytes.Buffer
	if err := compose(&b, docs, format, o); err != nil {
		return err
	}
	if _, err := w.Write(b.Bytes()); err != nil {
		return fmt.Errorf("writing the report: %w", err)
	}
	return nil
}

func compose(b *bytes.Buffer, docs []Document, format string, o Options) error {
	switch format {
	case "text":
		return each(b, docs, func(d Document) error {
			if d.Raw != nil {
				return Text(b, d.Raw, o)
			}
			return TTFTText(b, d.TTFT, o)
		})
	case "markdown":
		return each(b, docs, func(d Document) error {
			if d.Raw != nil {
				markdown(b, d.Raw)
			} else {
				ttftMarkdown(b, d.TTFT)
			}
			return nil
		})
	case "csv":
		return writeCSV(b, docs)
	case "json":
		return writeJSON(b, docs)
	case "benchfmt":
		return writeBenchfmt(b, docs, o.Only)
	case "html":
		return writeHTML(b, docs)
	}
	return fmt.Errorf("unknown format %q; use %s", format, strings.Join(Formats(), ", "))
}

// each writes documents one after another, with an empty line between.
func each(b *bytes.Buffer, docs []Document, one func(Document) error) error {
	for i, d := range docs {
		if i > 0 {
			b.WriteString("\n")
		}
		if err := one(d); err != nil {
			return err
		}
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
	return replace(path, write)
}

// replace puts a new file in path's place once all of it is on disk. What is
// not a regular file (a terminal, a pipe) is written as it is.
func replace(path string, write func(io.Writer) error) error {
	mode := os.FileMode(0o644)
	if target, err := filepath.EvalSymlinks(path); err == nil {
		path = target
	}
	if is, err := os.Stat(path); err == nil {
		if !is.Mode().IsRegular() {
			var b bytes.Buffer
			if err := write(&b); err != nil {
				return err
			}
			return os.WriteFile(path, b.Bytes(), mode)
		}
		mode = is.Mode().Perm()
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return err
	}
	err = errors.Join(write(f), f.Chmod(mode), f.Sync())
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}
