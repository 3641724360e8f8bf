package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"regexp"
	"testing"
	"time"

	"github.com/xferbench/xferbench/internal/providers"
	"github.com/xferbench/xferbench/internal/remote"
)

// runProviders runs the subcommand in this process.
func runProviders(t *testing.T, args ...string) (string, error) {
	t.Helper()
	cmd := newProvidersCommand()
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	var out bytes.Buffer
	cmd.SetOut(&out)
	cmd.SetErr(&out)
	cmd.SetArgs(args)
	err := cmd.ExecuteContext(t.Context())
	return out.String(), err
}

// worker runs the hidden command on a request.
func worker(t *testing.T, task string, spec any) (string, error) {
	t.Helper()
	r, err := remote.NewRequest(task, spec)
	if err != nil {
		t.Fatal(err)
	}
	line, err := r.Line()
	if err != nil {
		t.Fatal(err)
	}
	cmd := newWorkerCommand()
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	var out bytes.Buffer
	cmd.SetIn(bytes.NewReader(line))
	cmd.SetOut(&out)
	cmd.SetArgs([]string{})
	err = cmd.ExecuteContext(t.Context())
	return out.String(), err
}

func TestWorkerProbes(t *testing.T) {
	out, err := worker(t, providers.Task, map[string]any{"name": "memcpy", "limit_ns": time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	var a struct{ Value struct{ Row providers.Row } }
	if err := json.Unmarshal([]byte(out), &a); err != nil || a.Value.Row.Provider != "memcpy" || a.Value.Row.Outcome != providers.Runs {
		t.Errorf("%v: %s", err, out)
	}
	if _, err := worker(t, providers.Task, map[string]any{"name": "nosuch", "limit_ns": time.Minute}); exitCode(err) != 3 || !errors.Is(err, providers.ErrUnknown) {
		t.Errorf("%v", err)
	}
	if _, err := worker(t, "nosuch", nil); exitCode(err) != 3 {
		t.Errorf("%v", err)
	}
}

func TestProvidersUsage(t *testing.T) {
	for _, args := range [][]string{{"--timeout", "0s"}, {"tcp"}} {
		if _, err := runProviders(t, args...); exitCode(err) != 2 {
			t.Errorf("%v: %v", args, err)
		}
	}
}

// docs/providers.md describes every key of the document.
func TestProvidersDocHasEveryKey(t *testing.T) {
	doc, err := os.ReadFile("../../docs/providers.md")
	if err != nil {
		t.Fatal(err)
	}
	keys := map[string]bool{}
	src, err := os.ReadFile("../providers/report.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`json:"([a-z0-9_]+)`).FindAllStringSubmatch(string(src), -1) {
		keys[m[1]] = true
	}
	if len(keys) < 40 {
		t.Fatalf("only %d keys found in the source", len(keys))
	}
	for k := range keys {
		if !regexp.MustCompile("`[^`]*\\b" + k + "\\b[^`]*`").Match(doc) {
			t.Errorf("docs/providers.md does not name %q", k)
		}
	}
}
