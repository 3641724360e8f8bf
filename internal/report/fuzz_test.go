package report

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/xferbench/xferbench/internal/analysis"
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

// FuzzCompare: what can be read and analysed is compared with a record of its kind
// and with itself, over and over, in every format. A document of JUnit is whole.
func FuzzCompare(f *testing.F) {
	whole := map[bool]*analysis.Source{}
	for _, name := range []string{"short.jsonl", "ttft.jsonl"} {
		b, err := os.ReadFile(filepath.Join(recordsDir, name))
		if err != nil {
			f.Fatal(err)
		}
		lines := bytes.SplitAfter(b, []byte("\n"))
		f.Add(bytes.Join(lines[:min(len(lines), 20)], nil))
		f.Add(bytes.ReplaceAll(bytes.Join(lines[:min(len(lines), 20)], nil), []byte(`"name":`), []byte(`"no":`))) // rows without a name
		rec, err := record.Read(bytes.NewReader(b))
		if err != nil {
			f.Fatal(err)
		}
		s, err := analysis.NewSource(rec)
		if err != nil {
			f.Fatal(err)
		}
		whole[s.Raw != nil] = s
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		rec, err := record.Read(bytes.NewReader(in))
		if err != nil {
			return
		}
		s, err := analysis.NewSource(rec)
		if err != nil {
			return
		}
		other := whole[s.Raw != nil]
		for _, sources := range [][]*analysis.Source{{s, other}, {other, s}, {s, other, s}} {
			for _, format := range CompareFormats() {
				c, err := newCompareDoc(sources, CompareOptions{Format: format, Threshold: 0.05})
				if err != nil {
					t.Fatal(err)
				}
				var b bytes.Buffer
				if err := c.render(&b); err != nil {
					t.Errorf("%s: %v", format, err)
				}
				if format == "junit" {
					validJUnit(t, b.String())
				}
				if c.outcome() == nil && s.Raw != nil { // the other record of transfers was cut off
					t.Errorf("%s: a record that was cut off passes a gate", format)
				}
			}
		}
	})
}
