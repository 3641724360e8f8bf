package cli

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

func page(t *testing.T, path ...string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(append([]string{"..", ".."}, path...)...))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// Each flag of a command is in its page, and its page names no other.
func TestPagesNameEveryFlag(t *testing.T) {
	for name, tt := range map[string]struct {
		cmd  *cobra.Command
		skip func(string) bool
	}{
		"raw": {cmd: newRootCommand()},
		// A raw run's flags are in its own page.
		"sweep":   {newSweepCommand(), func(f string) bool { return newRootCommand().Flags().Lookup(f) != nil }},
		"serve":   {cmd: newServeCommand()},
		"version": {cmd: newVersionCommand()},
		"compare": {cmd: newCompareCommand()},
		"report":  {cmd: newReportCommand()},
		"advise":  {cmd: newAdviseCommand()},
	} {
		doc := page(t, "docs", name+".md")
		tt.cmd.Flags().VisitAll(func(f *pflag.Flag) {
			if f.Hidden || f.Name == "help" || tt.skip != nil && tt.skip(f.Name) {
				return
			}
			if !regexp.MustCompile("`--" + f.Name + "[ `]").MatchString(doc) {
				t.Errorf("docs/%s.md does not have --%s", name, f.Name)
			}
		})
		known := func(flag string) bool {
			return slices.ContainsFunc(append(newRootCommand().Commands(), newRootCommand()), func(c *cobra.Command) bool { return c.Flags().Lookup(flag) != nil })
		}
		ours := regexp.MustCompile("(?m)^.*launch file's.*$").ReplaceAllString(doc, "") // engines have flags of their own
		for _, m := range regexp.MustCompile("`--([a-z-]+)[ `]").FindAllStringSubmatch(ours, -1) {
			if !known(m[1]) {
				t.Errorf("docs/%s.md has --%s, which is no flag", name, m[1])
			}
		}
	}
}

// examples are the command lines of a page, split by the shell itself.
func examples(t *testing.T, doc string) [][]string {
	t.Helper()
	var out [][]string
	doc = strings.ReplaceAll(doc, "\\\n", " ")
	for l := range strings.Lines(doc) {
		line, ok := strings.CutPrefix(strings.TrimRight(l, "\n"), "    xferbench ")
		if !ok || strings.ContainsAny(line, "…[") {
			continue
		}
		line, _, _ = strings.Cut(line, " | ")
		line, _, _ = strings.Cut(line, " > ")
		words, err := exec.CommandContext(t.Context(), "sh", "-c", `words() { printf '%s\n' "$@"; }; words `+line).Output()
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		out = append(out, strings.Split(strings.TrimSpace(string(words)), "\n"))
	}
	return out
}

// Every example in the documents is a command line that xferbench takes; those
// of raw runs and sweeps describe a grid that can be run.
func TestExamplesParse(t *testing.T) {
	pages, err := filepath.Glob("../../docs/*.md")
	if err != nil || len(pages) < 10 {
		t.Fatalf("%d pages, %v", len(pages), err)
	}
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("sixteen bytes or more"), 0o600); err != nil {
		t.Fatal(err)
	}
	planned := 0
	for _, p := range pages {
		for _, args := range examples(t, page(t, "docs", filepath.Base(p))) {
			name := filepath.Base(p) + ": xferbench " + strings.Join(args, " ")
			root := newRootCommand()
			cmd, rest, err := root.Find(args)
			if err == nil {
				err = cmd.ParseFlags(rest)
			}
			if err == nil {
				err = cmd.ValidateArgs(cmd.Flags().Args())
			}
			if err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			if cmd != root && cmd.Name() != "sweep" || slices.ContainsFunc([]string{"tune", "resume", "spec", "print-spec"}, cmd.Flags().Changed) {
				continue
			}
			for i, a := range rest {
				switch {
				case strings.HasSuffix(a, "#TOKEN"):
					rest[i] = strings.TrimSuffix(a, "TOKEN") + strings.Repeat("A", 43)
				case i > 0 && rest[i-1] == "--secret-file":
					rest[i] = secret
				}
			}
			out, _, err := runSub(t, t.Context(), newSweepCommand(), append(rest, "--plan")...)
			if err != nil || !strings.Contains(out, " cells x ") {
				t.Errorf("%s: %v\n%s", name, err, out)
			}
			planned++
		}
	}
	if planned < 12 {
		t.Errorf("only %d raw runs and sweeps among the examples", planned)
	}
}

// docs/sweep.md shows what --plan prints.
func TestSweepPagePlan(t *testing.T) {
	out, _, err := runSub(t, t.Context(), newSweepCommand(), "--provider=tcp,ucx:tcp", "--size=64KiB:16MiB:5", "--shape=contiguous", "--no-ceiling", "--seed=3", "--plan")
	if err != nil {
		t.Fatal(err)
	}
	if doc := page(t, "docs", "sweep.md"); !strings.Contains(doc, "```\n"+out+"```\n") {
		t.Errorf("docs/sweep.md does not hold\n%s", out)
	}
	for l := range strings.Lines(out) {
		if len(l) > 81 {
			t.Errorf("more than 80 columns: %s", l)
		}
	}
}
