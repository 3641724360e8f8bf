package report

import (
	"bytes"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/xferbench/xferbench/internal/analysis"
	"github.com/xferbench/xferbench/internal/record"
	"github.com/xferbench/xferbench/internal/stats"
	"github.com/xferbench/xferbench/internal/testenv/synth"
)

var update = flag.Bool("update", false, "rewrite the golden files")

const recordsDir = "../../testdata/records"

// records are the names of the synthetic records in testdata.
func records(t *testing.T) []string {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(recordsDir, "*.jsonl"))
	if err != nil || len(paths) == 0 {
		t.Fatalf("no records: %v", err)
	}
	return paths
}

func load(t *testing.T, path string) Document {
	t.Helper()
	rec, err := record.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	rec.Path = filepath.Base(path)
	d, err := NewDocument(rec)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func analyse(t *testing.T, path string) *analysis.Analysis {
	t.Helper()
	return load(t, path).Raw
}

// golden holds got against testdata/NAME; of a page its body, TestHTMLHead has the
// rest.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	if filepath.Ext(name) == ".html" {
		_, got = parts(t, got)
	}
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), string(got)); d != "" {
		t.Errorf("%s (-want +got):\n%s", path, d)
	}
}

func base(path string) string { return strings.TrimSuffix(filepath.Base(path), ".jsonl") }

func TestText(t *testing.T) {
	for _, path := range records(t) {
		d := load(t, path)
		if d.TTFT != nil {
			continue // TestTTFTText
		}
		for name, o := range map[string]Options{".txt": {}, ".wide.txt": {Wide: true}} {
			var b bytes.Buffer
			if err := Write(&b, []Document{d}, "text", o); err != nil {
				t.Fatal(err)
			}
			golden(t, base(path)+name, b.Bytes())
			for line := range strings.Lines(b.String()) {
				if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > 80 && !o.Wide {
					t.Errorf("%s: %d columns: %s", path, n, line)
				}
			}
		}
	}
}

// TestSchema1 holds that a record as an earlier build wrote it gives the same
// reports.
func TestSchema1(t *testing.T) {
	old, err := filepath.Glob(filepath.Join(recordsDir, "schema1", "*.jsonl"))
	if err != nil || len(old) == 0 {
		t.Fatalf("no records: %v", err)
	}
	for _, path := range old {
		was, is := load(t, path), load(t, filepath.Join(recordsDir, filepath.Base(path)))
		if was.Record.Run.Schema != 1 || is.Record.Run.Schema != record.Schema {
			t.Errorf("%s: schema %d beside %d", path, was.Record.Run.Schema, is.Record.Run.Schema)
		}
		was.Record.Run.Schema = record.Schema
		for _, format := range Formats() {
			var a, b bytes.Buffer
			if err := errors.Join(Write(&a, []Document{was}, format, Options{}), Write(&b, []Document{is}, format, Options{})); err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(a.String(), b.String()); d != "" {
				t.Errorf("%s as %s (-schema 1 +now):\n%s", path, format, d)
			}
		}
	}
}

// TestTTFTText: what the run itself prints, in 80 columns.
func TestTTFTText(t *testing.T) {
	lap := func(arms []string, blocks, each int, load string, concurrency int, change func(*record.Record)) Document {
		rec := synth.MakeLap(arms, blocks, each, load, concurrency)
		if change != nil {
			change(rec)
		}
		d, err := NewDocument(rec)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	for name, d := range map[string]Document{
		"ttft.txt":     load(t, filepath.Join(recordsDir, "ttft.jsonl")),
		"two-arms.txt": lap([]string{"tcp", "efa"}, 10, 4, record.LoadClosed, 1, nil),
		"narrow.txt":   lap([]string{"libfabric-efa", "efa"}, 10, 60, record.LoadClosed, 1, nil),
		"few-blocks.txt": lap([]string{"tcp", "efa"}, 3, 1, record.LoadClosed, 1, func(r *record.Record) {
			no := false
			r.Requests[0].ITLNs = nil
			r.Requests[1].ConnReused, r.Requests[1].FirstTokenMatch = false, &no
		}),
		"few-launches.txt": lap([]string{"tcp", "efa"}, 6, 2, record.LoadClosed, 1, func(r *record.Record) {
			r.Run.Launches, r.Run.Design = 2, &record.Design{Blocks: 3, Order: "random"}
			for i := range r.Requests {
				q := &r.Requests[i]
				q.Launch, q.Block, q.Sequence = q.Block/3, q.Block%3, q.Sequence%6
			}
		}),
		"none-valid.txt": lap([]string{"tcp"}, 2, 2, record.LoadClosed, 4, func(r *record.Record) {
			for i := range r.Requests {
				r.Requests[i].Valid, r.Requests[i].Reason, r.Requests[i].Simulated = false, record.ReasonNullParams, true
			}
			r.Conditions[0].Simulated = true
		}),
		"offline.txt": lap([]string{"tcp"}, 6, 4, record.LoadOffline, 0, func(r *record.Record) {
			for i := range r.Requests {
				q := &r.Requests[i]
				q.Batch, q.Moved, q.Split.Engine = q.Block, nil, false
			}
		}),
	} {
		var b bytes.Buffer
		if err := Write(&b, []Document{d}, "text", Options{}); err != nil {
			t.Fatal(err)
		}
		golden(t, name, b.Bytes())
		for line := range strings.Lines(b.String()) {
			if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > 80 {
				t.Errorf("%s: %d columns: %s", name, n, line)
			}
		}
	}
}

// TestColor: colour only adds escape sequences, and only when asked for.
func TestColor(t *testing.T) {
	a := analyse(t, filepath.Join(recordsDir, "failed-check.jsonl"))
	var plain, colored bytes.Buffer
	if err := Text(&plain, a, Options{}); err != nil {
		t.Fatal(err)
	}
	if err := Text(&colored, a, Options{Color: true}); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(plain.String(), "\x1b") {
		t.Error("escape sequences without colour")
	}
	if !strings.Contains(colored.String(), "\x1b[") {
		t.Error("no escape sequences with colour")
	}
	if got := regexp.MustCompile("\x1b\\[[0-9;]*m").ReplaceAllString(colored.String(), ""); got != plain.String() {
		t.Errorf("colour changes the text:\n%s", cmp.Diff(plain.String(), got))
	}
}

// TestStretch: a stretch of slow requests is one line, not two changes.
func TestStretch(t *testing.T) {
	d := &analysis.Requests{Series: []analysis.Series{{Arm: "tcp", Tokens: 8000, N: 60, Classes: []analysis.ComponentClass{{Component: analysis.ComponentTTFT, Class: stats.Excursions}},
		Changes:   []analysis.Change{{Component: analysis.ComponentTTFT, Sequence: 19, Before: 1e8, After: 2.3e8}, {Component: analysis.ComponentTTFT, Sequence: 30, Before: 2.3e8, After: 1e8}},
		Stretches: []analysis.Stretch{{Component: analysis.ComponentTTFT, First: 19, Last: 29, N: 11, Factor: 2.3}}}}}
	got := runOrder(d)
	want := []string{"ttft of 11 requests, #20 to #30, is 2.3 times that of the rest"}
	if len(got) != 1 || got[0].head != "tcp, 8,000 tokens, 60 requests one at a time: ttft excursion" || !slices.Equal(got[0].lines, want) {
		t.Errorf("%+v", got)
	}
}
