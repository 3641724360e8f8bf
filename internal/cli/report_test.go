package cli

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

const records = "../../testdata/records/"

// run executes a command and returns its output and exit code.
func runCommand(cmd *cobra.Command, args ...string) (string, int, error) {
	var out bytes.Buffer
	cmd.SetOut(&out)
	cmd.SetErr(&out)
	cmd.SetArgs(append([]string{}, args...)) // nil would mean os.Args
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	err := cmd.Execute()
	code := 0
	if err != nil {
		code = exitCode(err)
	}
	return out.String(), code, err
}

func TestReport(t *testing.T) {
	file := filepath.Join(t.TempDir(), "out.html")
	for _, tt := range []struct {
		name string
		args []string
		code int
		want string
	}{
		{"text", []string{records + "two-providers.jsonl"}, 0, "ucx:tcp is 1.31 times as fast as tcp"},
		{"csv", []string{"--format=csv", records + "sweep.jsonl"}, 0, "run_id,start_unix_ns,condition"},
		{"several", []string{"--format=markdown", records + "sweep.jsonl", records + "ttft.jsonl"}, 0, "xferbench ttft run ttft"},
		{"no record", nil, 2, ""},
		{"no file", []string{"none.jsonl"}, 2, ""},
		{"format", []string{"--format=xml", records + "sweep.jsonl"}, 2, ""},
		{"kinds", []string{"--format=csv", records + "sweep.jsonl", records + "ttft.jsonl"}, 2, ""},
		{"file", []string{"--format=html", "-o", file, records + "sweep.jsonl"}, 0, ""},
		{"existing file", []string{"--format=html", "-o", file, records + "sweep.jsonl"}, 2, ""},
		{"force", []string{"--format=html", "-o", file, "--force", records + "two-providers.jsonl"}, 0, ""},
	} {
		out, code, err := runCommand(newReportCommand(), tt.args...)
		if code != tt.code || !strings.Contains(out, tt.want) || tt.code != 0 && out != "" {
			t.Errorf("%s: exit code %d (%v), want %d and %q in\n%.300s", tt.name, code, err, tt.code, tt.want, out)
		}
	}
	b, err := os.ReadFile(file)
	if err != nil || !bytes.Contains(b, []byte("raw run two-providers")) {
		t.Errorf("--force left %.60q (%v)", b, err)
	}
}

func TestReportLast(t *testing.T) {
	state := t.TempDir()
	t.Setenv("XDG_STATE_HOME", state)
	dir := filepath.Join(state, "xferbench")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(records + "same-twice.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "20260101T000000.000Z-x.jsonl"), b, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, code, err := runCommand(newReportCommand(), "last"); code != 0 || !strings.Contains(out, "raw run same-twice") {
		t.Errorf("exit code %d (%v):\n%s", code, err, out)
	}
	if out, code, err := runCommand(newCompareCommand(), "last", "last"); code != 0 || !strings.Contains(out, "no-diff") {
		t.Errorf("compare: exit code %d (%v):\n%s", code, err, out)
	}
}

// The exit codes are those of the issue: 5 threshold, 6 too little data, 2
// refused, 4 data check.
func TestCompare(t *testing.T) {
	two, other := records+"two-providers.jsonl", records+"another-day.jsonl"
	for _, tt := range []struct {
		name string
		args []string
		code int
		want string
	}{
		{"itself", []string{two, two}, 0, "no-diff"},
		{"slower", []string{two, other}, 0, "slower"},
		{"threshold missed", []string{"--threshold=5%", two, other}, 5, "slower  slower"},
		{"threshold held", []string{"--threshold", "0.25", two, other}, 0, "Within the limit of 25%: 4 of 4 rows. The intervals end at 1.137 at most (tcp"},
		{"too few", []string{two, records + "short.jsonl"}, 6, "too-few"},
		{"failed check", []string{two, records + "failed-check.jsonl"}, 4, "FAILED"},
		{"emulated", []string{two, records + "emulated.jsonl"}, 2, ""},
		{"ttft", []string{two, records + "ttft.jsonl"}, 0, "The wire explains"},
		{"ttft with a threshold", []string{"--threshold=5%", two, records + "ttft.jsonl"}, 2, ""},
		{"ttft twice", []string{records + "ttft.jsonl", records + "ttft.jsonl"}, 0, "no-diff"},
		{"history", []string{records + "compare/day2.jsonl", records + "compare/day1.jsonl", records + "compare/day5.jsonl"}, 0, "▁▁█"},
		{"history of two kinds", []string{two, other, records + "ttft.jsonl"}, 2, ""},
		{"junit of two kinds", []string{"--format=junit", two, records + "ttft.jsonl"}, 2, ""},
		{"undecided", []string{"--threshold=12%", two, other}, 6, "undecided: tcp READ merged: about "},
		{"undecided and allowed", []string{"--threshold=12%", "--allow-undecided", two, other}, 0, "3 of 4 rows; 1 undecided, which"},
		{"allowed without a limit", []string{"--allow-undecided", two, other}, 2, ""},
		{"empty threshold", []string{"--threshold=", two, other}, 2, ""},
		{"negative threshold", []string{"--threshold=-5%", two, other}, 2, ""},
		{"interrupted", []string{"--threshold=50%", two, records + "compare/interrupted.jsonl"}, 6, "B was interrupted"},
		{"ttft of other bytes", []string{records + "same-twice.jsonl", records + "ttft.jsonl"}, 6, "--tokens 7648"},
		{"one record", []string{two}, 2, ""},
		{"bad threshold", []string{"--threshold=5", two, other}, 2, ""},
		{"format", []string{"--format=benchfmt", two, other}, 2, ""},
		{"no file", []string{two, "none.jsonl"}, 2, ""},
	} {
		out, code, err := runCommand(newRootCommand(), append([]string{"compare"}, tt.args...)...)
		if code != tt.code || !strings.Contains(out, tt.want) {
			t.Errorf("%s: exit code %d (%v), want %d and %q in\n%s", tt.name, code, err, tt.code, tt.want, out)
		}
	}
}

// TestReportDocs holds that the outputs in the docs are what the commands print.
func TestReportDocs(t *testing.T) {
	for _, tt := range []struct {
		doc  string
		cmd  *cobra.Command
		args []string
	}{
		{"report.md", newReportCommand(), []string{records + "two-providers.jsonl"}},
		{"report.md", newReportCommand(), []string{records + "sweep.jsonl"}},
		{"compare.md", newCompareCommand(), []string{"--threshold", "5%", records + "two-providers.jsonl", records + "another-day.jsonl"}},
		{"compare.md", newCompareCommand(), []string{"--threshold", "5%", records + "ttft.jsonl", records + "compare/ttft-friday.jsonl"}},
		{"compare.md", newCompareCommand(), []string{records + "compare/day1.jsonl", records + "compare/day2.jsonl", records + "compare/day3.jsonl",
			records + "compare/day4.jsonl", records + "compare/day5.jsonl"}},
		{"compare.md", newCompareCommand(), []string{records + "two-providers.jsonl", records + "ttft.jsonl"}},
	} {
		doc, err := os.ReadFile(filepath.Join("..", "..", "docs", tt.doc))
		if err != nil {
			t.Fatal(err)
		}
		out, _, _ := runCommand(tt.cmd, tt.args...)
		out = strings.ReplaceAll(out, records, "testdata/records/")
		if !strings.Contains(string(doc), "```\n"+section(out)+"```\n") {
			t.Errorf("docs/%s does not hold the output of %s:\n%s", tt.doc, strings.Join(tt.args, " "), section(out))
		}
	}
}

// section is the output without its "#" header, whose paths depend on where the
// test runs.
func section(out string) string {
	_, rest, _ := strings.Cut(out, "\n\n")
	return rest
}
