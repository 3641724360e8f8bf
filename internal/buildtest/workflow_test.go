package buildtest

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"
)

type workflow struct {
	Jobs map[string]struct {
		Strategy struct {
			Matrix struct {
				Job []string `yaml:"job"`
			} `yaml:"matrix"`
		} `yaml:"strategy"`
		Steps []struct {
			Uses string `yaml:"uses"`
			Run  string `yaml:"run"`
		} `yaml:"steps"`
	} `yaml:"jobs"`
}

// workflows reads what lies in .github/workflows, by file name.
func workflows(t *testing.T) map[string]workflow {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(checkout(t), ".github/workflows/*.yml"))
	if err != nil || len(files) == 0 {
		t.Fatalf("%d workflows, %v", len(files), err)
	}
	all := map[string]workflow{}
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var w workflow
		if err := yaml.Unmarshal(content, &w); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		all[filepath.Base(file)] = w
	}
	return all
}

// The workflow's jobs are those of .ci/run, so that what is green here is green there.
func TestWorkflowRunsEachJob(t *testing.T) {
	var named, run []string
	for _, job := range workflows(t)["ci.yml"].Jobs {
		for _, step := range job.Steps {
			if strings.HasPrefix(step.Run, ".ci/run") {
				named = job.Strategy.Matrix.Job
				run = append(run, step.Run)
			}
		}
	}
	if want := []string{".ci/run ${{ matrix.job }}"}; !slices.Equal(run, want) {
		t.Errorf("the steps that run .ci/run are %q, want %q", run, want)
	}
	script, err := os.ReadFile(filepath.Join(checkout(t), ".ci/run"))
	if err != nil {
		t.Fatal(err)
	}
	all := regexp.MustCompile(`(?m)^\(\(\$#\)\) \|\| set -- (.*)$`).FindSubmatch(script)
	if all == nil {
		t.Fatal(".ci/run does not say which jobs it runs by default")
	}
	if have := strings.Fields(string(all[1])); !slices.Equal(named, have) {
		t.Errorf("the workflow runs %q, .ci/run %q", named, have)
	}
	out, err := exec.CommandContext(within(t, time.Minute), filepath.Join(checkout(t), ".ci/run"), "none").CombinedOutput()
	if want := "usage: .ci/run [" + strings.Join(named, "|") + "]..."; err == nil || !strings.Contains(string(out), want) {
		t.Errorf("an unknown job: %v, %s; want %s", err, out, want)
	}
}

// An action is named by a commit, which nobody can move, with its version beside it.
func TestActionsArePinned(t *testing.T) {
	pin := regexp.MustCompile(`^ *- uses: [\w/-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$`)
	for name, w := range workflows(t) {
		for job, j := range w.Jobs {
			for i, step := range j.Steps {
				if (step.Uses == "") == (step.Run == "") {
					t.Errorf("%s, job %s, step %d: want one of uses and run", name, job, i+1)
				}
			}
		}
		content, err := os.ReadFile(filepath.Join(checkout(t), ".github/workflows", name))
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(content)) {
			if line = strings.TrimRight(line, "\n"); strings.Contains(line, "uses:") && !pin.MatchString(line) {
				t.Errorf("%s: not pinned by commit and version: %s", name, line)
			}
		}
	}
}

// The other files of .github are read by GitHub alone, so a slip in them shows nowhere else.
func TestGitHubFilesParse(t *testing.T) {
	root := checkout(t)
	files, err := filepath.Glob(filepath.Join(root, ".github/ISSUE_TEMPLATE/*.yml"))
	if err != nil || len(files) == 0 {
		t.Fatalf("%d issue templates, %v", len(files), err)
	}
	for _, file := range append(files, filepath.Join(root, ".github/dependabot.yml")) {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var values map[string]any
		if err := yaml.Unmarshal(content, &values); err != nil {
			t.Errorf("%s: %v", file, err)
		}
	}
}

// A release's notes are its section of the changelog.
func TestReleaseNotes(t *testing.T) {
	root := checkout(t)
	notes, err := os.ReadFile(filepath.Join(root, "scripts/notes.sh"))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, content := range map[string]string{
		"scripts/notes.sh": string(notes),
		"CHANGELOG.md":     "# Changelog\n\n## [Unreleased]\n\n- c\n\n## [1.2.0] - 2026-01-02\n\n### Added\n\n- b\n\n## [1.1.0] - 2025-01-02\n\n- a\n",
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for tag, want := range map[string]string{"v1.2.0": "### Added\n\n- b", "v1.1.0": "- a"} {
		if got := strings.TrimSpace(run(t, exec.CommandContext(within(t, time.Minute), filepath.Join(dir, "scripts/notes.sh"), tag))); got != want {
			t.Errorf("%s: got %q, want %q", tag, got, want)
		}
	}
	for _, tag := range []string{"v1.2", "v2.0.0"} {
		if out, err := exec.CommandContext(within(t, time.Minute), filepath.Join(dir, "scripts/notes.sh"), tag).CombinedOutput(); err == nil {
			t.Errorf("%s has no section, yet notes are %s", tag, out)
		}
	}
}
