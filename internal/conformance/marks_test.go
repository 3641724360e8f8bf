package conformance

import (
	"bufio"
	"encoding/csv"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/xferbench/xferbench/internal/testenv/efaemu"
)

// notMeasured is what every figure of an emulated device is replaced by.
const notMeasured = "emulated device, not a measurement"

// emulatedRun records one run over an emulated device and over tcp.
func emulatedRun(t *testing.T, n *network) string {
	t.Helper()
	p := start(t, host, bin, n.env, "--provider", "efa,efa,tcp", "--op", "read", "--shape", "merged", "--size", "1MB", "--no-ceiling",
		"--blocks", "6", "--min-blocks", "6", "--iterations", "1", "--record", filepath.Join(t.TempDir(), "r.jsonl"))
	p.want(0)
	checkMarked(t, "the run's own output", p.Out.String(), textRows)
	return p.record
}

// rowsOf finds the rows of a provider's table of figures in a report, by the
// provider's first cell; the word behind it tells such a row from others.
type rowsOf func(report, provider string) []string

func textRows(report, provider string) (rows []string) {
	for l := range strings.Lines(report) {
		// The table of counters tells bytes, which were moved indeed.
		if f := strings.Fields(l); len(f) > 1 && f[0] == provider && f[1] == "read" && !strings.Contains(l, "_bytes") {
			rows = append(rows, l)
		}
	}
	return rows
}

func markdownRows(report, provider string) (rows []string) {
	for l := range strings.Lines(report) {
		if strings.HasPrefix(l, "| "+provider+" | read |") && !strings.Contains(l, "bytes") {
			rows = append(rows, l)
		}
	}
	return rows
}

func htmlRows(report, provider string) (rows []string) {
	for l := range strings.Lines(report) {
		if strings.Contains(l, ">"+provider+"</th>") && !strings.Contains(l, "_bytes") {
			rows = append(rows, l)
		}
	}
	return rows
}

// checkMarked holds the emulated rows to be marked and tcp's not to be.
func checkMarked(t *testing.T, what, report string, rows rowsOf) {
	t.Helper()
	for _, provider := range []string{"efa", "efa#2", "tcp"} {
		found := rows(report, provider)
		if len(found) == 0 {
			t.Errorf("%s has no row of %s:\n%s", what, provider, report)
		}
		for _, l := range found {
			if strings.Contains(l, notMeasured) != (provider != "tcp") {
				t.Errorf("%s: %q", what, l)
			}
		}
	}
}

// What an emulated device is good for is never taken for a measurement: each
// row of each report and each line of the record says so, and nothing compares
// them.
func TestEmulatedIsNoMeasurement(t *testing.T) {
	t.Parallel()
	n := emulate(t, efaemu.Options{})
	one, two := emulatedRun(t, n), emulatedRun(t, n)

	t.Run("record", func(t *testing.T) { checkRecordMarked(t, one) })
	for format, rows := range map[string]rowsOf{"text": textRows, "markdown": markdownRows, "html": htmlRows} {
		t.Run(format, func(t *testing.T) { checkMarked(t, format, report(t, one, format), rows) })
	}
	t.Run("csv", func(t *testing.T) {
		lines, err := csv.NewReader(strings.NewReader(report(t, one, "csv"))).ReadAll()
		if err != nil || len(lines) != 4 {
			t.Fatalf("%v, %d lines", err, len(lines))
		}
		for _, l := range lines[1:] {
			row := map[string]string{}
			for i, name := range lines[0] {
				row[name] = l[i]
			}
			emulated := row["provider"] != "tcp"
			if (row["emulated_device"] == "true") != emulated || (row["median_ns"] == "") != emulated || (row["sum_ns"] == "") != emulated {
				t.Errorf("%v", row)
			}
		}
	})
	t.Run("json", func(t *testing.T) {
		var doc struct {
			Reports []struct {
				Rows []struct {
					Condition struct {
						Provider string `json:"provider"`
					} `json:"condition"`
					Emulated bool            `json:"emulated_device"`
					Speed    *map[string]any `json:"speed"`
				} `json:"rows"`
			} `json:"reports"`
		}
		if err := json.Unmarshal([]byte(report(t, one, "json")), &doc); err != nil || len(doc.Reports) != 1 || len(doc.Reports[0].Rows) != 3 {
			t.Fatalf("%v, %+v", err, doc)
		}
		for _, r := range doc.Reports[0].Rows {
			if emulated := r.Condition.Provider != "tcp"; r.Emulated != emulated || (r.Speed == nil) != emulated {
				t.Errorf("%+v", r)
			}
		}
	})
	t.Run("benchfmt", func(t *testing.T) {
		// The format has no place for the mark: such rows are left out.
		if out := report(t, one, "benchfmt"); strings.Contains(out, "provider=efa") || !strings.Contains(out, "provider=tcp") {
			t.Errorf("%s", out)
		}
	})
	for _, args := range [][]string{{"compare", one, two}, {"compare", one, two, "--threshold", "5%"}} {
		t.Run(strings.Join(append([]string{args[0]}, args[3:]...), " "), func(t *testing.T) {
			p := start(t, host, bin, nil, args...)
			p.want(2)
			if words := "not comparable: " + one + " is of an emulated device, not a measurement"; !strings.Contains(p.Errs.String(), words) || p.Out.String() != "" {
				t.Errorf("stdout %q, stderr %q, want %q", p.Out.String(), p.Errs.String(), words)
			}
		})
	}
}

func report(t *testing.T, record, format string) string {
	t.Helper()
	p := start(t, host, bin, nil, "report", record, "--format", format)
	p.want(0)
	return p.Out.String()
}

// checkRecordMarked reads the lines as they are, so that no reader's defaults
// come between.
func checkRecordMarked(t *testing.T, path string) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	seen := map[string]int{}
	sc := bufio.NewScanner(f)
	sc.Buffer(nil, 1<<24)
	for sc.Scan() {
		var l struct {
			Type      string `json:"type"`
			ID        *int   `json:"id"`
			Condition *int   `json:"condition"`
			Simulated bool   `json:"simulated"`
			Verdict   string `json:"verdict"`
			Reason    string `json:"reason"`
		}
		// A run's id is a word.
		if strings.HasPrefix(sc.Text(), `{"type":"run"`) {
			continue
		}
		if err := json.Unmarshal(sc.Bytes(), &l); err != nil {
			t.Fatalf("%v: %s", err, sc.Text())
		}
		seen[l.Type]++
		switch l.Type {
		case "condition", "cold", "sample", "path", "summary":
			of := l.Condition
			if l.Type == "condition" {
				of = l.ID
			}
			if of == nil || l.Simulated != (*of < 2) { // efa and efa#2 come first
				t.Errorf("%s", sc.Text())
			}
		case "comparison":
			if l.Verdict != "refused" || l.Reason != notMeasured {
				t.Errorf("%s", sc.Text())
			}
		}
	}
	if err := sc.Err(); err != nil {
		t.Fatal(err)
	}
	for typ, want := range map[string]int{"condition": 3, "cold": 3, "sample": 21, "path": 21, "summary": 3, "comparison": 3} {
		if seen[typ] != want {
			t.Errorf("%d %s lines, want %d", seen[typ], typ, want)
		}
	}
}
