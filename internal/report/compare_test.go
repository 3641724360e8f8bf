package report

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/xferbench/xferbench/internal/analysis"
	"github.com/xferbench/xferbench/internal/record"
)

func compare(t *testing.T, a, b string, o CompareOptions) (string, error) {
	t.Helper()
	if o.Format == "" {
		o.Format = "text"
	}
	var buf bytes.Buffer
	err := Compare(&buf, []string{filepath.Join(recordsDir, a+".jsonl"), filepath.Join(recordsDir, b+".jsonl")}, o)
	return buf.String(), err
}

// extensions of goldens by format.
var extensions = map[string]string{"text": ".txt", "markdown": ".md", "csv": ".csv", "json": ".json", "junit": ".xml", "html": ".html"}

func TestCompareGolden(t *testing.T) {
	for _, format := range CompareFormats() {
		out, err := compare(t, "two-providers", "another-day", CompareOptions{Format: format, Threshold: 0.05})
		if !errors.Is(err, ErrThreshold) {
			t.Errorf("a slowdown of 12%% against a limit of 5%%: %v", err)
		}
		golden(t, "compare"+extensions[format], []byte(out))
	}
}

func TestCompareOutcomes(t *testing.T) {
	for name, tt := range map[string]struct {
		a, b      string
		threshold float64
		allow     bool
		want      error
		say       string
	}{
		"slower by 12 %":            {"two-providers", "another-day", 0.05, false, ErrThreshold, "tcp READ merged became slower by more than 5%; undecided at 5%: tcp READ fragmented; repeat both runs with --blocks 27,"},
		"no threshold":              {"two-providers", "another-day", 0, false, nil, ""},
		"a limit above it":          {"two-providers", "another-day", 0.25, false, nil, ""},
		"a limit within it":         {"two-providers", "another-day", 0.12, false, ErrTooFew, "undecided at 12%: tcp READ merged; repeat"},
		"and that is allowed":       {"two-providers", "another-day", 0.12, true, nil, ""},
		"faster is no regression":   {"another-day", "two-providers", 0.05, false, nil, ""},
		"itself":                    {"two-providers", "two-providers", 0.05, false, nil, ""},
		"a limit too tight for it":  {"two-providers", "two-providers", 0.001, false, ErrTooFew, "undecided at 0.1%"},
		"sweep with itself":         {"sweep", "sweep", 0.05, false, nil, ""},
		"launches with themselves":  {"launches", "launches", 0.05, false, nil, ""},
		"launches and blocks":       {"two-providers", "launches", 0.05, false, ErrTooFew, "ucx:tcp READ fragmented; repeat both runs with --launches 6 or more"},
		"too few":                   {"two-providers", "short", 0, false, ErrTooFew, "--blocks 10"},
		"too few and a limit":       {"two-providers", "short", 0.05, false, ErrTooFew, "undecided at 5%: tcp READ merged"},
		"gone, though undecided go": {"two-providers", "short", 0.05, true, ErrTooFew, "missing: ucx:tcp READ fragmented 438.57MB; B was cut off: it has no end line"},
		"failed check":              {"two-providers", "failed-check", 0.05, false, ErrCheck, "tcp READ fragmented"},
		"failed check, no limit":    {"failed-check", "two-providers", 0, false, ErrCheck, "tcp READ fragmented"},
		"emulated":                  {"two-providers", "emulated", 0, false, ErrRefused, "emulated device, not a measurement"},
		"emulated base":             {"emulated", "two-providers", 0.05, false, ErrRefused, "emulated device, not a measurement"},
		"nothing in common":         {"two-providers", "same-twice", 0, false, ErrRefused, "no condition stands in both"},
		"all gone":                  {"two-providers", "same-twice", 0.05, true, ErrTooFew, "missing: tcp READ merged 438.57MB, "},
		"no file":                   {"two-providers", "none", 0, false, ErrRefused, "no such file"},
		"cut off":                   {"two-providers", "compare/cut-off", 0.5, false, ErrTooFew, "B was cut off: it has no end line"},
		"cut off base":              {"compare/cut-off", "two-providers", 0.5, true, ErrTooFew, "A was cut off: it has no end line"},
		"compare/interrupted":       {"two-providers", "compare/interrupted", 0.5, true, ErrTooFew, "B was interrupted"},
		"interrupted base":          {"compare/interrupted", "two-providers", 0.5, true, ErrTooFew, "A was interrupted"},
		"ended over an error":       {"two-providers", "compare/failed-run", 0.5, true, ErrTooFew, "missing: ucx:tcp READ fragmented 438.57MB; B failed: ucx:tcp: the peer has gone"},
		"gone and slower":           {"two-providers", "compare/failed-run", 0.05, false, ErrThreshold, "tcp READ merged became slower by more than 5%; missing: ucx:tcp READ fragmented 438.57MB; B failed: "},
		"a check outweighs them":    {"failed-check", "compare/failed-run", 0.05, false, ErrCheck, "tcp READ fragmented"},
		"incomplete, no limit":      {"two-providers", "compare/interrupted", 0, false, nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			out, err := compare(t, tt.a, tt.b, CompareOptions{Threshold: tt.threshold, AllowUndecided: tt.allow})
			if !errors.Is(err, tt.want) || tt.want == nil && err != nil || err != nil && !strings.Contains(err.Error(), tt.say) {
				t.Errorf("%v, want %v with %q", err, tt.want, tt.say)
			}
			if !errors.Is(tt.want, ErrRefused) && !strings.Contains(out, "not interleaved") {
				t.Errorf("the caveat is missing:\n%s", out)
			}
			columns(t, out)
		})
	}
}

// columns holds every line to 80.
func columns(t *testing.T, out string) {
	t.Helper()
	for line := range strings.Lines(out) {
		if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > 80 {
			t.Errorf("%d columns: %s", n, line)
		}
	}
}

// Runs of several launches lack launches, not blocks.
func TestTooFewLaunches(t *testing.T) {
	few := func(launches int) error {
		row := &analysis.Figures{Label: "tcp", N: 9, Launches: launches}
		return (&compareDoc{Runs: &analysis.Runs{A: &analysis.Source{Record: &record.Record{}}, B: &analysis.Source{Record: &record.Record{}}, Rows: []*analysis.Delta{{A: row, B: row}}}}).outcome()
	}
	for launches, want := range map[int]string{1: "repeat the runs with --blocks 10", 3: "repeat the runs with --launches 6 or more"} {
		if err := few(launches); !errors.Is(err, ErrTooFew) || !strings.HasSuffix(err.Error(), want) {
			t.Errorf("%d launches: %v, want %q", launches, err, want)
		}
	}
}

// TestCompareItself holds that a record against itself shows no difference in any
// row.
func TestCompareItself(t *testing.T) {
	for _, name := range []string{"two-providers", "sweep", "launches"} {
		out, err := compare(t, name, name, CompareOptions{})
		if err != nil {
			t.Fatal(err)
		}
		rows := 0
		for line := range strings.Lines(out) {
			if f := strings.Fields(line); len(f) > 5 && strings.Contains(f[len(f)-3], "+") {
				rows++
				if f[len(f)-1] != "no-diff" {
					t.Errorf("%s with itself: %s", name, line)
				}
			}
		}
		if rows < 4 {
			t.Errorf("%s with itself: %d rows in\n%s", name, rows, out)
		}
	}
}

func TestCompareBadFormat(t *testing.T) {
	if _, err := compare(t, "sweep", "sweep", CompareOptions{Format: "xml"}); !errors.Is(err, ErrRefused) {
		t.Errorf("%v", fmt.Errorf("format xml: %w", err))
	}
}

func TestCompareTTFTGolden(t *testing.T) {
	for _, format := range []string{"text", "markdown", "json", "html"} {
		out, err := compare(t, "two-providers", "ttft", CompareOptions{Format: format})
		if err != nil {
			t.Error(err)
		}
		saved := []byte(out)
		if format == "html" {
			_, saved = parts(t, saved)
		}
		golden(t, "where"+extensions[format], saved)
		// The order of the two does not matter.
		if again, err := compare(t, "ttft", "two-providers", CompareOptions{Format: format}); err != nil || again != out {
			t.Errorf("%s: the other order differs (%v)", format, err)
		}
	}
}

// A run that ended over a failed check gives code 4 whichever kind it is of.
func TestEndedOverCheck(t *testing.T) {
	end := &record.End{Status: record.StatusFailed, ExitCode: 4, Error: "data check failed"}
	raw, tt := load(t, filepath.Join(recordsDir, "two-providers.jsonl")).Record, load(t, filepath.Join(recordsDir, "ttft.jsonl")).Record
	raw2, tt2 := *raw, *tt
	raw2.End, tt2.End = end, end
	for name, recs := range map[string][2]*record.Record{"raw": {raw, &raw2}, "raw first": {&raw2, raw}, "ttft": {tt, &tt2}, "raw beside ttft": {&raw2, tt}, "ttft beside raw": {raw, &tt2}} {
		for _, threshold := range []float64{0, 0.05} {
			var err error
			if (recs[0].Run.Kind == kindTTFT) == (recs[1].Run.Kind == kindTTFT) {
				err = compareRuns(io.Discard, recs[:], CompareOptions{Threshold: threshold})
			} else if threshold == 0 {
				err = compareTTFT(io.Discard, recs[0], recs[1], CompareOptions{})
			} else {
				continue
			}
			if !errors.Is(err, ErrCheck) {
				t.Errorf("%s, threshold %v: %v", name, threshold, err)
			}
		}
	}
}

// With several launches the launch is the unit, and more of them are what is missing.
func TestCompareTTFTOfLaunches(t *testing.T) {
	tt := load(t, filepath.Join(recordsDir, "ttft.jsonl")).Record
	for i := range tt.Requests {
		q := &tt.Requests[i]
		q.Launch, q.Block = q.Block%2, q.Block/2
	}
	var b bytes.Buffer
	if err := compareTTFT(&b, load(t, filepath.Join(recordsDir, "two-providers.jsonl")).Record, tt, CompareOptions{Options: Options{Wide: true}}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{" in 2 launches\n", "# parts: medians of launches in ms; ", ", paired by launch\n", ": 2 launches give no interval and no verdict: use --launches 6 or more\n"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in\n%s", want, b.String())
		}
	}
	if strings.Contains(b.String(), "blocks") {
		t.Errorf("blocks are no units here:\n%s", b.String())
	}
}
