package report

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/xferbench/xferbench/internal/analysis"
)

func compare(t *testing.T, a, b string, o CompareOptions) (string, error) {
	t.Helper()
	if o.Format == "" {
		o.Format = "text"
	}
	var buf bytes.Buffer
	err := Compare(&buf, filepath.Join(recordsDir, a+".jsonl"), filepath.Join(recordsDir, b+".jsonl"), o)
	return buf.String(), err
}

func TestCompareGolden(t *testing.T) {
	for _, format := range CompareFormats() {
		out, err := compare(t, "two-providers", "another-day", CompareOptions{Format: format, Threshold: 0.05})
		if !errors.Is(err, ErrThreshold) {
			t.Errorf("a slowdown of 12%% against a limit of 5%%: %v", err)
		}
		golden(t, "compare."+map[string]string{"text": "txt", "markdown": "md", "json": "json"}[format], []byte(out))
	}
}

func TestCompareOutcomes(t *testing.T) {
	for name, tt := range map[string]struct {
		a, b      string
		threshold float64
		want      error
		say       string
	}{
		"slower by 12 %":          {"two-providers", "another-day", 0.05, ErrThreshold, "tcp READ merged became slower by more than 5%"},
		"no threshold":            {"two-providers", "another-day", 0, nil, ""},
		"a limit above it":        {"two-providers", "another-day", 0.25, nil, ""},
		"faster is no regression": {"another-day", "two-providers", 0.05, nil, ""},
		"itself":                  {"two-providers", "two-providers", 0.01, nil, ""},
		"sweep with itself":       {"sweep", "sweep", 0.05, nil, ""},
		"too few":                 {"two-providers", "short", 0, ErrTooFew, "--blocks 10"},
		"too few and a limit":     {"two-providers", "short", 0.05, ErrTooFew, "tcp READ merged"},
		"failed check":            {"two-providers", "failed-check", 0.05, ErrCheck, "tcp READ fragmented"},
		"emulated":                {"two-providers", "emulated", 0, ErrRefused, "emulated device, not a measurement"},
		"emulated base":           {"emulated", "two-providers", 0.05, ErrRefused, "emulated device, not a measurement"},
		"nothing in common":       {"two-providers", "same-twice", 0, ErrRefused, "no condition stands in both"},
		"no file":                 {"two-providers", "none", 0, ErrRefused, "no such file"},
	} {
		t.Run(name, func(t *testing.T) {
			out, err := compare(t, tt.a, tt.b, CompareOptions{Threshold: tt.threshold})
			if !errors.Is(err, tt.want) || tt.want == nil && err != nil || err != nil && !strings.Contains(err.Error(), tt.say) {
				t.Errorf("%v, want %v with %q", err, tt.want, tt.say)
			}
			if !errors.Is(tt.want, ErrRefused) && !strings.Contains(out, "not interleaved") {
				t.Errorf("the caveat is missing:\n%s", out)
			}
			for line := range strings.Lines(out) {
				if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > 80 {
					t.Errorf("%d columns: %s", n, line)
				}
			}
		})
	}
}

// Runs of several launches lack launches, not blocks.
func TestTooFewLaunches(t *testing.T) {
	few := func(launches int) error {
		row := func() *analysis.Row { return &analysis.Row{Label: "tcp", N: 9, Launches: launches} }
		return outcome(&analysis.Runs{Pairs: []analysis.Pair{{A: row(), B: row()}}}, CompareOptions{})
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
	for _, format := range CompareFormats() {
		out, err := compare(t, "two-providers", "ttft", CompareOptions{Format: format})
		if err != nil {
			t.Error(err)
		}
		golden(t, "where."+map[string]string{"text": "txt", "markdown": "md", "json": "json"}[format], []byte(out))
		// The order of the two does not matter.
		if again, err := compare(t, "ttft", "two-providers", CompareOptions{Format: format}); err != nil || again != out {
			t.Errorf("%s: the other order differs (%v)", format, err)
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
