package report

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/xferbench/xferbench/internal/record"
)

// FuzzWrite: what can be read and analysed has a report in every format.
func FuzzWrite(f *testing.F) {
	for _, name := range []string{"short.jsonl", "ttft.jsonl"} {
		b, err := os.ReadFile(filepath.Join(recordsDir, name))
		if err != nil {
			f.Fatal(err)
		}
		lines := bytes.SplitAfter(b, []byte("\n"))
		f.Add(bytes.Join(lines[:min(len(lines), 20)], nil))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		rec, err := record.Read(bytes.NewReader(in))
		if err != nil {
			return
		}
		d, err := NewDocument(rec)
		if err != nil {
			return
		}
		for _, format := range Formats() {
			// Without a row that has a speed there is nothing for benchstat.
			if err := Write(io.Discard, []Document{d}, format, Options{}); err != nil && format != "benchfmt" {
				t.Errorf("%s: %v", format, err)
			}
		}
	})
}
